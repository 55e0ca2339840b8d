//! Whom the detector has just caught: refused from the next request on, until the block that is being written is in
//! force.
//!
//! Owns a small bounded set in memory, which costs nothing while it is empty. Must not decide who is caught.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::RwLock;
use portcullis_model::{ClientIp, Party};

use crate::clock::millis;
use crate::{Glance, Mode, Now, Parties, RequestFacts};

/// How many can be held at once.
pub const MAX_CAUGHT: usize = 16_384;

/// Who is behind what was found: the least that stops it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// An address, or the IPv6 network of its owner. Verified users on it answer for themselves.
    Address(IpNet),
    Party(Party),
}

/// Why somebody is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The name of the detector's rule.
    pub rule: Arc<str>,
    /// In dry-run it is only recorded that the request would have been refused.
    pub mode: Mode,
}

/// Safe to share.
#[derive(Default)]
pub struct Caught {
    held: RwLock<Held>,
    is_in_use: AtomicBool,
}

#[derive(Default)]
struct Held {
    users: HashMap<Box<str>, Entry>,
    /// By [`ClientIp::limit_key`].
    addresses: HashMap<IpAddr, OnAddress>,
}

struct Entry {
    hold: Hold,
    /// Monotonic milliseconds.
    ends_ms: u64,
}

struct OnAddress {
    entry: Entry,
    network: IpNet,
    /// Of a shared address: what gave its anonymous culprit away. `None` means everybody who is no verified user.
    agents: Option<Vec<Box<str>>>,
}

impl Entry {
    fn is_active(&self, now: Now) -> bool {
        now.monotonic_ms < self.ends_ms
    }
}

impl Held {
    fn len(&self) -> usize {
        self.users.len() + self.addresses.len()
    }

    fn retain_active(&mut self, now: Now) {
        self.users.retain(|_, entry| entry.is_active(now));
        self.addresses.retain(|_, one| one.entry.is_active(now));
    }

    fn entry(&mut self, culprit: &Culprit) -> Option<&mut Entry> {
        match culprit {
            Culprit::Party(Party::User(user)) => self.users.get_mut(user),
            Culprit::Address(network) | Culprit::Party(Party::Anonymous { network, .. }) => {
                self.addresses.get_mut(&key(network)).map(|one| &mut one.entry)
            }
        }
    }
}

fn key(network: &IpNet) -> IpAddr {
    ClientIp::new(network.network()).limit_key()
}

impl Caught {
    /// Whether anybody is held.
    pub fn is_in_use(&self) -> bool {
        self.is_in_use.load(Ordering::Relaxed)
    }

    /// How many are held, those included whose time is over and who have not been swept out yet.
    pub fn len(&self) -> usize {
        self.held.read().len()
    }

    /// Whether nobody is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holds somebody for so long. Who is held in earnest stays so. False: there are [`MAX_CAUGHT`] already.
    pub fn hold(&self, culprit: &Culprit, hold: Hold, span: Duration, now: Now) -> bool {
        let entry = Entry { hold, ends_ms: now.monotonic_ms.saturating_add(millis(span)) };
        let mut held = self.held.write();
        let is_enforced = |known: &mut Entry| known.is_active(now) && known.hold.mode == Mode::Enforce;
        if entry.hold.mode == Mode::DryRun && held.entry(culprit).is_some_and(is_enforced) {
            return true;
        }
        if held.len() >= MAX_CAUGHT && held.entry(culprit).is_none() {
            held.retain_active(now);
            if held.len() >= MAX_CAUGHT {
                return false;
            }
        }
        match culprit {
            Culprit::Party(Party::User(user)) => {
                held.users.insert(user.clone(), entry);
            }
            Culprit::Address(network) => {
                held.addresses.insert(key(network), OnAddress { entry, network: *network, agents: None });
            }
            Culprit::Party(Party::Anonymous { network, agents }) => {
                let agents = Some(agents.clone());
                held.addresses.insert(key(network), OnAddress { entry, network: *network, agents });
            }
        }
        // Under the lock, so that a sweep cannot come in between.
        self.is_in_use.store(true, Ordering::Relaxed);
        true
    }

    /// Lets go of somebody after so long, if that is not due sooner: by then the block is in force, or there is none.
    pub fn release(&self, culprit: &Culprit, span: Duration, now: Now) {
        if let Some(entry) = self.held.write().entry(culprit) {
            entry.ends_ms = entry.ends_ms.min(now.monotonic_ms.saturating_add(millis(span)));
        }
    }

    /// Frees what is over.
    pub fn sweep(&self, now: Now) {
        if !self.is_in_use() {
            return;
        }
        let mut held = self.held.write();
        held.retain_active(now);
        self.is_in_use.store(held.len() > 0, Ordering::Relaxed);
    }

