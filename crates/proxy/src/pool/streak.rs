//! Passive health of one server: failures in a row take it out for a while, then one request tries it again.
//! Pure arithmetic on instants that are passed in. Must not know what a failure is.

use std::time::{Duration, Instant};

/// When a server is taken out, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Failures in a row; 0 is never.
    pub(super) max_fails: usize,
    /// Between the first and the last of them at most; the time out, too.
    pub(super) fail_timeout: Duration,
}

/// Whether a server is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// It was out for long enough: one request may try it.
    Due,
    Out,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Streak {
    /// So many failures since the last answer, the first of them at that instant.
    In {
        fails: usize,
        since: Instant,
    },
    Out {
        until: Instant,
    },
}

impl Streak {
    pub(super) fn new(now: Instant) -> Self {
        Self::In { fails: 0, since: now }
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        match self {
            Self::In { .. } => Standing::Good,
            Self::Out { until } if *until <= now => Standing::Due,
            Self::Out { .. } => Standing::Out,
        }
    }

    /// True when this failure took the server out.
    pub(super) fn failed(&mut self, now: Instant, patience: Patience) -> bool {
        if patience.max_fails == 0 {
            return false;
        }
        match self {
            Self::In { fails, since } => {
                if *fails == 0 || now.saturating_duration_since(*since) > patience.fail_timeout {
                    (*fails, *since) = (0, now);
                }
                *fails += 1;
                if *fails < patience.max_fails {
                    return false;
                }
                *self = Self::Out { until: now + patience.fail_timeout };
                true
            }
            Self::Out { until } => {
                *until = now + patience.fail_timeout;
                false
            }
        }
    }

    /// True when this answer brought the server back.
    pub(super) fn answered(&mut self, now: Instant) -> bool {
        let was_out = matches!(self, Self::Out { .. });
        *self = Self::new(now);
        was_out
    }

    /// Takes the one try that is due: until that has been answered the server is out, or for as long again.
    pub(super) fn claim(&mut self, now: Instant, patience: Patience) {
        match self {
            Self::Out { until } if *until <= now => *until = now + patience.fail_timeout,
            Self::In { .. } | Self::Out { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { max_fails: 3, fail_timeout: Duration::from_secs(10) };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_take_a_server_out_for_the_time_and_then_one_request_tries() {
        let start = Instant::now();
        let mut streak = Streak::new(start);
        assert!(!streak.failed(start, PATIENCE));
        assert!(!streak.failed(start + SECOND, PATIENCE));
        assert!(streak.failed(start + 2 * SECOND, PATIENCE));
        let out = start + 2 * SECOND;
        assert_eq!(streak.standing(out + 9 * SECOND), Standing::Out);
        let due = out + PATIENCE.fail_timeout;
        assert_eq!(streak.standing(due), Standing::Due);
        streak.claim(due, PATIENCE);
        assert_eq!(streak.standing(due), Standing::Out, "one try was due, not two");
        assert!(!streak.failed(due + SECOND, PATIENCE), "it was out already");
        assert_eq!(streak.standing(due + 10 * SECOND), Standing::Out, "the failed try begins the time anew");
        assert_eq!(streak.standing(due + 11 * SECOND), Standing::Due);
        assert!(streak.answered(due + 12 * SECOND));
        assert_eq!(streak.standing(due + 12 * SECOND), Standing::Good);
        assert!(!streak.failed(due + 13 * SECOND, PATIENCE), "it begins again at nothing");
    }

    #[test]
    fn an_answer_in_between_or_a_long_time_begins_a_new_row() {
        let start = Instant::now();
        let mut streak = Streak::new(start);
        for round in 0..100 {
            let now = start + round * SECOND;
            assert!(!streak.failed(now, PATIENCE) && !streak.failed(now, PATIENCE));
            assert!(!streak.answered(now));
        }
        let mut streak = Streak::new(start);
        for round in 0..100 {
            assert!(!streak.failed(start + round * 6 * SECOND, PATIENCE), "never three within ten seconds");
        }
    }

    #[test]
    fn no_failure_counts_when_it_is_switched_off() {
        let start = Instant::now();
        let mut streak = Streak::new(start);
        for _ in 0..1_000 {
            assert!(!streak.failed(start, Patience { max_fails: 0, ..PATIENCE }));
        }
        assert_eq!(streak.standing(start), Standing::Good);
    }
}
