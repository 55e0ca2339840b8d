//! What a client is that names itself as a bot: the one place where that is decided. Must not ask anybody.

use std::net::IpAddr;

use super::{Bot, BotKind, Claims, KnownBots, NamePattern, Outcome, Refusal};
use crate::BotStatus;

/// What a client is, and by what that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub status: BotStatus,
    /// The bot's place in the table: the one that it is, or else the first one that it names.
    pub bot: Option<usize>,
    pub how: How,
}

/// By what something is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// The user agent names no bot.
    NotNamed,
    Proven(Proof),
    /// It is the real one, which fetches whatever strangers ask it for.
    ProvenFetcher(Proof),
    /// The operator's networks are known as a whole, and it is in none of them.
    OutsideOfNetworks,
    Refuted(Refusal),
    /// The operator's networks as they are known do not hold it, and DNS was not asked or has not answered.
    Unsettled,
    /// No answer could tell: the operator does not say how, or others may use the name.
    CannotBeKnown,
    /// An address that is nobody's on the Internet.
    NotPublic,
}

/// What proves that it is the real one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    Network,
    /// The confirmed name of its address.
    Name(String),
}

impl KnownBots {
    /// What a client is, as far as networks tell and what DNS has said.
    pub fn judge(&self, claims: Claims, client: IpAddr, dns: Option<&Outcome>) -> Judgement {
        let client = client.to_canonical();
        let Some(first) = claims.iter().next() else {
            return Judgement { status: BotStatus::None, bot: None, how: How::NotNamed };
        };
        if let Some(bot) = claims.iter().find(|&bot| self.ranges[bot].contains(client)) {
            return self.proven(bot, Proof::Network);
        }
        let claimed = |how| Judgement { status: BotStatus::Claimed, bot: Some(first), how };
        if is_nobodys(client) {
            return claimed(How::NotPublic);
        }
        if let Some(Outcome::Confirmed { name }) = dns {
            let is_its = |bot: &usize| self.bots[*bot].dns.iter().any(|pattern| pattern.matches(name));
            if let Some(bot) = claims.iter().find(is_its) {
                return self.proven(bot, Proof::Name(name.clone()));
            }
        }
        let refusal = match dns {
            Some(Outcome::Refuted(refusal)) => Some(refusal),
            Some(Outcome::Confirmed { .. } | Outcome::Unsettled) | None => None,
        };
        let is_refuted = |bot: usize| {
            let bot = &self.bots[bot];
            bot.is_strict && if bot.dns.is_empty() { bot.is_complete } else { refusal.is_some() }
        };
        if claims.iter().all(is_refuted) {
            let how = refusal.map_or(How::OutsideOfNetworks, |refusal| How::Refuted(refusal.clone()));
            return Judgement { status: BotStatus::False, bot: Some(first), how };
        }
        let could_tell = |bot: usize| {
            let Bot { is_strict, dns, urls, .. } = &self.bots[bot];
            *is_strict && !(dns.is_empty() && urls.is_empty())
        };
        claimed(if claims.iter().any(could_tell) { How::Unsettled } else { How::CannotBeKnown })
    }

    /// What networks alone say, for a past that DNS knows nothing of any more: nobody is false by them.
    pub fn by_networks(&self, client: IpAddr, user_agent: &str) -> BotStatus {
        match self.judge(self.claims(user_agent), client, None).status {
            BotStatus::False => BotStatus::Claimed,
            status @ (BotStatus::None | BotStatus::Claimed | BotStatus::Verified) => status,
        }
    }

    /// The names by which DNS could tell who a client is; empty when nothing is to be asked.
    pub fn names_to_ask(&self, claims: Claims, client: IpAddr) -> Vec<NamePattern> {
        let client = client.to_canonical();
        if is_nobodys(client) || claims.iter().any(|bot| self.ranges[bot].contains(client)) {
            return Vec::new();
        }
        claims.iter().flat_map(|bot| self.bots[bot].dns.iter().cloned()).collect()
    }

    /// The bot in whose networks an address is, whatever it names itself; not those that strangers can use.
    pub fn owner(&self, client: IpAddr) -> Option<&Bot> {
        let client = client.to_canonical();
        let mut pairs = self.bots.iter().zip(&self.ranges);
        let found = pairs.find(|(bot, ranges)| bot.kind != BotKind::Fetch && ranges.contains(client));
        found.map(|(bot, _)| bot)
    }

    /// The bot that a client is proven to be; not those that strangers can use.
    pub fn proven_owner(&self, claims: Claims, client: IpAddr, dns: &Outcome) -> Option<&Bot> {
        let judged = self.judge(claims, client, Some(dns));
        judged.bot.filter(|_| judged.status == BotStatus::Verified).map(|bot| &self.bots[bot])
    }

    fn proven(&self, bot: usize, proof: Proof) -> Judgement {
        let (status, how) = match self.bots[bot].kind {
            BotKind::Fetch => (BotStatus::Claimed, How::ProvenFetcher(proof)),
            BotKind::Search
            | BotKind::Ai
            | BotKind::Seo
            | BotKind::Social
            | BotKind::Monitor
            | BotKind::Feed
            | BotKind::Archive => (BotStatus::Verified, How::Proven(proof)),
        };
        Judgement { status, bot: Some(bot), how }
    }
}

