//! What the clients of a window do together: neighbours that are bad, passwords guessed from many addresses, a little
//! every few hours for days. Owns how clients are put together; the rules judge.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use portcullis_model::{Severity, UnixMs};

use crate::client::Client;
use crate::past::{Remembered, WeakEvidence};
use crate::site::Expected;
use crate::{Knowledge, Site};

/// The most distinct missing pages and signatures that a window hands on for one client.
const MAX_THINGS: usize = 32;
const HOUR: Duration = Duration::from_secs(3_600);

/// What a rule may know of other addresses and other days.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    /// Of the client's network (IPv4 /24, IPv6 /48), itself left out.
    pub(crate) bad_neighbours: u32,
    /// Addresses that came from it, the client too.
    pub(crate) neighbours: u32,
    /// Those who log in like the client: of its network, and with its user agent.
    pub(crate) logins: [Option<Logins>; 2],
    /// What the client did in earlier hours, with this one.
    pub(crate) past: Option<Box<Remembered>>,
    /// The site had far more requests than usual, and the client made half of what was too many.
    pub(crate) spike: Option<Flood>,
}

/// More requests than is usual on the site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Flood {
    /// Of everybody.
    pub(crate) requests: u64,
    pub(crate) expected: Expected,
}

impl Flood {
    /// What there is to say of a window from `from` to `to`; nothing of one that is longer than an hour.
    pub(crate) fn of(site: &Site, (from, to): (UnixMs, UnixMs), requests: u64) -> Option<Self> {
        let expected = site.expected(from).filter(|usual| usual.is_far_below(requests))?;
        (to.since(from) <= HOUR).then_some(Self { requests, expected })
    }

    fn is_mostly_of(&self, client: &Client) -> bool {
        2.0 * f64::from(client.requests) >= self.requests as f64 - self.expected.requests
    }
}

impl Around {
    /// Whether there is anything that a rule could say more for.
    pub(crate) fn is_telling(&self) -> bool {
        self.bad_neighbours > 0 || self.logins != [None; 2] || self.past.is_some() || self.spike.is_some()
    }
}

/// Clients that only send logins, and never get in, of one network or with one user agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Logins {
    pub(crate) is_one_network: bool,
    pub(crate) clients: u32,
    /// Networks that they are of.
    pub(crate) networks: u32,
    pub(crate) attempts: u32,
}

#[derive(Default)]
struct Network {
    clients: u32,
    bad: u32,
    guessers: u32,
    attempts: u32,
}

#[derive(Default)]
struct Agent {
    clients: u32,
    networks: HashSet<IpAddr>,
    attempts: u32,
}

/// All clients of a window, by what they have in common.
pub(crate) struct Together {
    networks: HashMap<IpAddr, Network>,
    agents: HashMap<u32, Agent>,
    flood: Option<Flood>,
}

impl Together {
    /// `severity`: what each client by itself is.
    pub(crate) fn of<'a>(
        clients: impl Iterator<Item = (&'a Client, Option<Severity>)>,
        flood: Option<Flood>,
    ) -> Self {
        let mut together = Self { networks: HashMap::new(), agents: HashMap::new(), flood };
        for (client, severity) in clients {
            let network = together.networks.entry(network(client.key)).or_default();
            network.clients += 1;
            network.bad += u32::from(is_bad(severity));
            let Some(attempts) = guesses(client) else { continue };
            network.guessers += 1;
            network.attempts = network.attempts.saturating_add(attempts);
            if let Some(agent) = client.latest_agent() {
                let agent = together.agents.entry(agent).or_default();
                agent.clients += 1;
                agent.attempts = agent.attempts.saturating_add(attempts);
                agent.networks.insert(self::network(client.key));
            }
        }
        together
    }

    /// What there is around one of them.
    pub(crate) fn around(
        &self,
        client: &Client,
        severity: Option<Severity>,
        weak: Option<&WeakEvidence>,
        knowledge: &Knowledge,
    ) -> Around {
        let network = self.networks.get(&network(client.key));
        let past = weak.and_then(|weak| knowledge.past.with(client.key, weak)).map(Box::new);
        Around {
            bad_neighbours: network.map_or(0, |network| network.bad - u32::from(is_bad(severity))),
            neighbours: network.map_or(0, |network| network.clients),
            logins: guesses(client).map_or([None; 2], |_| self.logins(client)),
            past,
            spike: self.flood.filter(|flood| flood.is_mostly_of(client)),
        }
    }

    /// The groups that a client who guesses belongs to, if it is not alone in them.
    fn logins(&self, client: &Client) -> [Option<Logins>; 2] {
        let network = self.networks.get(&network(client.key)).map(|network| Logins {
            is_one_network: true,
            clients: network.guessers,
            networks: 1,
            attempts: network.attempts,
        });
        let agent = client.latest_agent().and_then(|agent| self.agents.get(&agent)).map(|agent| Logins {
            is_one_network: false,
            clients: agent.clients,
            networks: u32::try_from(agent.networks.len()).unwrap_or(u32::MAX),
            attempts: agent.attempts,
        });
        [network, agent].map(|group| group.filter(|group| group.clients > 1))
    }
}

fn is_bad(severity: Option<Severity>) -> bool {
    severity >= Some(Severity::Medium)
}

/// The logins of a client that does nothing else and never gets in; `None`: it is no such client. A browser fetches
/// style sheets and names the page that holds the form; a program that uses an API goes on with what it logged in for.
fn guesses(client: &Client) -> Option<u32> {
    let login = client.login.as_deref()?;
    let others = client.pages().saturating_sub(login.attempts);
    let is_bare = client.assets == 0 && client.without_referer == client.requests && client.user.is_none();
    let only_guesses = login.redirected == 0 && login.quiet_api == 0 && others <= login.attempts;
    (is_bare && only_guesses && login.attempts > 0).then_some(login.attempts)
}

/// The network whose addresses commonly have one owner: an IPv4 /24, an IPv6 /48.
pub(crate) fn network(key: IpAddr) -> IpAddr {
    match key {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & 0xFFFF_FF00).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 80 << 80).into(),
    }
}

/// What is odd about a client, for the memory of days; `None`: nothing is.
pub(crate) fn weak(client: &Client) -> Option<WeakEvidence> {
    let mut things: Vec<u32> = client.missing.values().collect();
    if let Some(hits) = client.signatures.as_deref() {
        things.extend(hits.numbers());
    }
    things.truncate(MAX_THINGS);
    let logins = guesses(client).unwrap_or(0);
    if client.user.is_some() || things.is_empty() && logins == 0 {
        return None;
    }
    Some(WeakEvidence { things, logins, requests: client.requests, errors: client.errors, last: client.last })
}
