//! The process's clocks, read in one place. The only code of this crate that asks for the time.

use std::time::{Instant, SystemTime};

use portcullis_model::UnixMs;
use portcullis_policy::Now;

/// Counts monotonic milliseconds from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts counting now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The present instant on both clocks.
    pub fn now(&self) -> Now {
        self.at(Instant::now())
    }

    /// An instant that was read a moment ago.
    pub(crate) fn at(&self, instant: Instant) -> Now {
        let monotonic = instant.saturating_duration_since(self.origin);
        Now {
            wall: UnixMs::from_system(SystemTime::now()),
            monotonic_ms: u64::try_from(monotonic.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
