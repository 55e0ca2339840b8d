//! Exact sliding windows in bounded memory.
//!
//! A window of a subject (a client, a user, ...) under a rule is the list of its admitted requests, each with
//! what it costs and the instant at which it leaves the window. A request is admitted if it fits into the rule's
//! count together with those on the list, so no trailing window ever admits one more. Refused requests are not
//! counted: `Retry-After` stays true.
//!
//! Windows live in a set-associative table of fixed maximum size, keyed by a randomly keyed 64-bit hash.
//! A full set first gives up windows that have ended, then the one with the fewest requests: a flood of
//! one-time addresses pushes out other one-time addresses, not the clients that are near their limit,
//! and a client that was never seen is never refused.
//!
//! Of IPv6, a client is its /64. Whoever owns a wider prefix has many of these, so every /56 and every
//! /48 has a window of its own, too: [`SHARES`] times as wide. A rule's burst is one more window, a short one.

mod handover;
mod journal;

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portcullis_model::SharedPrefix;

use crate::clock::millis;
use crate::{LimitRule, MAX_RATE_COUNT, Rate, Subject};

use handover::Keyed;
pub use handover::Secret;
pub use journal::Extent;
use journal::noticing;

/// Independent locks; a power of two.
const SHARDS: usize = 64;
/// Slots of a set.
const WAYS: usize = 8;
/// Sets of a shard, at first and at most; powers of two. At most 1,048,576 windows of 24 bytes.
const FIRST_SETS: usize = 4;
const MAX_SETS: usize = 2_048;
/// Memory for the lists of clients with several requests in their window.
const MAX_LIST_BYTES: usize = 32 << 20;
/// The keys are hashes, so every shard gets its even part of it.
const MAX_SHARD_LIST_BYTES: usize = MAX_LIST_BYTES / SHARDS;
/// Up to this count requests are kept one by one; above it, the instants at which they leave are
/// rounded up to a 256th of the period: never one request too many, at most that much later.
const EXACT_COUNT: u32 = 256;
/// How many times the limit of one /64 all of a /56 and all of a /48 are admitted together: as much as
/// 8 and 64 clients that are at their limit. Neighbours that behave never come near that, and changing
/// the /64 gains an attacker 64 times the limit at most instead of 65,536 times.
const SHARES: [(SharedPrefix, u32); 2] = [(SharedPrefix::Slash56, 8), (SharedPrefix::Slash48, 64)];
/// The instants at which requests leave a shared window are rounded up to this part of the period: its
/// counts are high, and nobody needs them to the millisecond.
const SHARED_COUNT: u32 = 64;
/// Tells the key of a rule's burst from that of its rate.
const BURST: u8 = 1;
/// A packed entry: 40 bits of milliseconds, 24 bits of requests.
const COUNT_BITS: u32 = 24;
/// The most that a window can count.
const MAX_COUNT: u32 = (1 << COUNT_BITS) - 1;

const _: () = assert!(MAX_RATE_COUNT <= MAX_COUNT);
const _: () = assert!(SHARDS * MAX_SETS * (WAYS * size_of::<Slot>() + 1) + MAX_LIST_BYTES <= 64 << 20);

/// Counts requests per (rule, subject). Safe to share.
pub struct Limiter {
    shards: Box<[Mutex<Shard>]>,
    hasher: Keyed,
    evictions: AtomicU64,
    swept: AtomicUsize,
}

/// What the limiter says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Counted. `remaining` more fit into the window now.
    Admitted { remaining: u32 },
    /// Not counted. A request is admitted again after `retry_after`, if nothing else comes.
    Refused { retry_after: Duration, exhausted: Exhausted },
}

/// What of a rule is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    Rate,
    /// By this IPv6 prefix of the client as a whole.
    SharedRate(SharedPrefix),
    Burst,
    Concurrency,
}

/// For the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimiterStats {
    /// Windows that are held; some of them have ended and are not swept yet.
    pub keys: u64,
    /// Bytes of the table and of the lists.
    pub bytes: u64,
    /// Windows that were given up although they had not ended.
    pub evictions: u64,
}

#[derive(Default)]
struct Shard {
    /// `sets * WAYS` of them.
    slots: Vec<Slot>,
    /// Of the lists in `slots`.
    list_bytes: usize,
    /// A byte per set with a bit per slot: what the journal has yet to write.
    changed: Vec<u8>,
}

#[derive(Default)]
struct Slot {
    key: u64,
    window: Window,
}

/// When a request leaves the window, and how many do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

#[derive(Default)]
enum Window {
    /// A free slot.
    #[default]
    Empty,
    /// Most clients make one request in a window; these need no allocation.
    One(Entry),
    Many(Box<List>),
}

/// Entries in the order in which they leave.
struct List {
    entries: VecDeque<Entry>,
    requests: u32,
}

impl Entry {
    fn new(leaves_ms: u64, count: u32) -> Self {
        Self(leaves_ms << COUNT_BITS | u64::from(count))
    }

