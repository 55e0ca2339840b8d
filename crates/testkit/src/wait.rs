//! Polling with a deadline. Must not sleep for longer than one step when the thing has happened already.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails: generous, since the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(2);

/// Calls `look` until it returns something.
///
/// # Panics
/// After [`DEADLINE`], naming `what`.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, look)
}

/// Calls `look` until it returns something.
///
/// # Panics
/// After `deadline`, naming `what`.
pub fn eventually_within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < deadline, "did not happen within {deadline:?}: {what}");
        thread::sleep(STEP);
    }
}
