//! Requests that are under way, per limit and subject, for limits of concurrency.
//!
//! Owns the counts. What enters leaves when its [`Permit`] is dropped, however the request ends; so there are
//! never more entries than requests under way.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// Independent locks; a power of two.
const SHARDS: usize = 64;
/// Subjects with a request under way, about. More than the gateway has streams; whoever comes on top is refused.
const MAX_SUBJECTS: usize = 1 << 20;

/// Safe to share.
pub struct UnderWay {
    /// By a keyed hash of rule and subject.
    shards: [Mutex<HashMap<u64, u32>>; SHARDS],
}

impl Default for UnderWay {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl UnderWay {
    /// Subjects that have requests under way.
    pub fn subjects(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, u32>> {
        &self.shards[(key >> 32) as usize & (SHARDS - 1)]
    }

    fn enter(&self, key: u64, most: u32) -> bool {
        let mut shard = self.shard(key).lock();
        let is_full = shard.len() >= MAX_SUBJECTS / SHARDS;
        match shard.get_mut(&key) {
            Some(count) if *count >= most => false,
            Some(count) => {
                *count += 1;
                true
            }
            None if is_full || most == 0 => false,
            None => {
                shard.insert(key, 1);
                true
            }
        }
    }

    fn leave(&self, key: u64) {
        let mut shard = self.shard(key).lock();
        match shard.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                shard.remove(&key);
            }
        }
    }
}

/// A request's places among those under way; given back when it is dropped. Keep it until the request has ended.
#[derive(Default)]
pub struct Permit {
    /// `None` as long as there is no place.
    under_way: Option<Arc<UnderWay>>,
    keys: Vec<u64>,
}

impl Permit {
    /// Takes a place of `key` if fewer than `most` are taken.
    pub(crate) fn enter(&mut self, under_way: &Arc<UnderWay>, key: u64, most: u32) -> bool {
        let is_in = under_way.enter(key, most);
        if is_in {
            self.under_way.get_or_insert_with(|| Arc::clone(under_way));
            self.keys.push(key);
        }
        is_in
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(under_way) = &self.under_way {
            self.keys.iter().for_each(|key| under_way.leave(*key));
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("places", &self.keys.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(under_way: &Arc<UnderWay>, key: u64, most: u32) -> Option<Permit> {
        let mut permit = Permit::default();
        permit.enter(under_way, key, most).then_some(permit)
    }

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let under_way = Arc::new(UnderWay::default());
        let held: Vec<_> = (0..3).map(|_| permit(&under_way, 1, 3)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(permit(&under_way, 1, 3).is_none(), "the fourth");
        assert!(permit(&under_way, 2, 3).is_some(), "somebody else");
        drop(held);
        assert_eq!(under_way.subjects(), 0);
        assert!(permit(&under_way, 1, 1).is_some());
    }

    #[test]
    fn a_panic_gives_the_place_back() {
        let under_way = Arc::new(UnderWay::default());
        let inside = Arc::clone(&under_way);
        let ended = std::thread::spawn(move || {
            let _held = permit(&inside, 1, 1);
            assert_eq!(inside.subjects(), 0, "one subject has a request under way: this panics");
        })
        .join();
        assert!(ended.is_err());
        assert_eq!(under_way.subjects(), 0);
    }

    #[test]
    fn never_more_than_allowed_are_inside() {
        let under_way = Arc::new(UnderWay::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Some(_held) = permit(&under_way, 9, 2) {
                            let inside = under_way.shard(9).lock().get(&9).copied().unwrap_or(0);
                            assert!((1..=2).contains(&inside), "{inside}");
                        }
                    }
                });
            }
        });
        assert_eq!(under_way.subjects(), 0);
    }
}
