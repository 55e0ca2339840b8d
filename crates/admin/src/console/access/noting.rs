//! Which failed sign-ins the audit log gets: all, until there are so many that they would fill it.
//! Must not write them.

use parking_lot::Mutex;
use portcullis_model::UnixMs;

/// Failed sign-ins that are written down in each minute; the others are counted.
const PER_MINUTE: u32 = 30;

#[derive(Debug, Default)]
pub(super) struct Noting(Mutex<Minute>);

#[derive(Debug, Default)]
struct Minute {
    number: i64,
    noted: u32,
    /// Since the last that was noted.
    left_out: u64,
}

impl Noting {
    /// Whether to write one down; then with how many others before it were not.
    pub(super) fn note(&self, now: UnixMs) -> Option<u64> {
        let mut minute = self.0.lock();
        let number = now.0 / 60_000;
        if minute.number != number {
            minute.number = number;
            minute.noted = 0;
        }
        if minute.noted >= PER_MINUTE {
            minute.left_out += 1;
            return None;
        }
        minute.noted += 1;
        Some(std::mem::take(&mut minute.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_down_is_counted_in_the_next() {
        let noting = Noting::default();
        let noted = (0..100).filter(|_| noting.note(UnixMs(5)).is_some()).count();
        assert_eq!(noted, 30);
        assert_eq!(noting.note(UnixMs(60_000)), Some(70));
        assert_eq!(noting.note(UnixMs(60_001)), Some(0));
    }
}
