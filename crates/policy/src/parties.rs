//! Blocks of somebody behind an address: of a verified user, and of the anonymous clients of an address that users
//! share.
//!
//! Who is anonymous may be the culprit or somebody who still has to log in. So such a block refuses what comes with
//! the culprit's user agent, what is an attack by itself, and logins beyond the newcomers' room; the rest goes
//! through. A user agent only ever narrows the block: with another one there are still the other two bars.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use portcullis_model::{ClientIp, Identity, Party, UnixMs};

use crate::clock::millis;
use crate::{Now, RequestFacts};

/// Logins that the anonymous clients of such an address may try in [`ROOM_PERIOD`], all together. Whoever becomes a
/// verified user makes room for the next.
pub const ROOM_LOGINS: usize = 10;
/// See [`ROOM_LOGINS`].
pub const ROOM_PERIOD: Duration = Duration::from_secs(5 * 60);

/// Users of one address who have made room, at most; later ones make none.
const MAX_ARRIVALS: usize = 4_096;

/// What an anonymous request looks like by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Like anybody's.
    Ordinary,
    /// It sends a login.
    Login,
    /// It asks for what attacks ask for.
    Attack,
}

/// How a request is looked at; asked only about anonymous requests from an address under such a block.
pub type Look = Box<dyn Fn(&RequestFacts<'_>) -> Glance + Send + Sync>;

/// A change of these blocks, as the state database tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartyChange {
    /// `expires_at`: `None` lasts until it is removed.
    Add {
        party: Party,
        id: i64,
        expires_at: Option<UnixMs>,
    },
    Remove {
        party: Party,
        id: i64,
    },
}

/// Safe to share. Holds what the state database has in force, and nothing that a request brings.
#[derive(Default)]
pub struct Parties {
    held: ArcSwap<Held>,
    /// Whether there is any block at all: most gateways never have one.
    is_in_use: AtomicBool,
    /// Changes come one after another.
    applying: Mutex<()>,
    look: OnceLock<Look>,
    hasher: RandomState,
}

#[derive(Clone, Default)]
struct Held {
    users: HashMap<Box<str>, Entry>,
    anonymous: HashMap<IpAddr, Anonymous>,
}

#[derive(Clone, Copy)]
struct Entry {
    id: i64,
    /// Monotonic milliseconds.
    ends_ms: u64,
}

#[derive(Clone)]
struct Anonymous {
    entry: Entry,
    agents: Vec<Box<str>>,
    room: Arc<Room>,
}

/// The room for newcomers of one address.
#[derive(Default)]
struct Room(Mutex<Logins>);

#[derive(Default)]
struct Logins {
    /// Those of the last [`ROOM_PERIOD`], the oldest first; at most [`ROOM_LOGINS`].
    taken: VecDeque<u64>,
    /// Hashes of the users who were seen since the block began.
    arrived: HashSet<u64>,
}

impl Room {
    fn take(&self, now_ms: u64) -> bool {
        let taken = &mut self.0.lock().taken;
        let since = now_ms.saturating_sub(millis(ROOM_PERIOD));
        while taken.front().is_some_and(|&at| at < since) {
            taken.pop_front();
        }
        let has_room = taken.len() < ROOM_LOGINS;
        if has_room {
            taken.push_back(now_ms);
        }
        has_room
    }

    /// Each user gives one login back, once: somebody with an account must not do so again and again.
    fn arrive(&self, user: u64) {
        let mut logins = self.0.lock();
        if logins.arrived.len() < MAX_ARRIVALS && logins.arrived.insert(user) {
            logins.taken.pop_front();
        }
    }
}

impl Entry {
    fn is_active(self, now: Now) -> bool {
        now.monotonic_ms < self.ends_ms
    }
}

impl Anonymous {
    fn refuses(&self, glance: Glance, agent: &str, now: Now) -> bool {
        if self.agents.iter().any(|own| **own == *agent) {
            return true;
        }
        match glance {
            Glance::Ordinary => false,
            Glance::Login => !self.room.take(now.monotonic_ms),
            Glance::Attack => true,
        }
    }
}

impl Parties {
    /// Says how requests are looked at. Until that is said, every anonymous request from an address under such a
    /// block counts as an attack.
    pub fn look_with(&self, look: Look) {
        // Told once, when the gateway is put together.
        let _ = self.look.set(look);
    }

    /// Whether there is any such block, so that requests have to be looked at closely.
    pub fn is_in_use(&self) -> bool {
        self.is_in_use.load(Ordering::Relaxed)
    }

