//! The instant at which a decision is made, read once per request by the caller.

use std::time::Duration;

use portcullis_model::UnixMs;

/// One instant on both clocks. Limits and expiries follow the monotonic one, so that a wall clock that
/// jumps neither frees nor refuses anybody; the wall clock is what people and databases are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub wall: UnixMs,
    /// Milliseconds on a clock that never goes back and starts anywhere.
    pub monotonic_ms: u64,
}

impl Now {
    /// The monotonic instant at which something ends that the database dates in wall time.
    pub fn deadline(self, expires_at: UnixMs) -> u64 {
        self.monotonic_ms.saturating_add(millis(expires_at.since(self.wall)))
    }
}

/// Whole milliseconds, saturating.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