/// Whether an address cannot be any operator's: this machine's, a private network's, or none at all.
fn is_nobodys(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bots::read_bots;

    const TABLE: &str = "bot Named\nkind search\nagent NamedBot\nclaims strict\ndns named.example.com\n\
                         net 192.0.2.0/28\n\nbot Listed\nkind ai\nagent ListedBot\nclaims strict\n\
                         url https://listed.example.com/\nnet 198.51.100.0/28\n\nbot Anybody\nkind seo\n\
                         agent AnyBot\nclaims loose\ndns any.example.com\n\nbot Fetcher\nkind fetch\n\
                         agent Fetcher\nclaims strict\nnet 203.0.113.0/28\ndns fetch.example.com\n";

    fn status(known: &KnownBots, agent: &str, client: &str, dns: Option<&Outcome>) -> BotStatus {
        known.judge(known.claims(agent), client.parse().unwrap(), dns).status
    }

    #[test]
    fn networks_prove_and_only_definite_answers_refute() {
        let mut known = KnownBots::new(read_bots(TABLE).unwrap()).unwrap();
        let refuted = Outcome::Refuted(Refusal::OtherName("dsl.example.net".to_owned()));
        let poisoned = Outcome::Refuted(Refusal::NotConfirmed("1.named.example.com".to_owned()));
        let confirmed = |name: &str| Outcome::Confirmed { name: name.to_owned() };
        let elsewhere = "9.9.9.9";
        for (agent, client, dns, expected) in [
            ("Firefox", elsewhere, None, BotStatus::None),
            ("NamedBot/1", "192.0.2.3", None, BotStatus::Verified),
            ("NamedBot/1", "::ffff:192.0.2.3", None, BotStatus::Verified),
            ("NamedBot/1", elsewhere, None, BotStatus::Claimed),
            ("NamedBot/1", elsewhere, Some(&Outcome::Unsettled), BotStatus::Claimed),
            ("NamedBot/1", elsewhere, Some(&refuted), BotStatus::False),
            ("NamedBot/1", elsewhere, Some(&poisoned), BotStatus::False),
            ("NamedBot/1", elsewhere, Some(&confirmed("1.named.example.com")), BotStatus::Verified),
            // Shipped networks may be old.
            ("ListedBot/1", elsewhere, None, BotStatus::Claimed),
            ("ListedBot/1", elsewhere, Some(&refuted), BotStatus::Claimed),
            // Others may use this name.
            ("AnyBot/1", elsewhere, Some(&refuted), BotStatus::Claimed),
            ("AnyBot/1 NamedBot/1", elsewhere, Some(&refuted), BotStatus::Claimed),
            ("AnyBot/1 NamedBot/1", "192.0.2.3", Some(&refuted), BotStatus::Verified),
            // A name of one bot does not make it another.
            ("NamedBot/1", elsewhere, Some(&confirmed("1.any.example.com")), BotStatus::Claimed),
            // The real one, but it does what strangers tell it.
            ("Fetcher/1", "203.0.113.3", None, BotStatus::Claimed),
            ("Fetcher/1", elsewhere, Some(&refuted), BotStatus::False),
            ("NamedBot/1", "127.0.0.1", Some(&refuted), BotStatus::Claimed),
            ("NamedBot/1", "10.1.2.3", Some(&refuted), BotStatus::Claimed),
        ] {
            assert_eq!(status(&known, agent, client, dns), expected, "{agent} {client} {dns:?}");
        }
        let fresh = ["198.51.100.16/28".parse().unwrap()];
        known.set_networks(1, &fresh, true);
        assert_eq!(status(&known, "ListedBot/1", elsewhere, None), BotStatus::False);
        assert_eq!(status(&known, "ListedBot/1", "198.51.100.17", None), BotStatus::Verified);
        assert_eq!(known.by_networks(elsewhere.parse().unwrap(), "ListedBot/1"), BotStatus::Claimed);
    }

    #[test]
    fn dns_is_asked_only_where_it_could_tell() {
        let known = KnownBots::new(read_bots(TABLE).unwrap()).unwrap();
        let asks = |agent: &str, client: &str| {
            known.names_to_ask(known.claims(agent), client.parse().unwrap()).len()
        };
        assert_eq!(asks("NamedBot AnyBot", "9.9.9.9"), 2);
        assert_eq!(asks("NamedBot", "192.0.2.1"), 0, "its network proves it");
        assert_eq!(asks("ListedBot", "9.9.9.9"), 0);
        assert_eq!(asks("NamedBot", "192.168.1.1"), 0);
        assert_eq!(known.owner("198.51.100.1".parse().unwrap()).map(|bot| &*bot.name), Some("Listed"));
        assert!(known.owner("203.0.113.1".parse().unwrap()).is_none(), "strangers can use a fetcher");
    }
}
