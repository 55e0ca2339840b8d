//! The live blocklist: what the state database says, held in memory for the request path.
//!
//! Single addresses are in a moka cache with an expiry per entry: the detector adds and removes these
//! one at a time. Prefixes are in a set that is rebuilt and swapped when one changes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use moka::Expiry;
use moka::sync::Cache;
use parking_lot::Mutex;
use portcullis_model::{ClientIp, UnixMs};

use crate::{Now, PrefixSet};

/// A change of the blocklist, as the state database tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockChange {
    /// `expires_at`: `None` lasts until it is removed. `spares_users`: verified users are not meant.
    Add {
        network: IpNet,
        id: i64,
        expires_at: Option<UnixMs>,
        spares_users: bool,
    },
    Remove {
        network: IpNet,
        id: i64,
    },
}

/// Safe to share; look-ups take no lock of ours.
pub struct Blocklist {
    /// Unbounded on purpose: an eviction would let a blocked client in. It holds what the state database
    /// has in force, and nothing that a request brings.
    addresses: Cache<IpAddr, Held>,
    /// Whether a single address was ever blocked. It stays so: without any, requests do not pay for a look-up.
    has_addresses: AtomicBool,
    prefixes: ArcSwap<PrefixSet<Entry>>,
    stand_ins: OnceLock<StandIns>,
    /// Whether a block has come whose address stands for another one. It stays so: they are few.
    has_stand_ins: AtomicBool,
    /// Changes come one after another.
    applying: Mutex<()>,
}

/// The address under which a block of `client` is kept, when its own must not be.
pub type StandIn = Box<dyn Fn(ClientIp) -> Option<ClientIp> + Send + Sync>;

/// Blocks whose addresses stand for others.
struct StandIns {
    is_one: fn(&IpNet) -> bool,
    of: StandIn,
}

/// What the request path needs of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    id: i64,
    /// Monotonic milliseconds; [`FOREVER`] lasts until it is removed.
    ends_ms: u64,
    spares_users: bool,
}

/// A single address's block.
#[derive(Clone, Copy, Debug)]
struct Held {
    entry: Entry,
    /// From when it was added to when it ends.
    remaining: Option<Duration>,
}

const FOREVER: u64 = u64::MAX;

impl Entry {
    fn new(id: i64, expires_at: Option<UnixMs>, spares_users: bool, now: Now) -> Self {
        Self { id, ends_ms: expires_at.map_or(FOREVER, |at| now.deadline(at)), spares_users }
    }

    fn binds_users(self, now: Now) -> bool {
        self.is_active(now) && !self.spares_users
    }

    fn is_active(self, now: Now) -> bool {
        now.monotonic_ms < self.ends_ms
    }
}

/// Lets moka free entries that have ended; what refuses is [`Entry::is_active`].
struct WhenItEnds;

impl Expiry<IpAddr, Held> for WhenItEnds {
    fn expire_after_create(&self, _: &IpAddr, held: &Held, _: Instant) -> Option<Duration> {
        held.remaining
    }

    fn expire_after_update(
        &self,
        _: &IpAddr,
        held: &Held,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        held.remaining
    }
}

impl Default for Blocklist {
    fn default() -> Self {
        Self {
            addresses: Cache::builder().expire_after(WhenItEnds).build(),
            has_addresses: AtomicBool::new(false),
            prefixes: ArcSwap::default(),
            stand_ins: OnceLock::new(),
            has_stand_ins: AtomicBool::new(false),
            applying: Mutex::default(),
        }
    }
}

impl Blocklist {
    /// The ID of the block that covers `client`: of its address, else of the longest prefix.
    pub fn find(&self, client: ClientIp, now: Now) -> Option<i64> {
        self.find_one(client, |entry| entry.is_active(now))
    }

    /// The same of the blocks that mean everybody, verified users too.
    pub fn find_for_users(&self, client: ClientIp, now: Now) -> Option<i64> {
        self.find_one(client, |entry| entry.binds_users(now))
    }

    /// Makes blocks count that are kept under another address: `is_one` knows them, `of` gives the address that a
    /// client would have. Costs nothing as long as there are none. To be called once, before the first change.
    pub fn set_stand_ins(&self, is_one: fn(&IpNet) -> bool, of: StandIn) {
        // A second call would change nothing.
        let _ = self.stand_ins.set(StandIns { is_one, of });
    }

    fn find_one(&self, client: ClientIp, counts: impl Fn(Entry) -> bool) -> Option<i64> {
        let own = self.find_under(client, &counts);
        if own.is_some() || !self.has_stand_ins.load(Ordering::Relaxed) {
            return own;
        }
        self.find_under((self.stand_ins.get()?.of)(client)?, &counts)
    }

