//! Whom the detector never blocks: our own side, whoever is allowed, and whom a person has judged otherwise.
//! Must not decide whether a finding is severe enough.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_config::Config;
use portcullis_model::{ClientIp, Finding, FindingStatus, UnixMs};
use portcullis_policy::PrefixSet;
use portcullis_store::State;

use crate::bots::Bots;
use crate::machine::{overlap, own_addresses};

/// Ended blocks that are searched for one that a person lifted.
const MAX_RECENT_BLOCKS: usize = 10_000;

/// Why a severe finding did not become a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spared {
    AlreadyBlocked,
    Allowed,
    TrustedProxy,
    /// The address of localhost or of an interface: the gateway itself and whoever works on its machine.
    ThisMachine,
    /// A well-known crawler's address, whoever uses its name.
    Crawler,
    /// The log does not hold the address, and this process does not know it, or not for certain.
    Anonymous,
    /// Its kind of evidence is in dry-run.
    DryRun,
    /// A person dismissed this finding.
    Dismissed,
    /// A person took the block of this finding away, and nothing new has come since.
    Unblocked,
}

impl Spared {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyBlocked => "already blocked",
            Self::Allowed => "on the allowlist",
            Self::TrustedProxy => "a trusted proxy",
            Self::ThisMachine => "this machine's own address",
            Self::Crawler => "the address of a well-known crawler",
            Self::Anonymous => "anonymous in the log; the gateway's own run blocks whom it knows for certain",
            Self::DryRun => "only noted: its kind of evidence is in dry-run (detection.actions)",
            Self::Dismissed => "dismissed by a person",
            Self::Unblocked => "unblocked by a person, nothing new since",
        }
    }
}

/// The addresses of our own side, which the detector never blocks.
pub(super) struct Ours {
    bots: Arc<Bots>,
    trusted: PrefixSet<()>,
    /// Of this machine's interfaces.
    own: Vec<IpAddr>,
}

impl Ours {
    pub(super) fn new(config: &Config, bots: &Arc<Bots>) -> Self {
        let trusted = config.server.trusted_proxies.iter().map(|&network| (network, ())).collect();
        Self { bots: Arc::clone(bots), trusted, own: own_addresses() }
    }

    /// What the detector blocks: the address; of IPv6 the /64, since its owner has all of it, unless a
    /// trusted proxy or this machine is in it too.
    pub(super) fn network(&self, client: ClientIp) -> IpNet {
        let key = client.limit_key();
        let length = if key.is_ipv4() { 32 } else { 64 };
        let network = IpNet::new_assert(key, length);
        match self.holds_one(&network) {
            true => client.ip().into(),
            false => network,
        }
    }

    fn holds_one(&self, network: &IpNet) -> bool {
        let of_proxies = self.trusted.iter().any(|(proxy, ())| overlap(network, &proxy));
        of_proxies || self.own.iter().any(|own| network.contains(own))
    }

    /// Why the address is not blocked, whoever is on it.
    pub(super) fn has(&self, client: ClientIp) -> Option<Spared> {
        let ip = client.ip();
        if self.trusted.lookup(ip).is_some() {
            Some(Spared::TrustedProxy)
        } else if is_localhost(ip) || self.own.contains(&ip) {
            Some(Spared::ThisMachine)
        } else if self.bots.owner(client).is_some() {
            Some(Spared::Crawler)
        } else {
            None
        }
    }
}

