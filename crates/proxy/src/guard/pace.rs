//! How slow a client may be while a body comes or goes: only the time in which it makes the gateway wait
//! counts, never the site's.

use std::time::Duration;

use super::watch::millis;

/// What a client may waste before the rate counts: a handshake of its own, a lost packet, a slow start.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// The bounds of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PaceBounds {
    /// Bytes per second on average; 0 is off.
    pub(super) min_rate: u64,
    /// Between two bytes.
    pub(super) pause: Duration,
}

/// One direction of one body. Time is in milliseconds of any clock.
///
/// A budget of time that bytes fill and waiting uses up, never larger than the longest pause that is allowed:
/// a client cannot save up patience with a fast start.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    budget_ms: u64,
    bytes: u64,
    waiting_since: Option<u64>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { budget_ms: millis(GRACE), bytes: 0, waiting_since: None }
    }

    /// Whether the client is being waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// The client makes us wait. Returns since when, and when it has done so for too long.
    pub(super) fn wait(&mut self, now: u64, bounds: PaceBounds) -> (u64, u64) {
        if let Some(earned) = self.bytes.saturating_mul(1_000).checked_div(bounds.min_rate) {
            self.budget_ms = self.budget_ms.saturating_add(earned).min(millis(bounds.pause.max(GRACE)));
            self.bytes = 0;
        }
        let since = *self.waiting_since.get_or_insert(now);
        let pause = millis(bounds.pause);
        let span = if bounds.min_rate == 0 { pause } else { pause.min(self.budget_ms) };
        (since, since.saturating_add(span))
    }

    /// Bytes came or went.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The wait is over.
    pub(super) fn waited(&mut self, now: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.budget_ms = self.budget_ms.saturating_sub(now.saturating_sub(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: PaceBounds = PaceBounds { min_rate: 100, pause: Duration::from_secs(60) };

    /// When a client that sends `bytes` every `every` milliseconds is given up.
    fn given_up(bytes: usize, every: u64, bounds: PaceBounds) -> Option<u64> {
        let mut pace = Pace::new();
        let mut now = 0;
        while now < 600_000 {
            let (_, deadline) = pace.wait(now, bounds);
            if deadline < now + every {
                return Some(deadline);
            }
            now += every;
            pace.waited(now);
            pace.moved(bytes);
        }
        None
    }

    #[test]
    fn a_client_that_keeps_the_rate_is_never_given_up() {
        assert_eq!(given_up(100, 1_000, BOUNDS), None);
        assert_eq!(given_up(1_000, 4_000, BOUNDS), None);
    }

    #[test]
    fn a_client_below_the_rate_is_given_up_soon_after_the_grace() {
        let at = given_up(1, 1_000, BOUNDS).unwrap();
        assert!((5_000..6_000).contains(&at), "{at}");
        assert!(given_up(50, 1_000, BOUNDS).unwrap() < 15_000);
    }

    #[test]
    fn a_fast_start_buys_no_more_than_one_long_pause() {
        let mut pace = Pace::new();
        pace.moved(1 << 30);
        assert_eq!(pace.wait(0, BOUNDS), (0, 60_000));
        pace.waited(59_000);
        assert_eq!(pace.wait(59_000, BOUNDS), (59_000, 60_000));
    }

    #[test]
    fn without_a_rate_only_pauses_count() {
        let bounds = PaceBounds { min_rate: 0, ..BOUNDS };
        assert_eq!(given_up(1, 59_000, bounds), None);
        assert_eq!(given_up(1, 61_000, bounds), Some(60_000));
    }
}