    fn leaves_ms(self) -> u64 {
        self.0 >> COUNT_BITS
    }

    fn count(self) -> u32 {
        (self.0 & u64::from(MAX_COUNT)) as u32
    }

    /// So many more that leave with it.
    fn and(self, more: u32) -> Self {
        Self::new(self.leaves_ms(), self.count().saturating_add(more).min(MAX_COUNT))
    }
}

impl Window {
    fn ends_ms(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::One(entry) => entry.leaves_ms(),
            Self::Many(list) => list.entries.back().map_or(0, |entry| entry.leaves_ms()),
        }
    }

    fn requests(&self) -> u32 {
        match self {
            Self::Empty => 0,
            Self::One(entry) => entry.count(),
            Self::Many(list) => list.requests,
        }
    }

    fn list_bytes(&self) -> usize {
        match self {
            Self::Empty | Self::One(_) => 0,
            Self::Many(list) => size_of::<List>() + list.entries.capacity() * size_of::<Entry>(),
        }
    }

    fn drop_left(&mut self, now_ms: u64) {
        if self.ends_ms() <= now_ms {
            *self = Self::Empty;
        } else if let Self::Many(list) = self {
            while let Some(entry) = list.entries.front().filter(|entry| entry.leaves_ms() <= now_ms) {
                list.requests -= entry.count();
                list.entries.pop_front();
            }
        }
    }

    fn add(&mut self, leaves_ms: u64, count: u32) {
        match self {
            Self::Empty => *self = Self::One(Entry::new(leaves_ms, count)),
            Self::One(entry) if entry.leaves_ms() >= leaves_ms => *entry = entry.and(count),
            Self::One(entry) => {
                let requests = entry.count().saturating_add(count);
                let entries = VecDeque::from([*entry, Entry::new(leaves_ms, count)]);
                *self = Self::Many(Box::new(List { entries, requests }));
            }
            Self::Many(list) => {
                list.requests = list.requests.saturating_add(count);
                match list.entries.back_mut() {
                    // Another thread read a later clock and came first: the later instant is the safe one.
                    Some(last) if last.leaves_ms() >= leaves_ms => *last = last.and(count),
                    _ => list.entries.push_back(Entry::new(leaves_ms, count)),
                }
            }
        }
    }

    /// Takes back `count` of what was to leave at `leaves_ms`: from the first entry that leaves then or later. It
    /// may have been merged into a later one; whoever's place is taken from the entries before that, has a later
    /// one left. So nobody's request ever leaves too early.
    fn take_back(&mut self, leaves_ms: u64, count: u32) {
        match self {
            Self::Empty => {}
            Self::One(entry) if entry.leaves_ms() < leaves_ms => {}
            Self::One(entry) if entry.count() > count => {
                *entry = Entry::new(entry.leaves_ms(), entry.count() - count);
            }
            Self::One(_) => *self = Self::Empty,
            Self::Many(list) => {
                list.take_back(leaves_ms, count);
                if list.entries.is_empty() {
                    *self = Self::Empty;
                }
            }
        }
    }

    /// Halves the list by letting neighbours leave together, at the later time of the two: never admits
    /// more, may hold the client back a little longer. Only when the memory for lists is used up.
    fn coarsen(&mut self) {
        if let Self::Many(list) = self {
            list.entries = list
                .entries
                .make_contiguous()
                .chunks(2)
                .map(|pair| {
                    Entry::new(pair[pair.len() - 1].leaves_ms(), pair.iter().map(|entry| entry.count()).sum())
                })
                .collect();
        }
    }

    /// When `excess` requests will have left.
    fn frees_ms(&self, excess: u32) -> u64 {
        match self {
            Self::Empty => 0,
            Self::One(entry) => entry.leaves_ms(),
            Self::Many(list) => {
                let mut left = 0;
                let freeing = list.entries.iter().find(|entry| {
                    left += entry.count();
                    left >= excess
                });
                freeing.map_or(0, |entry| entry.leaves_ms())
            }
        }
    }
}

impl List {
    fn take_back(&mut self, leaves_ms: u64, mut count: u32) {
        let at = self.entries.partition_point(|entry| entry.leaves_ms() < leaves_ms);
        while count > 0
            && let Some(entry) = self.entries.get_mut(at)
        {
            let taken = count.min(entry.count());
            count -= taken;
            self.requests = self.requests.saturating_sub(taken);
            if taken == entry.count() {
                self.entries.remove(at);
            } else {
                *entry = Entry::new(entry.leaves_ms(), entry.count() - taken);
            }
        }
    }
}

impl Shard {
    /// The index of the slot of `key`, if it has one.
    fn find(&self, key: u64) -> Option<usize> {
        let sets = self.slots.len() / WAYS;
        if sets == 0 {
            return None;
        }
        let first = (key as usize & (sets - 1)) * WAYS;
        let set = &self.slots[first..first + WAYS];
        let own = set.iter().position(|slot| slot.key == key && !matches!(slot.window, Window::Empty));
        own.map(|at| first + at)
    }