    /// Why the request's client is held. Of the anonymous clients of a shared address those are meant who come with
    /// the culprit's user agent, or attack; the rest waits for the block, which has room for newcomers' logins.
    pub fn find(&self, facts: &RequestFacts<'_>, parties: &Parties, now: Now) -> Option<Hold> {
        if !self.is_in_use() {
            return None;
        }
        let held = self.held.read();
        if let Some(identity) = facts.identity {
            let entry = held.users.get(&*identity.name()).filter(|entry| entry.is_active(now))?;
            return Some(entry.hold.clone());
        }
        let one = held.addresses.get(&facts.client.limit_key())?;
        if !one.entry.is_active(now) || !one.network.contains(&facts.client.ip()) {
            return None;
        }
        let hold = one.entry.hold.clone();
        let is_meant = match &one.agents {
            None => true,
            Some(agents) => agents.iter().any(|agent| **agent == *facts.user_agent),
        };
        drop(held);
        (is_meant || parties.glance(facts) == Glance::Attack).then_some(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::{Identity, UnixMs};

    const NOW: Now = Now { wall: UnixMs(1_000_000), monotonic_ms: 1_000_000 };
    const SECOND: Duration = Duration::from_secs(1);

    fn hold(mode: Mode) -> Hold {
        Hold { rule: "path_probing".into(), mode }
    }

    fn later(ms: u64) -> Now {
        Now { monotonic_ms: NOW.monotonic_ms + ms, ..NOW }
    }

    fn ask(caught: &Caught, client: &str, user: Option<&str>, agent: &str, now: Now) -> bool {
        let identity =
            user.map(|user| Identity { user: Some(user.into()), roles: Vec::new(), session: None });
        let facts = RequestFacts::new(client.parse().unwrap(), "GET", "x", "/".into());
        let facts = RequestFacts { identity: identity.as_ref(), user_agent: agent, ..facts };
        let parties = Parties::default();
        parties.look_with(Box::new(|_| Glance::Ordinary));
        caught.find(&facts, &parties, now).is_some()
    }

    #[test]
    fn an_address_is_held_for_its_time_and_its_verified_users_are_not() {
        let caught = Caught::default();
        assert!(!ask(&caught, "192.0.2.1", None, "", NOW));
        let network = Culprit::Address("192.0.2.1/32".parse().unwrap());
        assert!(caught.hold(&network, hold(Mode::Enforce), SECOND, NOW));
        assert!(ask(&caught, "192.0.2.1", None, "", later(999)));
        assert!(!ask(&caught, "192.0.2.1", Some("alice"), "", NOW));
        assert!(!ask(&caught, "192.0.2.2", None, "", NOW));
        assert!(!ask(&caught, "192.0.2.1", None, "", later(1_000)));
        caught.sweep(later(1_000));
        assert!(caught.is_empty() && !caught.is_in_use());
    }

    #[test]
    fn an_ipv6_network_is_held_as_a_whole_or_one_address_of_it() {
        let caught = Caught::default();
        let whole = Culprit::Address("2001:db8:1:2::/64".parse().unwrap());
        caught.hold(&whole, hold(Mode::Enforce), SECOND, NOW);
        let one = Culprit::Address("2001:db8:1:3::9/128".parse().unwrap());
        caught.hold(&one, hold(Mode::Enforce), SECOND, NOW);
        assert!(ask(&caught, "2001:db8:1:2::77", None, "", NOW));
        assert!(ask(&caught, "2001:db8:1:3::9", None, "", NOW));
        assert!(!ask(&caught, "2001:db8:1:3::77", None, "", NOW), "ours is in that network");
    }

    #[test]
    fn a_user_is_held_from_wherever_and_a_strange_agent_of_a_shared_address_alone() {
        let caught = Caught::default();
        caught.hold(&Culprit::Party(Party::User("mallory".into())), hold(Mode::Enforce), SECOND, NOW);
        let network = "192.0.2.1/32".parse().unwrap();
        let party = Party::Anonymous { network, agents: vec!["tool/1".into()] };
        caught.hold(&Culprit::Party(party), hold(Mode::Enforce), SECOND, NOW);
        assert!(ask(&caught, "203.0.113.9", Some("mallory"), "", NOW));
        assert!(!ask(&caught, "192.0.2.1", Some("alice"), "tool/1", NOW));
        assert!(ask(&caught, "192.0.2.1", None, "tool/1", NOW));
        assert!(!ask(&caught, "192.0.2.1", None, "browser", NOW));
    }

    #[test]
    fn who_is_let_go_is_not_held_longer_and_there_is_room_for_so_many() {
        let caught = Caught::default();
        let network = Culprit::Address("192.0.2.1/32".parse().unwrap());
        caught.hold(&network, hold(Mode::Enforce), SECOND, NOW);
        caught.release(&network, 60 * SECOND, NOW);
        assert!(!ask(&caught, "192.0.2.1", None, "", later(1_000)));
        caught.release(&network, Duration::ZERO, NOW);
        assert!(!ask(&caught, "192.0.2.1", None, "", NOW));
        let one = |n: usize| Culprit::Party(Party::User(format!("user-{n}").into()));
        let room =
            (0..=MAX_CAUGHT).filter(|n| caught.hold(&one(*n), hold(Mode::Enforce), SECOND, NOW)).count();
        assert_eq!(room, MAX_CAUGHT, "what was over has made room");
        assert!(caught.hold(&one(0), hold(Mode::Enforce), SECOND, NOW), "who is held already needs none");
        assert!(caught.hold(&one(MAX_CAUGHT + 1), hold(Mode::Enforce), SECOND, later(1_000)));
    }
}
