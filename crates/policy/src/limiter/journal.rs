//! Which windows have changed since somebody wrote them down, and how what was written comes back.
//!
//! Owns the marks of changed windows and their form as numbers. Must not write or read files; looking at the marks
//! must not keep a request waiting for longer than counting a few requests would.

use super::handover::{EXPORTED_AT_ONCE, send_in_portions};
use super::{Entry, Limiter, SHARDS, Shard, WAYS, Window};

/// Sets of a shard that are looked at under one lock.
const SETS_AT_ONCE: usize = 64;
/// Entries of a window that are written: neighbours leave together, at the later time of them. Never admits more, may
/// hold a client back a little longer. A busy client's window would be kilobytes otherwise, each time.
const MAX_ENTRIES: usize = 32;
/// A window that ends so soon is over when somebody could count on from it.
const TOO_SHORT_MS: u64 = 1_000;

// A byte of marks per set.
const _: () = assert!(WAYS == u8::BITS as usize);

/// Which windows are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Those that have changed since they were given last.
    Changed,
    All,
}

impl Limiter {
    /// Gives windows to `send`, as numbers in portions, until it says `false`: their key, how many entries follow, and
    /// these, with the time that is left of each. One without entries is not counted any more. What was given counts
    /// as written. Counting goes on meanwhile.
    pub fn write_down(&self, extent: Extent, now_ms: u64, send: &mut dyn FnMut(&[u64]) -> bool) {
        let mut numbers = Vec::new();
        for n in 0..SHARDS {
            let (mut at, mut sets) = (0, 0);
            loop {
                let mut shard = self.shards[n].lock();
                if shard.sets() != sets {
                    // It has grown, and every window may be in another set: from the beginning.
                    (at, sets) = (0, shard.sets());
                }
                if at >= sets {
                    break;
                }
                let end = (at + SETS_AT_ONCE).min(sets);
                shard.write_down(at..end, extent, now_ms, &mut numbers);
                drop(shard);
                at = end;
                if numbers.len() >= EXPORTED_AT_ONCE && !send_in_portions(&mut numbers, send) {
                    return;
                }
            }
        }
        send_in_portions(&mut numbers, send);
    }

    /// Counts on from what a limiter with the same secret gave `elapsed_ms` ago. What is given of a window later
    /// takes the place of what was given earlier.
    pub fn restore(&self, mut numbers: &[u64], elapsed_ms: u64, now_ms: u64) {
        while let [key, count, rest @ ..] = numbers {
            let Some((entries, others)) =
                usize::try_from(*count).ok().and_then(|count| rest.split_at_checked(count))
            else {
                return;
            };
            let left = |number: &u64| {
                let entry = Entry(*number);
                let left = entry.leaves_ms().checked_sub(elapsed_ms).filter(|left| *left > 0)?;
                Some((now_ms.saturating_add(left), entry.count()))
            };
            let entries: Vec<(u64, u32)> = entries.iter().filter_map(left).collect();
            if entries.is_empty() {
                self.with_held(*key, |window| *window = Window::Empty);
            } else {
                self.with_window(*key, now_ms, |window| {
                    *window = Window::Empty;
                    for (leaves_ms, count) in entries {
                        window.add(leaves_ms, count);
                    }
                });
            }
            numbers = others;
        }
    }
}

/// Does `work`, and says whether that changed how much is counted.
pub(super) fn noticing<T>(window: &mut Window, work: impl FnOnce(&mut Window) -> T) -> (T, bool) {
    let before = window.requests();
    let result = work(window);
    (result, window.requests() != before)
}

impl Shard {
    fn sets(&self) -> usize {
        self.slots.len() / WAYS
    }

    /// Marks the slot as changed.
    pub(super) fn mark(&mut self, at: usize) {
        let sets = self.sets();
        if self.changed.len() != sets {
            self.changed.resize(sets, 0);
        }
        self.changed[at / WAYS] |= 1 << (at % WAYS);
    }

    pub(super) fn is_marked(&self, at: usize) -> bool {
        self.changed.get(at / WAYS).is_some_and(|marks| marks & (1 << (at % WAYS)) != 0)
    }