    fn find_under(&self, client: ClientIp, counts: &impl Fn(Entry) -> bool) -> Option<i64> {
        if self.has_addresses.load(Ordering::Acquire)
            && let Some(held) = self.addresses.get(&client.ip()).filter(|held| counts(held.entry))
        {
            return Some(held.entry.id);
        }
        let prefixes = self.prefixes.load();
        prefixes.find(client.ip(), &mut |entry| counts(*entry)).map(|entry| entry.id)
    }

    /// Applies changes in their order. Prefixes that have ended are dropped on the way.
    pub fn apply(&self, changes: impl IntoIterator<Item = BlockChange>, now: Now) {
        let _one = self.applying.lock();
        let mut of_prefixes = Vec::new();
        for change in changes {
            if let BlockChange::Add { network, .. } = &change
                && self.stand_ins.get().is_some_and(|known| (known.is_one)(network))
            {
                self.has_stand_ins.store(true, Ordering::Relaxed);
            }
            match change {
                BlockChange::Add { network, id, expires_at, spares_users } if is_single(&network) => {
                    let entry = Entry::new(id, expires_at, spares_users, now);
                    if entry.is_active(now) {
                        let remaining = expires_at.map(|at| at.since(now.wall));
                        self.addresses.insert(network.addr(), Held { entry, remaining });
                        // Behind the entry: whoever sees this sees that.
                        self.has_addresses.store(true, Ordering::Release);
                    }
                }
                BlockChange::Remove { network, id } if is_single(&network) => {
                    // A newer block of the same address must survive the removal of an older one.
                    if self.addresses.get(&network.addr()).is_some_and(|held| held.entry.id == id) {
                        self.addresses.invalidate(&network.addr());
                    }
                }
                of_a_prefix => of_prefixes.push(of_a_prefix),
            }
        }
        if !of_prefixes.is_empty() {
            self.rebuild_prefixes(of_prefixes, now);
        }
    }

    fn rebuild_prefixes(&self, changes: Vec<BlockChange>, now: Now) {
        let old = self.prefixes.load_full();
        let mut entries: HashMap<IpNet, Entry> =
            old.iter().map(|(network, &entry)| (network, entry)).collect();
        for change in changes {
            match change {
                BlockChange::Add { network, id, expires_at, spares_users } => {
                    entries.insert(network, Entry::new(id, expires_at, spares_users, now));
                }
                BlockChange::Remove { network, id } => {
                    if entries.get(&network).is_some_and(|held| held.id == id) {
                        entries.remove(&network);
                    }
                }
            }
        }
        let active = entries.into_iter().filter(|(_, entry)| entry.is_active(now));
        self.prefixes.store(Arc::new(active.collect()));
    }

    /// How many blocks in force stand for others. Walks through all blocks, unless there never was such a one.
    pub fn count_stand_ins(&self, now: Now) -> u64 {
        let Some(known) = self.stand_ins.get().filter(|_| self.has_stand_ins.load(Ordering::Relaxed)) else {
            return 0;
        };
        let addresses = self
            .addresses
            .iter()
            .filter(|(address, held)| held.entry.is_active(now) && (known.is_one)(&IpNet::from(**address)));
        let prefixes = self.prefixes.load();
        let prefixes =
            prefixes.iter().filter(|(network, entry)| entry.is_active(now) && (known.is_one)(network));
        (addresses.count() + prefixes.count()) as u64
    }

    /// How many single addresses and how many prefixes are held.
    pub fn len(&self) -> (u64, u64) {
        self.addresses.run_pending_tasks();
        (self.addresses.entry_count(), self.prefixes.load().len() as u64)
    }
}