    /// The ID of the block that means who sent the request.
    pub fn find(&self, facts: &RequestFacts<'_>, now: Now) -> Option<i64> {
        if !self.is_in_use() {
            return None;
        }
        match facts.identity {
            Some(identity) => self.of_user(identity, now),
            None => self.of_anonymous(facts, now),
        }
    }

    /// The ID of the block of this user.
    pub fn of_user(&self, identity: &Identity, now: Now) -> Option<i64> {
        let held = self.held.load();
        if held.users.is_empty() {
            return None;
        }
        held.users.get(&*identity.name()).filter(|entry| entry.is_active(now)).map(|entry| entry.id)
    }

    fn of_anonymous(&self, facts: &RequestFacts<'_>, now: Now) -> Option<i64> {
        let held = self.held.load();
        let block =
            held.anonymous.get(&facts.client.limit_key()).filter(|block| block.entry.is_active(now))?;
        block.refuses(self.glance(facts), facts.user_agent, now).then_some(block.entry.id)
    }

    /// What an anonymous request looks like by itself.
    pub(crate) fn glance(&self, facts: &RequestFacts<'_>) -> Glance {
        self.look.get().map_or(Glance::Attack, |look| look(facts))
    }

    /// A verified user is on this address. If it was not before, the login that it took is given back to the other
    /// newcomers.
    pub fn user_is_here(&self, client: ClientIp, identity: &Identity) {
        if !self.is_in_use() {
            return;
        }
        if let Some(block) = self.held.load().anonymous.get(&client.limit_key()) {
            block.room.arrive(self.hasher.hash_one(&*identity.name()));
        }
    }

    /// Applies changes in their order. Blocks that have ended are dropped on the way.
    pub fn apply(&self, changes: impl IntoIterator<Item = PartyChange>, now: Now) {
        let _one = self.applying.lock();
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_none() {
            return;
        }
        let old = self.held.load_full();
        let mut held = Held::clone(&old);
        for change in changes {
            held.apply(change, &old, now);
        }
        held.users.retain(|_, entry| entry.is_active(now));
        held.anonymous.retain(|_, block| block.entry.is_active(now));
        let is_in_use = !(held.users.is_empty() && held.anonymous.is_empty());
        self.held.store(Arc::new(held));
        self.is_in_use.store(is_in_use, Ordering::Relaxed);
    }

    /// Whether there is a block of this party, in force or just ended; of anonymous clients the network counts alone.
    pub fn holds(&self, party: &Party) -> bool {
        let held = self.held.load();
        match party {
            Party::User(user) => held.users.contains_key(user),
            Party::Anonymous { network, .. } => {
                held.anonymous.contains_key(&ClientIp::new(network.network()).limit_key())
            }
        }
    }

    /// How many users, and anonymous clients of how many addresses, are blocked.
    pub fn len(&self) -> (u64, u64) {
        let held = self.held.load();
        (held.users.len() as u64, held.anonymous.len() as u64)
    }
}

