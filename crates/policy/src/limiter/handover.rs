//! The counts on their way from one process to the next, as numbers.
//!
//! Owns their form. A client that is at its limit must be at its limit in the next process too; nobody else may be.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use siphasher::sip::SipHasher13;

use super::{Entry, Limiter, Window};

/// Numbers that are exported at once, about.
pub(super) const EXPORTED_AT_ONCE: usize = 16_384;
/// What both processes must hash to the same number.
const PROBE: (&str, IpAddr) = ("probe", IpAddr::V6(Ipv6Addr::LOCALHOST));

/// The hash of a limiter's keys: random for whoever does not know the secret, the same in the next process.
#[derive(Clone, Copy)]
pub(super) struct Keyed {
    secret: [u64; 2],
}

impl Keyed {
    pub(super) fn random() -> Self {
        // Each has keys of its own.
        Self { secret: [0_u64, 1].map(|n| RandomState::new().hash_one(n)) }
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.secret[0], self.secret[1])
    }
}

/// What the next process must know to go on counting: two numbers of the hash, and one that shows whether it hashes
/// the same way.
pub type Secret = [u64; 3];

impl Limiter {
    /// What [`Limiter::with_secret`] needs. Whoever knows it can choose keys that collide.
    pub fn secret(&self) -> Secret {
        let [one, two] = self.hasher.secret;
        [one, two, self.hasher.hash_one(PROBE)]
    }

    /// An empty limiter that understands what one with this secret exports; `None` when it hashes in another way.
    pub fn with_secret([one, two, probe]: Secret) -> Option<Self> {
        let hasher = Keyed { secret: [one, two] };
        (hasher.hash_one(PROBE) == probe).then(|| Self { hasher, ..Self::default() })
    }

    /// An empty limiter with a hash that anybody can know, so that the same requests are counted in the same way each
    /// time: for the past, where nobody can choose keys that collide any more.
    pub fn repeatable() -> Self {
        Self { hasher: Keyed { secret: [1, 2] }, ..Self::default() }
    }

    /// Gives all windows to `send`, as numbers in portions, until it says `false`. Counting goes on meanwhile.
    pub fn export(&self, now_ms: u64, send: &mut dyn FnMut(&[u64]) -> bool) {
        let mut numbers = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            for slot in shard.slots.iter().filter(|slot| slot.window.ends_ms() > now_ms) {
                numbers.push(slot.key);
                let count_at = numbers.len();
                numbers.push(0);
                let entries = slot.window.entries().filter(|entry| entry.leaves_ms() > now_ms);
                numbers.extend(entries.map(|entry| Entry::new(entry.leaves_ms() - now_ms, entry.count()).0));
                numbers[count_at] = (numbers.len() - count_at - 1) as u64;
            }
            drop(shard);
            if numbers.len() >= EXPORTED_AT_ONCE && !send_in_portions(&mut numbers, send) {
                return;
            }
        }
        send_in_portions(&mut numbers, send);
    }

    /// Counts what another limiter with the same secret exported a moment before `now_ms`.
    pub fn import(&self, mut numbers: &[u64], now_ms: u64) {
        while let [key, count, rest @ ..] = numbers {
            let Some((entries, others)) =
                usize::try_from(*count).ok().and_then(|count| rest.split_at_checked(count))
            else {
                return;
            };
            self.with_window(*key, now_ms, |window| {
                for entry in entries.iter().map(|&number| Entry(number)) {
                    window.add(now_ms.saturating_add(entry.leaves_ms()), entry.count());
                }
            });
            numbers = others;
        }
    }
}

/// Cuts between windows, and leaves nothing.
pub(super) fn send_in_portions(numbers: &mut Vec<u64>, send: &mut dyn FnMut(&[u64]) -> bool) -> bool {
    let (mut start, mut end) = (0, 0);
    while end < numbers.len() {
        end += 2 + usize::try_from(numbers[end + 1]).unwrap_or(0);
        if (end - start >= EXPORTED_AT_ONCE || end == numbers.len()) && !send(&numbers[start..end]) {
            return false;
        }
        if end - start >= EXPORTED_AT_ONCE {
            start = end;
        }
    }
    numbers.clear();
    true
}

impl Window {
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let (one, many) = match self {
            Self::Empty => (None, None),
            Self::One(entry) => (Some(*entry), None),
            Self::Many(list) => (None, Some(list.entries.iter().copied())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{ip, rule as rule_per};
    use super::*;
    use crate::{Admission, LimitRule};

    fn rule(count: u32) -> LimitRule {
        rule_per(count, 300)
    }

    fn handed_over(old: &Limiter, old_ms: u64, new_ms: u64) -> Limiter {
        let new = Limiter::with_secret(old.secret()).unwrap();
        old.export(old_ms, &mut |numbers| {
            new.import(numbers, new_ms);
            true
        });
        new
    }

    #[test]
    fn a_client_at_its_limit_stays_there_until_its_window_ends() {
        let (old, three) = (Limiter::default(), rule(3));
        for now in [700_000, 800_000, 850_000] {
            assert!(matches!(old.admit(&three, &ip(1), now), Admission::Admitted { .. }));
        }
        old.admit(&three, &ip(2), 850_000);
        let new = handed_over(&old, 900_000, 50);
        let Admission::Refused { retry_after, .. } = new.admit(&three, &ip(1), 50) else {
            panic!("the fourth must be refused")
        };
        assert_eq!(retry_after, Duration::from_millis(100_001), "the first of the three leaves after 300 s");
        assert_eq!(new.admit(&three, &ip(2), 50), Admission::Admitted { remaining: 1 });
        assert_eq!(new.admit(&three, &ip(3), 50), Admission::Admitted { remaining: 2 });
        assert_eq!(new.admit(&three, &ip(1), 50 + 100_001), Admission::Admitted { remaining: 0 });
    }

    #[test]
    fn many_windows_of_many_requests_arrive_whole() {
        let (old, wide) = (Limiter::default(), rule(100));
        for client in 0..20_000 {
            for n in 0..=client % 5 {
                old.admit(&wide, &ip(client), u64::from(n) * 1_000);
            }
        }
        let new = handed_over(&old, 5_000, 7);
        assert_eq!(new.stats().keys, 20_000);
        for client in 0..20_000 {
            assert_eq!(
                new.admit(&wide, &ip(client), 8),
                Admission::Admitted { remaining: 100 - (client % 5 + 1) - 1 }
            );
        }
    }

    #[test]
    fn one_that_hashes_in_another_way_is_not_made() {
        let [one, two, probe] = Limiter::default().secret();
        assert!(Limiter::with_secret([one, two, probe ^ 1]).is_none());
    }

    #[test]
    fn numbers_that_make_no_sense_are_left_out() {
        let limiter = Limiter::default();
        for nonsense in [&[1][..], &[1, u64::MAX], &[1, 2, 3], &[1, 1, u64::MAX, 1, 1, u64::MAX]] {
            limiter.import(nonsense, 10);
        }
        assert!(limiter.stats().keys <= 1);
    }
}