    /// The index of the slot of `key`, made if it is not there, and whether that ended a window early.
    fn slot_of(&mut self, key: u64, now_ms: u64) -> (usize, bool) {
        if self.slots.is_empty() {
            self.slots.resize_with(FIRST_SETS * WAYS, Slot::default);
        }
        loop {
            if let Some(at) = self.find(key) {
                return (at, false);
            }
            let sets = self.slots.len() / WAYS;
            let first = (key as usize & (sets - 1)) * WAYS;
            let set = &self.slots[first..first + WAYS];
            let (at, early) = match set.iter().position(|slot| slot.window.ends_ms() <= now_ms) {
                Some(free) => (free, false),
                None if sets < MAX_SETS => {
                    self.double(now_ms);
                    continue;
                }
                None => {
                    let weight = |&at: &usize| (set[at].window.requests(), set[at].window.ends_ms());
                    ((0..WAYS).min_by_key(weight).unwrap_or(0), true)
                }
            };
            let slot = &mut self.slots[first + at];
            self.list_bytes -= slot.window.list_bytes();
            *slot = Slot { key, window: Window::Empty };
            return (first + at, early);
        }
    }

    /// Every set divides into two, so nothing can overflow.
    fn double(&mut self, now_ms: u64) {
        let sets = self.slots.len() / WAYS * 2;
        let mut filled = vec![0_u8; sets];
        let mut slots: Vec<Slot> = Vec::new();
        slots.resize_with(sets * WAYS, Slot::default);
        self.list_bytes = 0;
        let mut changed = Vec::new();
        for old in 0..self.slots.len() {
            let slot = std::mem::take(&mut self.slots[old]);
            if slot.window.ends_ms() <= now_ms {
                continue;
            }
            let set = slot.key as usize & (sets - 1);
            let at = set * WAYS + usize::from(filled[set]);
            if self.is_marked(old) {
                changed.push(at);
            }
            self.list_bytes += slot.window.list_bytes();
            slots[at] = slot;
            filled[set] += 1;
        }
        self.slots = slots;
        self.changed.clear();
        changed.into_iter().for_each(|at| self.mark(at));
    }

    /// Changes one window, and keeps the account of the memory of lists.
    fn update<T>(&mut self, at: usize, work: impl FnOnce(&mut Window) -> T) -> T {
        let window = &mut self.slots[at].window;
        let before = window.list_bytes();
        let result = work(window);
        if self.list_bytes > MAX_SHARD_LIST_BYTES && window.list_bytes() > before {
            window.coarsen();
        }
        self.list_bytes = self.list_bytes - before + window.list_bytes();
        result
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: Keyed::random(),
            evictions: AtomicU64::new(0),
            swept: AtomicUsize::new(0),
        }
    }
}

impl Limiter {
    /// Counts a request of `subject` under `rule` at `now_ms` (monotonic milliseconds), if it fits. Two rules of
    /// one name share their counts, whatever configuration they come from.
    pub fn admit(&self, rule: &LimitRule, subject: &Subject<'_>, now_ms: u64) -> Admission {
        self.admit_of_many(rule, subject, 1, now_ms)
    }

    /// The same for a subject that stands for many, who are admitted so many `times` what one is.
    pub fn admit_of_many(
        &self,
        rule: &LimitRule,
        subject: &Subject<'_>,
        times: u32,
        now_ms: u64,
    ) -> Admission {
        let mut remaining = u32::MAX;
        let mut windows = self.windows(rule, subject, times, now_ms).enumerate();
        while let Some((n, window)) = windows.next() {
            match self.count(&window, rule.cost, now_ms) {
                Admission::Admitted { remaining: left } => remaining = remaining.min(left),
                refused @ Admission::Refused { .. } => {
                    self.refund_first(rule, subject, n, now_ms);
                    return windows.fold(refused, |refused, (_, window)| {
                        longer(refused, self.peek_window(&window, rule.cost, now_ms))
                    });
                }
            }
        }
        Admission::Admitted { remaining }
    }

    /// What [`Limiter::admit_of_many`] would say, without counting.
    pub fn peek(&self, rule: &LimitRule, subject: &Subject<'_>, times: u32, now_ms: u64) -> Admission {
        self.windows(rule, subject, times, now_ms)
            .map(|window| self.peek_window(&window, rule.cost, now_ms))
            .fold(Admission::Admitted { remaining: u32::MAX }, longer)
    }

    /// Takes back a request that [`Limiter::admit`] counted at `now_ms` and that something else then refused.
    pub fn refund(&self, rule: &LimitRule, subject: &Subject<'_>, now_ms: u64) {
        self.refund_first(rule, subject, usize::MAX, now_ms);
    }

    /// From the first `windows` of the rule's windows.
    fn refund_first(&self, rule: &LimitRule, subject: &Subject<'_>, windows: usize, now_ms: u64) {
        for window in self.windows(rule, subject, 1, now_ms).take(windows) {
            self.with_held(window.key, |held| held.take_back(window.leaves_ms, rule.cost));
        }
    }