impl Held {
    /// `old`: before these changes. A block that is brought up to date must not open its room again.
    fn apply(&mut self, change: PartyChange, old: &Self, now: Now) {
        match change {
            PartyChange::Add { party, id, expires_at } => {
                let entry = Entry { id, ends_ms: expires_at.map_or(u64::MAX, |at| now.deadline(at)) };
                match party {
                    Party::User(user) => {
                        self.users.insert(user, entry);
                    }
                    Party::Anonymous { network, agents } => {
                        let key = ClientIp::new(network.network()).limit_key();
                        let room =
                            old.anonymous.get(&key).map(|old| Arc::clone(&old.room)).unwrap_or_default();
                        self.anonymous.insert(key, Anonymous { entry, agents, room });
                    }
                }
            }
            // A newer block of the same party must survive the removal of an older one.
            PartyChange::Remove { party: Party::User(user), id } => {
                if self.users.get(&user).is_some_and(|entry| entry.id == id) {
                    self.users.remove(&user);
                }
            }
            PartyChange::Remove { party: Party::Anonymous { network, .. }, id } => {
                let key = ClientIp::new(network.network()).limit_key();
                if self.anonymous.get(&key).is_some_and(|block| block.entry.id == id) {
                    self.anonymous.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    const START: Now = Now { wall: UnixMs(1_000_000), monotonic_ms: 1_000_000 };
    const ADDRESS: &str = "192.0.2.1";

    fn later(span: Duration) -> Now {
        Now { wall: START.wall, monotonic_ms: START.monotonic_ms + millis(span) }
    }

    fn user(name: &str) -> Identity {
        Identity { user: Some(name.into()), roles: Vec::new(), session: None }
    }

    fn add(party: Party, id: i64, expires_at: Option<UnixMs>) -> PartyChange {
        PartyChange::Add { party, id, expires_at }
    }

    fn anonymous(agents: &[&str]) -> Party {
        let agents = agents.iter().map(|&agent| agent.into()).collect();
        Party::Anonymous { network: format!("{ADDRESS}/32").parse().unwrap(), agents }
    }

    fn parties(changes: impl IntoIterator<Item = PartyChange>) -> Parties {
        let parties = Parties::default();
        parties.look_with(Box::new(|facts| match &*facts.path {
            "/login" => Glance::Login,
            "/.env" => Glance::Attack,
            _ => Glance::Ordinary,
        }));
        parties.apply(changes, START);
        parties
    }

    fn ask(parties: &Parties, path: &str, agent: &str, now: Now) -> Option<i64> {
        let facts = RequestFacts::new(ADDRESS.parse().unwrap(), "POST", "x", Cow::Borrowed(path));
        parties.find(&RequestFacts { user_agent: agent, ..facts }, now)
    }

    fn ask_as(parties: &Parties, identity: &Identity, now: Now) -> Option<i64> {
        let facts = RequestFacts::new(ADDRESS.parse().unwrap(), "GET", "x", Cow::Borrowed("/.env"));
        parties.find(&RequestFacts { identity: Some(identity), ..facts }, now)
    }

    #[test]
    fn a_blocked_user_is_met_until_the_block_ends_and_nobody_else_is() {
        let ends = UnixMs(START.wall.0 + 5_000);
        let parties = parties([add(Party::User("mallory".into()), 7, Some(ends))]);
        assert_eq!(ask_as(&parties, &user("mallory"), START), Some(7));
        assert_eq!(ask_as(&parties, &user("mallory"), later(Duration::from_secs(5))), None);
        assert_eq!(ask_as(&parties, &user("alice"), START), None);
        assert_eq!(ask(&parties, "/.env", "", START), None);
    }

    #[test]
    fn newcomers_keep_what_they_need_to_log_in() {
        let parties = parties([add(anonymous(&["tool/1"]), 3, None)]);
        assert_eq!(ask(&parties, "/", "tool/1", START), Some(3), "the culprit's user agent");
        assert_eq!(ask(&parties, "/.env", "browser", START), Some(3), "an attack by itself");
        for _ in 0..ROOM_LOGINS {
            assert_eq!(ask(&parties, "/login", "browser", START), None);
        }
        assert_eq!(ask(&parties, "/login", "browser", START), Some(3), "no room is left");
        assert_eq!(ask(&parties, "/", "browser", START), None, "a page is no login");
        assert_eq!(ask_as(&parties, &user("alice"), START), None);
        for _ in 0..5 {
            parties.user_is_here(ADDRESS.parse().unwrap(), &user("alice"));
        }
        assert_eq!(
            ask(&parties, "/login", "browser", START),
            None,
            "one has arrived, and was seen five times"
        );
        assert_eq!(ask(&parties, "/login", "browser", START), Some(3));
        assert_eq!(ask(&parties, "/login", "browser", later(ROOM_PERIOD + Duration::from_millis(1))), None);
    }

    #[test]
    fn a_block_brought_up_to_date_keeps_its_room() {
        let parties = parties([add(anonymous(&[]), 3, None)]);
        for _ in 0..ROOM_LOGINS {
            ask(&parties, "/login", "a", START);
        }
        let old = PartyChange::Remove { party: anonymous(&[]), id: 3 };
        parties.apply([old, add(anonymous(&["b"]), 4, None)], START);
        assert_eq!(ask(&parties, "/login", "a", START), Some(4));
        assert_eq!(parties.len(), (0, 1));
        parties.apply([PartyChange::Remove { party: anonymous(&[]), id: 4 }], START);
        assert_eq!((parties.len(), ask(&parties, "/.env", "a", START)), ((0, 0), None));
    }

    #[test]
    fn nobody_passes_where_nothing_looks_at_requests() {
        let parties = Parties::default();
        parties.apply([add(anonymous(&[]), 3, None)], START);
        assert_eq!(ask(&parties, "/", "browser", START), Some(3));
    }
}