/// What programs on this machine come from unless they choose otherwise. Who binds another address of 127.0.0.0/8 is
/// told apart by it.
fn is_localhost(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// Whom the detector never blocks.
pub(super) struct Guard {
    pub(super) ours: Ours,
    allowed: PrefixSet<()>,
}

impl Guard {
    pub(super) fn new(config: &Config, state: &State, bots: &Arc<Bots>) -> anyhow::Result<Self> {
        let allowed = state.allows()?.into_iter().map(|allow| (allow.network, ())).collect();
        Ok(Self { ours: Ours::new(config, bots), allowed })
    }

    /// Whether a whole prefix stays open: somebody of ours or somebody allowed is in it, it is blocked already, or a
    /// person has unblocked it while such a block would still last.
    pub(super) fn spares_prefix(&self, state: &State, network: &IpNet, now: UnixMs) -> anyhow::Result<bool> {
        let is_allowed = self.allowed.iter().any(|(allowed, ())| overlap(network, &allowed));
        if is_allowed || self.ours.holds_one(network) {
            return Ok(true);
        }
        let standing = state.covering(ClientIp::new(network.addr()), now)?;
        if standing.iter().any(|block| block.network.contains(network)) {
            return Ok(true);
        }
        let unblocked = state.recent_blocks(MAX_RECENT_BLOCKS)?.into_iter().any(|stored| {
            let by_a_person = stored.removed_by.is_some_and(|by| by != "expired" && by != "replaced");
            let would_last = stored.block.expires_at.is_none_or(|end| end > now);
            stored.block.network == *network && by_a_person && would_last
        });
        Ok(unblocked)
    }

    /// Why nothing is blocked for this finding, whatever stands already.
    pub(super) fn spares(
        &self,
        state: &State,
        id: i64,
        finding: &Finding,
        client: Option<ClientIp>,
    ) -> anyhow::Result<Option<Spared>> {
        let by_a_person = judged_by_a_person(state, id, finding)?;
        let is_allowed = || client.is_some_and(|client| self.allowed.lookup(client.ip()).is_some());
        Ok(by_a_person.or_else(|| is_allowed().then_some(Spared::Allowed)))
    }
}

/// What a person has said about the same evidence: a later run must not say otherwise.
fn judged_by_a_person(state: &State, id: i64, finding: &Finding) -> anyhow::Result<Option<Spared>> {
    let Some(stored) = state.finding(id)? else { return Ok(None) };
    if stored.status == FindingStatus::Dismissed {
        return Ok(Some(Spared::Dismissed));
    }
    let removed_at = match stored.block_id {
        None => None,
        Some(block) => match state.block(block)? {
            Some(block) => block.removed_at,
            None => state.party_block(block)?.and_then(|block| block.removed_at),
        },
    };
    Ok(removed_at.filter(|&at| finding.last_seen <= at).map(|_| Spared::Unblocked))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// That knows the built-in crawlers by their networks.
    fn bots() -> Arc<Bots> {
        let text = "[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:1\"]\n";
        let config =
            portcullis_config::parse(text, "test", Path::new(""), &portcullis_config::Overrides::default());
        Arc::new(Bots::without_dns(&config.unwrap(), UnixMs(0)))
    }

    fn guard(trusted: &str, own: &str) -> Guard {
        let trusted: IpNet = trusted.parse().unwrap();
        let ours = Ours {
            bots: bots(),
            trusted: std::iter::once((trusted, ())).collect(),
            own: vec![own.parse().unwrap()],
        };
        Guard { ours, allowed: PrefixSet::default() }
    }

    #[test]
    fn a_block_of_an_ipv6_network_leaves_out_our_own_side() {
        let guard = guard("2001:db8:1:2::/80", "2001:db8:3:4::1");
        for (client, network) in [
            ("2001:db8:1:2:ffff::9", "2001:db8:1:2:ffff::9/128"),
            ("2001:db8:3:4::9", "2001:db8:3:4::9/128"),
            ("2001:db8:5:6::9", "2001:db8:5:6::/64"),
            ("203.0.113.9", "203.0.113.9/32"),
        ] {
            assert_eq!(guard.ours.network(client.parse().unwrap()).to_string(), network);
        }
    }

    #[test]
    fn the_detector_never_blocks_this_machine_or_a_prefix_with_one_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let guard = guard("2001:db8:1:2::5/128", "198.51.100.7");
        let spared =
            |network: &str| guard.spares_prefix(&state, &network.parse().unwrap(), UnixMs(0)).unwrap();
        assert!(spared("2001:db8:1::/48") && spared("198.51.100.0/24"));
        assert!(!spared("2001:db8:2::/48"));
    }

    #[test]
    fn a_crawlers_address_is_spared_whatever_else_comes_from_it() {
        let guard = guard("2001:db8::/64", "192.0.2.1");
        assert_eq!(guard.ours.has("66.249.66.1".parse().unwrap()), Some(Spared::Crawler));
        assert_eq!(guard.ours.has("203.0.113.9".parse().unwrap()), None);
    }
}
