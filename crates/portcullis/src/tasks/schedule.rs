//! When a task is due: its schedule, seen from its last run.
//!
//! Pure: the wall clock is passed in, and may jump. Must not run anything.

use std::time::Duration;

use jiff::tz::TimeZone;
use portcullis_config::Schedule;
use portcullis_model::UnixMs;

/// How long after the start of a gateway the first run comes that is due already.
const FIRST_RUN: Duration = Duration::from_secs(10);
/// How long after a run that could not begin the next try comes.
const RETRY: Duration = Duration::from_secs(60);
/// A clock that is put back by no more than this makes nothing run twice; after a longer step, times of day
/// that come again count again.
const TOLERATED_STEP: Duration = Duration::from_secs(3_600);

/// When one task runs next.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// When the last run began; without one, since when there is the task. What was due after it is due now,
    /// once, however often it was missed.
    last: UnixMs,
    not_before: UnixMs,
}

impl Plan {
    /// Of a gateway that starts at `now`.
    pub(crate) fn at_start(last_run: Option<UnixMs>, known_since: UnixMs, now: UnixMs) -> Self {
        Self { last: last_run.unwrap_or(known_since), not_before: now.plus(FIRST_RUN) }
    }

    /// The next time, which may have passed; `None` when there is none.
    pub(crate) fn next(&mut self, schedule: &Schedule, zone: &TimeZone, now: UnixMs) -> Option<UnixMs> {
        let tolerated = match schedule {
            Schedule::Off | Schedule::Every(_) => Duration::ZERO,
            Schedule::Cron(_) => TOLERATED_STEP,
        };
        if self.last.since(now) > tolerated {
            self.last = now;
        }
        // The clock was put back, or the schedule is a quick one.
        let longest = match schedule {
            Schedule::Every(interval) => RETRY.min(*interval),
            Schedule::Off | Schedule::Cron(_) => RETRY,
        };
        self.not_before = self.not_before.min(now.plus(longest));
        schedule.next_after(self.last, zone).map(|next| next.max(self.not_before))
    }

    pub(crate) fn began(&mut self, now: UnixMs) {
        self.last = now;
    }

    /// Somebody else is running it.
    pub(crate) fn put_off(&mut self, before: UnixMs, now: UnixMs) {
        self.last = before;
        self.not_before = now.plus(RETRY);
    }

    /// Somebody else has run it since.
    pub(crate) fn was_run(&mut self, at: UnixMs) {
        self.last = self.last.max(at);
    }

    pub(crate) fn last(&self) -> UnixMs {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap()
    }

    fn next(plan: &mut Plan, text: &str, now: i64) -> Option<i64> {
        plan.next(&schedule(text), &TimeZone::UTC, UnixMs(now)).map(|at| at.0)
    }

    #[test]
    fn a_restart_does_not_put_an_interval_off() {
        let now = 100 * DAY;
        let at = |last: Option<i64>, text: &str| {
            let mut plan = Plan::at_start(last.map(UnixMs), UnixMs(now), UnixMs(now));
            next(&mut plan, text, now).unwrap() - now
        };
        assert_eq!(at(None, "every 1h"), HOUR, "one that never ran");
        assert_eq!(at(Some(now - 50 * 60_000), "every 1h"), 10 * 60_000);
        assert_eq!(at(Some(now - 9 * DAY), "every 1h"), 10_000, "due long since");
        assert_eq!(at(Some(now + DAY), "every 1h"), HOUR, "a clock that was put back");
        let quick = Schedule::Every(Duration::from_secs(2));
        let mut plan = Plan::at_start(Some(UnixMs(now - DAY)), UnixMs(now), UnixMs(now));
        assert_eq!(plan.next(&quick, &TimeZone::UTC, UnixMs(now)), Some(UnixMs(now + 2_000)));
    }

    #[test]
    fn what_was_missed_for_days_is_made_up_for_once() {
        let now = 100 * DAY + 9 * HOUR;
        let mut plan = Plan::at_start(Some(UnixMs(95 * DAY + 8 * HOUR)), UnixMs(0), UnixMs(now));
        let due = next(&mut plan, "0 8 * * *", now).unwrap();
        assert_eq!(due, now + 10_000);
        plan.began(UnixMs(due));
        assert_eq!(next(&mut plan, "0 8 * * *", due), Some(101 * DAY + 8 * HOUR));
    }

    #[test]
    fn a_task_that_never_ran_missed_what_was_due_since_it_is_known() {
        let now = 100 * DAY + 9 * HOUR;
        let mut new = Plan::at_start(None, UnixMs(now), UnixMs(now));
        assert_eq!(next(&mut new, "0 8 * * *", now), Some(101 * DAY + 8 * HOUR));
        let mut old = Plan::at_start(None, UnixMs(now - DAY), UnixMs(now));
        assert_eq!(next(&mut old, "0 8 * * *", now), Some(now + 10_000));
    }

    #[test]
    fn a_clock_that_is_put_back_a_little_makes_nothing_run_twice() {
        let eight = 100 * DAY + 8 * HOUR;
        let mut plan = Plan::at_start(Some(UnixMs(eight - DAY)), UnixMs(0), UnixMs(eight - HOUR));
        assert_eq!(next(&mut plan, "0 8 * * *", eight), Some(eight));
        plan.began(UnixMs(eight));
        for now in [eight - 1, eight - HOUR, eight + 5] {
            assert_eq!(next(&mut plan, "0 8 * * *", now), Some(eight + DAY));
        }
    }

    #[test]
    fn a_clock_that_was_far_ahead_does_not_stop_the_schedule() {
        let now = 100 * DAY + 9 * HOUR;
        for text in ["0 8 * * *", "every 1h"] {
            let mut plan = Plan::at_start(Some(UnixMs(9_000 * DAY)), UnixMs(0), UnixMs(9_001 * DAY));
            let due = next(&mut plan, text, now).unwrap();
            assert!(due > now && due <= now + DAY, "{text}");
            // It comes nearer while time goes on.
            assert_eq!(next(&mut plan, text, due), Some(due), "{text}");
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_makes_up_for_it_once() {
        let start = 100 * DAY;
        let mut plan = Plan::at_start(None, UnixMs(start), UnixMs(start));
        let later = start + 400 * DAY + 9 * HOUR;
        assert!(next(&mut plan, "@daily", later).unwrap() <= later);
        plan.began(UnixMs(later));
        assert_eq!(next(&mut plan, "@daily", later), Some(start + 401 * DAY));
    }

    #[test]
    fn a_schedule_that_is_changed_or_switched_off_counts_from_the_last_run() {
        let now = 100 * DAY + 9 * HOUR;
        let mut plan = Plan::at_start(Some(UnixMs(now - 2 * HOUR)), UnixMs(0), UnixMs(now - HOUR));
        assert_eq!(next(&mut plan, "off", now), None);
        assert_eq!(next(&mut plan, "every 3h", now), Some(now + HOUR));
        assert!(next(&mut plan, "every 1h", now).unwrap() <= now);
    }

    #[test]
    fn what_somebody_else_is_running_is_tried_again_later() {
        let now = 100 * DAY + 9 * HOUR;
        let mut plan = Plan::at_start(Some(UnixMs(now - 2 * HOUR)), UnixMs(0), UnixMs(now - HOUR));
        let before = plan.last();
        plan.began(UnixMs(now));
        plan.put_off(before, UnixMs(now));
        assert_eq!(next(&mut plan, "every 1h", now), Some(now + 60_000));
    }
}