    fn count(&self, window: &Counted, cost: u32, now_ms: u64) -> Admission {
        self.with_window(window.key, now_ms, |held| {
            let admission = window.admission(held, cost, now_ms);
            if let Admission::Admitted { .. } = admission {
                held.add(window.leaves_ms, cost);
            }
            admission
        })
    }

    fn peek_window(&self, window: &Counted, cost: u32, now_ms: u64) -> Admission {
        let mut shard = self.shards[(window.key >> 32) as usize & (SHARDS - 1)].lock();
        let Some(at) = shard.find(window.key) else { return window.admission(&Window::Empty, cost, now_ms) };
        shard.update(at, |held| {
            held.drop_left(now_ms);
            window.admission(held, cost, now_ms)
        })
    }

    /// The windows that a request is counted in: the subject's own first.
    fn windows<'a>(
        &'a self,
        rule: &'a LimitRule,
        subject: &'a Subject<'_>,
        times: u32,
        now_ms: u64,
    ) -> impl Iterator<Item = Counted> + 'a {
        let key = self.key(rule, subject);
        let own = rule.rate.map(|rate| Counted::new(key, rate, Exhausted::Rate, now_ms));
        let burst = rule.burst.into_iter().map(move |burst| {
            let key = self.hasher.hash_one((key, BURST));
            Counted::new(key, burst, Exhausted::Burst, now_ms)
        });
        let shared = rule.rate.into_iter().flat_map(move |rate| {
            SHARES.into_iter().filter_map(move |(prefix, times)| {
                let key = self.shared_key(rule, subject, prefix)?;
                Some(Counted::shared(key, rate, times, prefix, now_ms))
            })
        });
        own.into_iter().chain(burst).chain(shared).map(move |window| window.times(times))
    }

    /// Of a subject under a rule. The numbers keep apart what would be the same bytes.
    pub(crate) fn key(&self, rule: &LimitRule, subject: &Subject<'_>) -> u64 {
        let name = &*rule.name;
        match subject {
            Subject::Client(ip) => self.hasher.hash_one((name, ip)),
            Subject::ClientAndPath(ip, path) => self.hasher.hash_one((name, 2_u8, ip, path)),
            Subject::Prefix(network) => self.hasher.hash_one((name, 3_u8, network)),
            Subject::User(user) => self.hasher.hash_one((name, 4_u8, user)),
            Subject::Session(session) => self.hasher.hash_one((name, 5_u8, session)),
            Subject::Header(value) => self.hasher.hash_one((name, 6_u8, value)),
        }
    }

    /// The length tells a prefix from the client whose address begins it. Only IPv6 addresses have any.
    fn shared_key(&self, rule: &LimitRule, subject: &Subject<'_>, prefix: SharedPrefix) -> Option<u64> {
        let name = &*rule.name;
        match subject {
            Subject::Client(ip) => {
                let network = Some(prefix.of(*ip)?);
                Some(self.hasher.hash_one((name, network)))
            }
            Subject::ClientAndPath(ip, path) => {
                let network = prefix.of(*ip)?;
                Some(self.hasher.hash_one((name, 7_u8, network, path)))
            }
            Subject::Prefix(_) | Subject::User(_) | Subject::Session(_) | Subject::Header(_) => None,
        }
    }

    /// Frees the windows of one shard that have ended. Called every second, it goes around in a minute.
    pub fn sweep(&self, now_ms: u64) {
        let n = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = self.shards[n].lock();
        for at in 0..shard.slots.len() {
            shard.update(at, |window| window.drop_left(now_ms));
        }
    }

    /// Counts the table; not for the request path.
    pub fn stats(&self) -> LimiterStats {
        let mut stats =
            LimiterStats { evictions: self.evictions.load(Ordering::Relaxed), ..LimiterStats::default() };
        for shard in &self.shards {
            let shard = shard.lock();
            stats.keys +=
                shard.slots.iter().filter(|slot| !matches!(slot.window, Window::Empty)).count() as u64;
            let marks = shard.changed.capacity();
            stats.bytes += (shard.slots.capacity() * size_of::<Slot>() + shard.list_bytes + marks) as u64;
        }
        stats
    }

    fn with_window<T>(&self, key: u64, now_ms: u64, work: impl FnOnce(&mut Window) -> T) -> T {
        let mut shard = self.shards[(key >> 32) as usize & (SHARDS - 1)].lock();
        let (at, ended_early) = shard.slot_of(key, now_ms);
        if ended_early {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        let (result, is_changed) = shard.update(at, |window| {
            window.drop_left(now_ms);
            noticing(window, work)
        });
        if is_changed {
            shard.mark(at);
        }
        result
    }

    /// Works on the window of `key` if there is one.
    fn with_held<T>(&self, key: u64, work: impl FnOnce(&mut Window) -> T) -> Option<T> {
        let mut shard = self.shards[(key >> 32) as usize & (SHARDS - 1)].lock();
        let at = shard.find(key)?;
        let (result, is_changed) = shard.update(at, |window| noticing(window, work));
        if is_changed {
            shard.mark(at);
        }
        Some(result)
    }
}