    fn write_down(
        &mut self,
        sets: std::ops::Range<usize>,
        extent: Extent,
        now_ms: u64,
        numbers: &mut Vec<u64>,
    ) {
        for set in sets {
            let marks = self.changed.get_mut(set).map_or(0, std::mem::take);
            let marks = match extent {
                Extent::Changed if marks == 0 => continue,
                Extent::Changed => marks,
                Extent::All => u8::MAX,
            };
            let slots = &self.slots[set * WAYS..(set + 1) * WAYS];
            for (_, slot) in slots.iter().enumerate().filter(|(way, _)| marks & (1 << way) != 0) {
                let is_worth_it = match (extent, &slot.window) {
                    // Its last request was taken back: that has to be known too.
                    (Extent::Changed, Window::Empty) => true,
                    (Extent::Changed, window) => window.ends_ms() > now_ms + TOO_SHORT_MS,
                    (Extent::All, window) => window.ends_ms() > now_ms,
                };
                if is_worth_it {
                    slot.window.write_down(slot.key, now_ms, numbers);
                }
            }
        }
    }
}

impl Window {
    fn write_down(&self, key: u64, now_ms: u64, numbers: &mut Vec<u64>) {
        let start = numbers.len();
        numbers.extend([key, 0]);
        let standing = || self.entries().filter(|entry| entry.leaves_ms() > now_ms);
        let together = standing().count().div_ceil(MAX_ENTRIES).max(1);
        let mut entries = standing().peekable();
        while entries.peek().is_some() {
            let group = entries.by_ref().take(together);
            let joined =
                group.reduce(|all, next| Entry::new(next.leaves_ms(), all.count()).and(next.count()));
            numbers.extend(joined.map(|entry| Entry::new(entry.leaves_ms() - now_ms, entry.count()).0));
        }
        numbers[start + 1] = (numbers.len() - start - 2) as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::super::tests::{admitted, ip, rule};
    use super::*;
    use crate::Admission;

    fn written(limiter: &Limiter, extent: Extent, now_ms: u64) -> Vec<u64> {
        let mut all = Vec::new();
        limiter.write_down(extent, now_ms, &mut |numbers| {
            all.extend_from_slice(numbers);
            true
        });
        all
    }

    fn windows(mut numbers: &[u64]) -> Vec<(u64, usize)> {
        let mut windows = Vec::new();
        while let [key, count, rest @ ..] = numbers {
            windows.push((*key, *count as usize));
            numbers = &rest[*count as usize..];
        }
        windows
    }

    #[test]
    fn only_what_has_changed_is_written_and_only_once() {
        let (limiter, three) = (Limiter::default(), rule(3, 300));
        for client in 0..10_000 {
            assert!(admitted(&limiter, &three, client, 0));
        }
        let keys: HashSet<u64> =
            windows(&written(&limiter, Extent::Changed, 1)).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 10_000, "also through the growth of the table");
        assert_eq!(written(&limiter, Extent::Changed, 2), Vec::<u64>::new());
        for now in [3, 4, 5, 6] {
            admitted(&limiter, &three, 7, now);
        }
        assert_eq!(windows(&written(&limiter, Extent::Changed, 7)).len(), 1);
        assert!(!admitted(&limiter, &three, 7, 8));
        assert_eq!(written(&limiter, Extent::Changed, 9), Vec::<u64>::new(), "a refusal changes nothing");
        assert_eq!(windows(&written(&limiter, Extent::All, 10)).len(), 10_000);
    }

    #[test]
    fn what_was_written_bit_by_bit_comes_back_as_it_was() {
        let (old, three) = (Limiter::default(), rule(3, 300));
        let new = Limiter::with_secret(old.secret()).unwrap();
        // At 0 s, 100 s, 200 s; each written at once, and read together 40 s after the last.
        let parts: Vec<_> = [0, 100_000, 200_000]
            .into_iter()
            .map(|now| {
                admitted(&old, &three, 1, now);
                admitted(&old, &three, 2, now / 2);
                (now, written(&old, Extent::Changed, now))
            })
            .collect();
        admitted(&old, &three, 3, 200_000);
        old.refund(&three, &ip(3), 200_000);
        for (at, part) in parts {
            new.restore(&part, 240_000 - at, 1_000);
        }
        let Admission::Refused { retry_after, .. } = new.admit(&three, &ip(1), 1_000) else {
            panic!("the fourth must be refused")
        };
        assert_eq!(retry_after, Duration::from_millis(60_001), "the first of the three leaves after 300 s");
        assert!(!admitted(&new, &three, 2, 1_000));
        assert!(admitted(&new, &three, 1, 61_001));
        assert_eq!(new.admit(&three, &ip(3), 1_000), Admission::Admitted { remaining: 2 });
    }