fn is_single(network: &IpNet) -> bool {
    network.prefix_len() == network.max_prefix_len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now { wall: UnixMs(1_000_000), monotonic_ms: 50 };

    fn add(network: &str, id: i64, expires_in_ms: Option<i64>) -> BlockChange {
        BlockChange::Add {
            network: network.parse().unwrap(),
            id,
            expires_at: expires_in_ms.map(|ms| UnixMs(START.wall.0 + ms)),
            spares_users: false,
        }
    }

    fn later(ms: u64) -> Now {
        // The wall clock stands still: only the monotonic one may count.
        Now { wall: START.wall, monotonic_ms: START.monotonic_ms + ms }
    }

    fn find(list: &Blocklist, ip: &str, now: Now) -> Option<i64> {
        list.find(ip.parse().unwrap(), now)
    }

    #[test]
    fn blocks_hold_until_they_end_by_the_monotonic_clock() {
        let list = Blocklist::default();
        list.apply(
            [
                add("192.0.2.1/32", 1, Some(5_000)),
                add("198.51.100.0/24", 2, Some(5_000)),
                add("2001:db8::/32", 3, None),
            ],
            START,
        );
        for (ip, id) in [("192.0.2.1", 1), ("198.51.100.77", 2), ("2001:db8::9", 3)] {
            assert_eq!(find(&list, ip, later(4_999)), Some(id));
        }
        assert_eq!(find(&list, "192.0.2.1", later(5_000)), None);
        assert_eq!(find(&list, "198.51.100.77", later(5_000)), None);
        assert_eq!(find(&list, "2001:db8::9", later(u64::MAX / 2)), Some(3));
        assert_eq!(find(&list, "192.0.2.2", START), None);
    }

    #[test]
    fn an_ended_prefix_does_not_hide_a_wider_one() {
        let list = Blocklist::default();
        list.apply([add("10.0.0.0/8", 1, None), add("10.1.0.0/16", 2, Some(1_000))], START);
        assert_eq!(find(&list, "10.1.0.1", START), Some(2));
        assert_eq!(find(&list, "10.1.0.1", later(1_000)), Some(1));
    }

    #[test]
    fn verified_users_are_met_by_the_blocks_that_mean_everybody_alone() {
        let list = Blocklist::default();
        let of_neighbours = |change| match change {
            BlockChange::Add { network, id, expires_at, .. } => {
                BlockChange::Add { network, id, expires_at, spares_users: true }
            }
            removed @ BlockChange::Remove { .. } => removed,
        };
        list.apply(
            [
                of_neighbours(add("192.0.2.1/32", 1, None)),
                of_neighbours(add("2001:db8:1:2::/64", 2, None)),
                add("2001:db8::/32", 3, None),
            ],
            START,
        );
        let for_users = |ip: &str| list.find_for_users(ip.parse().unwrap(), START);
        assert_eq!((find(&list, "192.0.2.1", START), for_users("192.0.2.1")), (Some(1), None));
        // A block of the neighbours must not hide the wider one that a person wrote down.
        let inside = "2001:db8:1:2::9";
        assert_eq!((find(&list, inside, START), for_users(inside)), (Some(2), Some(3)));
        list.apply([add("192.0.2.1/32", 4, None)], START);
        assert_eq!(for_users("192.0.2.1"), Some(4));
    }

    #[test]
    fn a_block_under_another_address_meets_its_client_and_costs_nothing_before() {
        let list = Blocklist::default();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counts = Arc::clone(&asked);
        list.set_stand_ins(
            |network| network.to_string().starts_with("3fff:"),
            Box::new(move |client| {
                counts.fetch_add(1, Ordering::Relaxed);
                (client.to_string() == "192.0.2.1").then(|| "3fff:800::1".parse().unwrap())
            }),
        );
        list.apply([add("192.0.2.9/32", 1, None)], START);
        assert_eq!((find(&list, "192.0.2.1", START), asked.load(Ordering::Relaxed)), (None, 0));
        assert_eq!(list.count_stand_ins(START), 0);
        list.apply([add("3fff:800::1/128", 2, Some(1_000)), add("3fff:900::/64", 3, None)], START);
        assert_eq!((list.count_stand_ins(START), list.count_stand_ins(later(1_000))), (2, 1));
        assert_eq!(find(&list, "192.0.2.1", START), Some(2));
        assert_eq!(find(&list, "192.0.2.2", START), None);
        assert_eq!(find(&list, "192.0.2.1", later(1_000)), None);
        list.apply([BlockChange::Remove { network: "3fff:800::1/128".parse().unwrap(), id: 2 }], START);
        assert_eq!(find(&list, "192.0.2.1", START), None);
    }

    #[test]
    fn removing_an_old_block_leaves_the_one_that_replaced_it() {
        let list = Blocklist::default();
        for network in ["192.0.2.1/32", "198.51.100.0/24"] {
            let net: IpNet = network.parse().unwrap();
            list.apply([add(network, 1, None), add(network, 2, None)], START);
            list.apply([BlockChange::Remove { network: net, id: 1 }], START);
            assert_eq!(list.find(ClientIp::new(net.addr()), START), Some(2));
            list.apply([BlockChange::Remove { network: net, id: 2 }], START);
            assert_eq!(list.find(ClientIp::new(net.addr()), START), None);
        }
        assert_eq!(list.len(), (0, 0));
    }

    #[test]
    fn a_block_that_is_already_over_is_not_added() {
        let list = Blocklist::default();
        list.apply([add("192.0.2.1/32", 1, Some(-5)), add("10.0.0.0/8", 2, Some(0))], START);
        assert_eq!(list.len(), (0, 0));
    }
}