/// A window that a request is counted in.
struct Counted {
    key: u64,
    /// What it admits.
    most: u32,
    /// When a request of now leaves it.
    leaves_ms: u64,
    exhausted: Exhausted,
}

impl Counted {
    fn new(key: u64, rate: Rate, exhausted: Exhausted, now_ms: u64) -> Self {
        let steps = if rate.count() <= EXACT_COUNT { u32::MAX } else { EXACT_COUNT };
        Self { key, most: rate.count(), leaves_ms: leaves_ms(rate, now_ms, steps), exhausted }
    }

    fn shared(key: u64, rate: Rate, times: u32, prefix: SharedPrefix, now_ms: u64) -> Self {
        Self {
            key,
            most: rate.count().saturating_mul(times).min(MAX_COUNT),
            leaves_ms: leaves_ms(rate, now_ms, SHARED_COUNT),
            exhausted: Exhausted::SharedRate(prefix),
        }
    }

    fn times(self, times: u32) -> Self {
        Self { most: self.most.saturating_mul(times).min(MAX_COUNT), ..self }
    }

    /// Whether a request fits into `held`.
    fn admission(&self, held: &Window, cost: u32, now_ms: u64) -> Admission {
        let after = held.requests().saturating_add(cost);
        if after <= self.most {
            return Admission::Admitted { remaining: self.most - after };
        }
        let wait = held.frees_ms(after - self.most).saturating_sub(now_ms);
        Admission::Refused { retry_after: Duration::from_millis(wait.max(1)), exhausted: self.exhausted }
    }
}

/// The stricter of the two answers.
fn longer(one: Admission, other: Admission) -> Admission {
    match (one, other) {
        (Admission::Admitted { remaining: a }, Admission::Admitted { remaining: b }) => {
            Admission::Admitted { remaining: a.min(b) }
        }
        (Admission::Admitted { .. }, refused) | (refused, Admission::Admitted { .. }) => refused,
        (Admission::Refused { retry_after: a, .. }, Admission::Refused { retry_after: b, .. }) => {
            if b > a {
                other
            } else {
                one
            }
        }
    }
}

/// What a rate admits per period: of one subject, or of a whole prefix.
pub fn admitted_per_period(rate: Rate, shared: Option<SharedPrefix>) -> u32 {
    let times = SHARES.into_iter().find(|(prefix, _)| Some(*prefix) == shared).map_or(1, |(_, times)| times);
    rate.count().saturating_mul(times).min(MAX_COUNT)
}