    #[test]
    fn a_window_whose_requests_were_taken_back_is_written_as_empty() {
        let (old, three) = (Limiter::default(), rule(3, 300));
        let new = Limiter::with_secret(old.secret()).unwrap();
        admitted(&old, &three, 1, 0);
        new.restore(&written(&old, Extent::Changed, 0), 0, 0);
        assert_eq!(new.stats().keys, 1);
        old.refund(&three, &ip(1), 0);
        new.restore(&written(&old, Extent::Changed, 1), 0, 0);
        assert_eq!(new.stats().keys, 0);
    }

    #[test]
    fn windows_that_have_ended_in_between_do_not_come_back() {
        let (old, three) = (Limiter::default(), rule(3, 300));
        let new = Limiter::with_secret(old.secret()).unwrap();
        for client in 0..100 {
            admitted(&old, &three, client, 0);
        }
        let all = written(&old, Extent::Changed, 10);
        new.restore(&all, 299_990, 5);
        assert_eq!(new.stats().keys, 100, "a millisecond is left");
        new.restore(&all, 300_000, 5);
        assert_eq!(new.stats().keys, 0);
        new.restore(&all, u64::MAX, 5);
        assert_eq!(new.stats().keys, 0);
    }

    #[test]
    fn a_busy_window_is_written_short_and_never_admits_more() {
        let (old, wide) = (Limiter::default(), rule(256, 300));
        for n in 0..256 {
            assert!(admitted(&old, &wide, 1, n * 1_000));
        }
        let part = written(&old, Extent::Changed, 256_000);
        assert_eq!(part.len(), 2 + MAX_ENTRIES);
        let new = Limiter::with_secret(old.secret()).unwrap();
        new.restore(&part, 0, 0);
        assert!(!admitted(&new, &wide, 1, 0));
        // The n-th request leaves after its own time, and no more than eight seconds later.
        for n in 0..256_u64 {
            let own = (300_000 + n * 1_000 + 1).saturating_sub(256_000);
            let left = |at: u64| 256 - new.shards.iter().map(|shard| of(shard, at)).sum::<usize>();
            assert!(left(own.saturating_sub(1)) as u64 <= n, "request {n} leaves too early");
            assert!(left(own + 8_000) as u64 > n, "request {n} leaves too late");
        }
    }

    fn of(shard: &parking_lot::Mutex<Shard>, at: u64) -> usize {
        let shard = shard.lock();
        let entries = shard.slots.iter().flat_map(|slot| slot.window.entries().collect::<Vec<_>>());
        entries.filter(|entry| entry.leaves_ms() > at).map(|entry| entry.count() as usize).sum()
    }

    #[test]
    fn windows_of_a_second_are_not_worth_writing() {
        let (limiter, short) = (Limiter::default(), rule(3, 1));
        admitted(&limiter, &short, 1, 0);
        assert_eq!(written(&limiter, Extent::Changed, 10), Vec::<u64>::new());
    }

    #[test]
    fn numbers_that_make_no_sense_are_left_out() {
        let limiter = Limiter::default();
        for nonsense in [&[1][..], &[1, u64::MAX], &[1, 2, 3], &[1, 1, u64::MAX, 1, 1, u64::MAX]] {
            limiter.restore(nonsense, 7, 10);
        }
        assert!(limiter.stats().keys <= 1);
    }

    #[test]
    fn writing_stops_when_nobody_takes_it() {
        let (limiter, three) = (Limiter::default(), rule(3, 300));
        for client in 0..100_000 {
            admitted(&limiter, &three, client, 0);
        }
        let mut portions = 0;
        limiter.write_down(Extent::All, 1, &mut |_| {
            portions += 1;
            portions < 2
        });
        assert_eq!(portions, 2);
    }
}
