//! Notices what the gateway itself suffers from: rows that are lost, a log that fails, a disk that fills.
//! Tells each once and not at every look.

use std::time::Duration;

use portcullis_model::UnixMs;
use portcullis_notify::{Event, Settings};
use portcullis_store::LogStats;

use super::Alerts;
use crate::machine::disk_space;

/// Losses within this time are one event.
const LOSS_INTERVAL: Duration = Duration::from_secs(60);
/// A log that fails for so long is told of: a busy moment is none.
const FAILING_FOR: Duration = Duration::from_secs(20);
const DISK_INTERVAL: Duration = Duration::from_secs(30);
/// A disk that stays full is told of again after this.
const DISK_AGAIN: Duration = Duration::from_secs(6 * 3_600);

/// What was noticed and told so far.
#[derive(Default)]
pub(crate) struct Watch {
    lost: u64,
    loss_told: Option<UnixMs>,
    failing_since: Option<UnixMs>,
    is_failure_told: bool,
    disk_looked: Option<UnixMs>,
    disk_told: Option<UnixMs>,
}

impl Watch {
    /// Looks, and raises what is to be told.
    pub(crate) fn tick(
        &mut self,
        alerts: &Alerts,
        settings: &Settings,
        log: &LogStats,
        data: &std::path::Path,
        now: UnixMs,
    ) {
        if !settings.has_channels() {
            // What happens while nobody is to be told is not told later.
            self.lost = log.dropped();
            return;
        }
        for event in self.log(log.dropped(), log.is_failing(), now) {
            alerts.raise(settings, &event, now);
        }
        let is_due = self.disk_looked.is_none_or(|at| now.since(at) >= DISK_INTERVAL || at > now);
        if settings.disk_pressure && is_due {
            self.disk_looked = Some(now);
            let space = disk_space(data);
            if let Some(event) =
                space.and_then(|space| self.disk(space.free, space.total, settings.min_free, now))
            {
                alerts.raise(settings, &event, now);
            }
        }
    }

    fn log(&mut self, lost: u64, is_failing: bool, now: UnixMs) -> Vec<Event> {
        let mut events = Vec::new();
        let rows = lost.saturating_sub(self.lost);
        if rows > 0 && self.loss_told.is_none_or(|at| now.since(at) >= LOSS_INTERVAL || at > now) {
            (self.lost, self.loss_told) = (lost, Some(now));
            events.push(Event::LogLoss { rows, is_failing });
        }
        if !is_failing {
            (self.failing_since, self.is_failure_told) = (None, false);
            return events;
        }
        let since = *self.failing_since.get_or_insert(now);
        if !self.is_failure_told && now.since(since) >= FAILING_FOR {
            self.is_failure_told = true;
            if events.is_empty() {
                events.push(Event::LogLoss { rows: 0, is_failing });
            }
        }
        events
    }

    fn disk(&mut self, free: u64, total: u64, min_free: u64, now: UnixMs) -> Option<Event> {
        // A little more than the bound: a disk that hovers around it is not told of again and again.
        if free > min_free.saturating_add(min_free / 4) {
            self.disk_told = None;
        }
        let is_told = self.disk_told.is_some_and(|at| now.since(at) < DISK_AGAIN && at <= now);
        if free >= min_free || is_told {
            return None;
        }
        self.disk_told = Some(now);
        Some(Event::DiskPressure { free, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> UnixMs {
        UnixMs(1_800_000_000_000 + seconds * 1_000)
    }

    #[test]
    fn lost_rows_are_told_once_a_minute_and_all_of_them() {
        let mut watch = Watch::default();
        assert_eq!(watch.log(0, false, at(0)), []);
        assert_eq!(watch.log(5, false, at(1)), [Event::LogLoss { rows: 5, is_failing: false }]);
        assert_eq!(watch.log(9, false, at(2)), []);
        assert_eq!(watch.log(70, false, at(61)), [Event::LogLoss { rows: 65, is_failing: false }]);
        assert_eq!(watch.log(70, false, at(200)), []);
    }

    #[test]
    fn a_log_that_fails_for_long_is_told_once_until_it_works_again() {
        let mut watch = Watch::default();
        let failing = [Event::LogLoss { rows: 0, is_failing: true }];
        assert_eq!(watch.log(0, true, at(0)), []);
        assert_eq!(watch.log(0, true, at(20)), failing);
        assert_eq!(watch.log(0, true, at(400)), []);
        assert_eq!(watch.log(0, false, at(401)), []);
        assert_eq!(watch.log(0, true, at(402)), []);
        assert_eq!(watch.log(0, true, at(430)), failing);
    }

    #[test]
    fn a_full_disk_is_told_again_after_hours_or_when_it_was_better_in_between() {
        let mut watch = Watch::default();
        let mut is_told = |free, seconds| watch.disk(free, 1_000, 100, at(seconds)).is_some();
        assert!(!is_told(100, 0));
        assert!(is_told(99, 30));
        assert!(!is_told(50, 60));
        assert!(!is_told(110, 90), "better, but hardly");
        assert!(!is_told(99, 120));
        assert!(!is_told(126, 150));
        assert!(is_told(99, 180));
        assert!(!is_told(99, 180 + 21_599));
        assert!(is_told(99, 180 + 21_600));
    }
}