/// When a request of now leaves the window, rounded up to one of `steps` of the period. The clock's
/// milliseconds are cut off, so the request may have come up to one later: it leaves one later.
fn leaves_ms(rate: Rate, now_ms: u64, steps: u32) -> u64 {
    let period_ms = millis(rate.window());
    (now_ms + period_ms + 1).next_multiple_of(period_ms.div_ceil(u64::from(steps)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::atomic::AtomicU32;

    fn rule(count: u32, seconds: u64) -> LimitRule {
        let rate = Rate::new(count, Duration::from_secs(seconds)).unwrap();
        LimitRule::per_client(&format!("{count}/{seconds}"), rate)
    }

    fn ip(n: u32) -> Subject<'static> {
        Subject::Client(IpAddr::V4(Ipv4Addr::from_bits(n)))
    }

    fn admitted(limiter: &Limiter, rule: &LimitRule, client: u32, now_ms: u64) -> bool {
        matches!(limiter.admit(rule, &ip(client), now_ms), Admission::Admitted { .. })
    }

    #[test]
    fn the_fourth_login_within_five_minutes_waits_until_the_first_is_out() {
        let (limiter, login) = (Limiter::default(), rule(3, 300));
        for (n, now) in [0, 10_000, 20_000].into_iter().enumerate() {
            let remaining = 2 - n as u32;
            assert_eq!(limiter.admit(&login, &ip(1), now), Admission::Admitted { remaining });
        }
        let Admission::Refused { retry_after, exhausted: Exhausted::Rate } =
            limiter.admit(&login, &ip(1), 30_000)
        else {
            panic!("the fourth must be refused")
        };
        assert_eq!(retry_after, Duration::from_millis(270_001));
        assert!(!admitted(&limiter, &login, 1, 300_000));
        assert!(admitted(&limiter, &login, 1, 30_000 + 270_001));
        assert!(admitted(&limiter, &login, 2, 30_000), "another client has its own window");
    }

    #[test]
    fn a_refund_makes_room_again() {
        let (limiter, one) = (Limiter::default(), rule(2, 60));
        for now in 0..5 {
            assert!(admitted(&limiter, &one, 1, now));
            assert!(admitted(&limiter, &one, 1, now));
            assert!(!admitted(&limiter, &one, 1, now));
            limiter.refund(&one, &ip(1), now);
            limiter.refund(&one, &ip(1), now);
        }
        assert_eq!(limiter.stats().keys, 0);
    }

    #[test]
    fn concurrent_requests_admit_exactly_the_limit() {
        let (limiter, shared) = (Limiter::default(), rule(100, 60));
        let through = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (limiter, shared, through) = (&limiter, &shared, &through);
                scope.spawn(move || {
                    for n in 0..500 {
                        if admitted(limiter, shared, 7, thread + n) {
                            through.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(through.into_inner(), 100);
    }

    #[test]
    fn a_flood_of_addresses_stays_in_memory_and_frees_nobody() {
        let (limiter, tight, wide) = (Limiter::default(), rule(3, 300), rule(600, 300));
        for now in 0..3 {
            assert!(admitted(&limiter, &tight, 1, now));
        }
        for n in 0..400 {
            assert!(admitted(&limiter, &wide, 2, n * 10));
        }
        for n in 0..3_000_000_u32 {
            assert!(admitted(&limiter, &tight, 1_000 + n, 5_000), "a client that was never seen is admitted");
        }
        assert!(!admitted(&limiter, &tight, 1, 6_000), "a client at its limit is not forgotten");
        let stats = limiter.stats();
        assert!(stats.bytes <= 64 << 20, "{stats:?}");
        assert!(stats.evictions > 1_000_000, "{stats:?}");
        (0..SHARDS).for_each(|_| limiter.sweep(10_000_000));
        assert_eq!(limiter.stats().keys, 0);
    }

    #[test]
    fn lists_are_coarsened_when_their_memory_is_used_up() {
        let (limiter, wide) = (Limiter::default(), rule(256, 3_600));
        for client in 0..40_000 {
            for n in 0..130_u64 {
                assert!(
                    admitted(&limiter, &wide, client, n * 1_000),
                    "below the limit everybody is admitted"
                );
            }
        }
        let stats = limiter.stats();
        assert!(stats.bytes <= 64 << 20, "{stats:?}");
    }

    /// The /64 number `n` of a /48.
    fn site(site: u16, n: u16) -> Subject<'static> {
        Subject::Client(Ipv6Addr::new(0x2001, 0xdb8, site, n, 0, 0, 0, 0).into())
    }

    #[test]
    fn rotation_gains_eight_limits_in_a_56_and_64_in_a_48() {
        let (limiter, login) = (Limiter::default(), rule(3, 300));
        let through = |addresses: &mut dyn Iterator<Item = Subject<'static>>, now| {
            addresses
                .filter(|client| matches!(limiter.admit(&login, client, now), Admission::Admitted { .. }))
                .count()
        };
        assert_eq!(through(&mut (0..256).map(|n| site(1, n)), 0), 3 * 8, "one /56");
        assert_eq!(
            through(&mut (0..=u16::MAX).map(|n| site(1, n)), 1),
            3 * 64 - 3 * 8,
            "the rest of the /48"
        );
        let refused = limiter.admit(&login, &site(1, 0xff00), 2);
        assert!(
            matches!(
                refused,
                Admission::Refused { exhausted: Exhausted::SharedRate(SharedPrefix::Slash48), .. }
            ),
            "{refused:?}"
        );
        assert_eq!(through(&mut std::iter::once(site(2, 0)), 3), 1, "the neighbour is another site");
        let Admission::Refused { retry_after, .. } = refused else { return };
        let then = 2 + retry_after.as_millis() as u64;
        assert_eq!(through(&mut std::iter::once(site(1, 0xff00)), then), 1, "who waits as told is let in");
    }

    #[test]
    fn a_client_at_its_limit_takes_nothing_from_its_neighbours() {
        let (limiter, login) = (Limiter::default(), rule(3, 300));
        for now in 0..10_000 {
            limiter.admit(&login, &site(1, 0), now);
        }
        for n in 1..8 {
            for now in 10_000..10_003 {
                let admission = limiter.admit(&login, &site(1, n), now);
                assert!(matches!(admission, Admission::Admitted { .. }), "/64 number {n}: {admission:?}");
            }
        }
    }

    #[test]
    fn a_refusal_of_a_shared_window_and_a_refund_count_nowhere() {
        let (limiter, one) = (Limiter::default(), rule(1, 60));
        for n in 0..8 {
            limiter.admit(&one, &site(1, n), 0);
        }
        let refused = limiter.admit(&one, &site(1, 8), 0);
        assert!(matches!(
            refused,
            Admission::Refused { exhausted: Exhausted::SharedRate(SharedPrefix::Slash56), .. }
        ));
        limiter.refund(&one, &site(1, 0), 0);
        assert_eq!(limiter.admit(&one, &site(1, 8), 0), Admission::Admitted { remaining: 0 });
        for n in 1..9 {
            limiter.refund(&one, &site(1, n), 0);
        }
        assert_eq!(limiter.stats().keys, 0);
    }

    #[test]
    fn random_ipv6_clients_stay_in_memory_and_are_all_admitted() {
        let (limiter, wide) = (Limiter::default(), rule(60, 60));
        let mut random: u64 = 1;
        for n in 0..3_000_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = 0x2001_0db8_u128 << 96 | u128::from(random >> 32) << 64;
            let admission = limiter.admit(&wide, &Subject::Client(Ipv6Addr::from_bits(key).into()), n / 100);
            assert!(matches!(admission, Admission::Admitted { .. }), "{admission:?}");
        }
        let stats = limiter.stats();
        assert!(stats.bytes <= 64 << 20, "{stats:?}");
    }

    fn refused(admission: Admission) -> (Exhausted, u128) {
        match admission {
            Admission::Refused { retry_after, exhausted } => (exhausted, retry_after.as_millis()),
            Admission::Admitted { .. } => panic!("must be refused"),
        }
    }

    #[test]
    fn a_burst_is_a_second_window_and_the_longer_wait_answers() {
        let burst = Some(Rate::new(2, Duration::from_secs(1)).unwrap());
        let (limiter, rule) = (Limiter::default(), LimitRule { burst, ..rule(4, 60) });
        assert!(admitted(&limiter, &rule, 1, 0) && admitted(&limiter, &rule, 1, 10));
        assert_eq!(refused(limiter.admit(&rule, &ip(1), 20)), (Exhausted::Burst, 981));
        assert!(admitted(&limiter, &rule, 1, 1_001) && admitted(&limiter, &rule, 1, 1_012));
        assert_eq!(
            refused(limiter.admit(&rule, &ip(1), 1_020)),
            (Exhausted::Rate, 58_981),
            "both are used up"
        );
        assert_eq!(limiter.peek(&rule, &ip(1), 1, 1_020), limiter.admit(&rule, &ip(1), 1_020));
    }

    #[test]
    fn a_request_takes_what_it_costs_and_waits_until_that_fits() {
        let (limiter, rule) = (Limiter::default(), LimitRule { cost: 3, ..rule(10, 60) });
        for now in [0, 1_000, 2_000] {
            assert!(admitted(&limiter, &rule, 1, now));
        }
        assert_eq!(refused(limiter.admit(&rule, &ip(1), 3_000)), (Exhausted::Rate, 57_001), "2 left of 10");
        assert!(!admitted(&limiter, &rule, 1, 60_000) && admitted(&limiter, &rule, 1, 60_001));
        limiter.refund(&rule, &ip(1), 60_001);
        assert!(admitted(&limiter, &rule, 1, 60_001), "a refund gives the whole cost back");
    }

    #[test]
    fn a_refund_leaves_the_younger_requests_of_others_in_place() {
        let (limiter, two) = (Limiter::default(), rule(2, 60));
        assert!(admitted(&limiter, &two, 1, 0) && admitted(&limiter, &two, 1, 5_000));
        limiter.refund(&two, &ip(1), 0);
        assert!(admitted(&limiter, &two, 1, 59_000));
        assert!(!admitted(&limiter, &two, 1, 60_500), "that of 5 s and that of 59 s are in the window");
        assert!(admitted(&limiter, &two, 1, 65_001));
    }

    #[test]
    fn subjects_of_one_rule_are_counted_apart() {
        let (limiter, one) = (Limiter::default(), rule(1, 60));
        let ip: IpAddr = "2001:db8::".parse().unwrap();
        let subjects = [
            Subject::Client(ip),
            Subject::ClientAndPath(ip, "/a"),
            Subject::ClientAndPath(ip, "/b"),
            Subject::Prefix("2001:db8::/48".parse().unwrap()),
            Subject::User("alice"),
            Subject::Header(b"alice"),
            Subject::Session(1),
        ];
        for subject in &subjects {
            assert!(matches!(limiter.admit(&one, subject, 0), Admission::Admitted { .. }), "{subject}");
        }
        for subject in &subjects {
            assert!(matches!(limiter.admit(&one, subject, 0), Admission::Refused { .. }), "{subject}");
        }
    }

    #[test]
    fn header_values_without_end_stay_in_memory_and_free_nobody() {
        let (limiter, one) = (Limiter::default(), rule(2, 300));
        for now in 0..2 {
            limiter.admit(&one, &Subject::Header(b"victim"), now);
        }
        for n in 0..2_000_000_u64 {
            limiter.admit(&one, &Subject::Header(&n.to_le_bytes()), 5_000);
        }
        assert!(limiter.stats().bytes <= 64 << 20);
        assert_eq!(refused(limiter.admit(&one, &Subject::Header(b"victim"), 6_000)).0, Exhausted::Rate);
    }

    /// What a request did: when, and whether it was taken back.
    type Step = (u64, bool);

    /// What requests of this cost took of the window that ends at `now`, by the times of those admitted.
    fn taken(times: &[u64], cost: u32, period_ms: u64, now: u64) -> u32 {
        times.iter().filter(|&&time| time + period_ms >= now).count() as u32 * cost
    }

    proptest! {
        #[test]
        fn no_trailing_window_admits_more_whatever_requests_cost_and_whatever_is_taken_back(
            count in 1_u32..40,
            cost in 1_u32..6,
            burst in 1_u32..12,
            steps in prop::collection::vec((0_u64..90, prop::bool::weighted(0.2)), 1..700),
        ) {
            let cost = cost.min(count).min(burst);
            let burst_rate = (burst < count).then(|| Rate::new(burst, Duration::from_secs(1)).unwrap());
            let (limiter, rule) = (Limiter::default(), LimitRule { cost, burst: burst_rate, ..rule(count, 5) });
            let mut now = 0;
            let mut times: Vec<u64> = Vec::new();
            let steps: Vec<Step> = steps;
            for (gap, is_taken_back) in steps {
                now += gap;
                // One millisecond for the cut-off clock.
                let fits = |at: u64, slack: u64| {
                    let room = |period_ms: u64, count: u32| taken(&times, cost, period_ms + slack, at) + cost <= count;
                    room(5_000, count) && burst_rate.is_none_or(|_| room(1_000, burst))
                };
                match limiter.admit(&rule, &ip(9), now) {
                    Admission::Admitted { .. } => {
                        prop_assert!(fits(now, 0), "one too many at {now}");
                        if is_taken_back {
                            limiter.refund(&rule, &ip(9), now);
                        } else {
                            times.push(now);
                        }
                    }
                    Admission::Refused { retry_after, .. } => {
                        prop_assert!(!fits(now, 1), "refused although there was room at {now}");
                        let then = now + retry_after.as_millis() as u64;
                        prop_assert!(fits(then, 0) && !fits(then - 1, 1), "who waits as told is let in, and no longer");
                    }
                }
            }
        }

        #[test]
        fn a_late_refund_never_makes_room_too_early(
            count in 1_u32..10,
            steps in prop::collection::vec((0_u64..120, prop::option::weighted(0.3, 0_u64..40)), 1..400),
        ) {
            // As when another thread decides in between: the refund comes after younger requests were counted.
            let (limiter, rule) = (Limiter::default(), rule(count, 1));
            let mut now = 0;
            let mut times: Vec<u64> = Vec::new();
            let mut pending: Vec<(u64, u64)> = Vec::new();
            for (gap, taken_back_after) in steps {
                now += gap;
                for (_, at) in pending.extract_if(.., |(due, _)| *due <= now) {
                    limiter.refund(&rule, &ip(9), at);
                }
                if let Admission::Admitted { .. } = limiter.admit(&rule, &ip(9), now) {
                    match taken_back_after {
                        Some(after) => pending.push((now + after, now)),
                        None => {
                            prop_assert!(taken(&times, 1, 1_000, now) < count);
                            times.push(now);
                        }
                    }
                }
            }
        }

        #[test]
        fn no_trailing_window_of_a_prefix_admits_more_than_its_share(
            count in 1_u32..5,
            gaps in prop::collection::vec((0_u64..60, 0_u16..20), 1..900),
        ) {
            let (limiter, rule) = (Limiter::default(), rule(count, 1));
            let mut now = 0;
            let mut times: Vec<u64> = Vec::new();
            for (gap, n) in gaps {
                now += gap;
                if let Admission::Admitted { .. } = limiter.admit(&rule, &site(1, n), now) {
                    times.push(now);
                    let inside = times.iter().filter(|&&t| t + 1_000 >= now).count();
                    prop_assert!(inside <= count as usize * 8, "{inside}");
                }
            }
        }

        #[test]
        fn no_trailing_window_admits_one_more(
            count in prop_oneof![1_u32..20, 250_u32..300],
            seconds in 1_u64..4,
            gaps in prop::collection::vec(0_u64..120, 1..900),
        ) {
            let (limiter, rule) = (Limiter::default(), rule(count, seconds));
            let period = seconds * 1_000;
            let mut now = 0;
            let mut times: Vec<u64> = Vec::new();
            for gap in gaps {
                now += gap;
                let inside = times.iter().filter(|&&t| t + period >= now).count() as u32;
                // One millisecond for the cut-off clock; a 256th of the period above 256 requests.
                let slack = if count <= EXACT_COUNT { 1 } else { period.div_ceil(256) + 1 };
                let surely = times.iter().filter(|&&t| t + period + slack >= now).count() as u32;
                match limiter.admit(&rule, &ip(9), now) {
                    Admission::Admitted { remaining } => {
                        prop_assert!(inside < count);
                        prop_assert!(remaining < count);
                        times.push(now);
                    }
                    Admission::Refused { retry_after, .. } => {
                        prop_assert!(surely >= count, "refused although there was room");
                        let after = now + retry_after.as_millis() as u64;
                        prop_assert!(times.iter().filter(|&&t| t + period >= after).count() < count as usize);
                    }
                }
            }
        }
    }
}
