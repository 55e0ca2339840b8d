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

/// How full a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub window: Exhausted,
    pub used: u32,
    pub most: u32,
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

    /// How full each window of the subject under the rule is. Does not count.
    pub fn usage(&self, rule: &LimitRule, subject: &Subject<'_>, now_ms: u64) -> Vec<Usage> {
        let usage = |window: Counted| {
            let mut shard = self.shards[(window.key >> 32) as usize & (SHARDS - 1)].lock();
            let used = shard.find(window.key).map_or(0, |at| {
                shard.update(at, |held| {
                    held.drop_left(now_ms);
                    held.requests()
                })
            });
            Usage { window: window.exhausted, used, most: window.most }
        };
        self.windows(rule, subject, 1, now_ms).map(usage).collect()
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
mod tests;
