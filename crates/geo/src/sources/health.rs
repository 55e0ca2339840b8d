//! How it is with a source: what of its quota is used, and whether it is left alone for a while.
//!
//! Pure: owns the arithmetic of quota, back-off and circuit breaker. Must not read a clock.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use portcullis_model::UnixMs;
use serde::{Deserialize, Serialize};

use super::SourceSettings;
use super::answer::{Failure, FailureKind};

/// Failures in a row after which a source is left alone.
const FAILURES_TO_OPEN: u32 = 3;
/// The longest that a source is left alone after failures of its own.
pub const MAX_LEFT_ALONE: Duration = Duration::from_secs(60 * 60);
/// The longest that a source can ask to be left alone.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a source is left alone that does not take the token.
const AFTER_REFUSAL: Duration = Duration::from_secs(10 * 60);

/// What is kept of a source. The default is one that has never been asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceState {
    /// The day (UTC) that the counts are of, such as `2026-11-20`.
    day: Option<String>,
    used_today: u32,
    used_this_month: u32,
    /// Failures in a row.
    failures: u32,
    left_alone_until: Option<UnixMs>,
    pub last_answer_at: Option<UnixMs>,
    /// One sentence; holds words of the source: escape it before printing.
    pub last_error: Option<String>,
    pub last_error_at: Option<UnixMs>,
}

/// Whether questions go to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    Closed,
    Open {
        until: UnixMs,
    },
    /// The next question decides.
    HalfOpen,
}

impl Circuit {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Why a source is not asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    LeftAlone { until: UnixMs },
    DayUsedUp { quota: u32, until: UnixMs },
    MonthUsedUp { quota: u32, until: UnixMs },
}

impl Unavailable {
    /// When it may be asked again.
    pub fn until(self) -> UnixMs {
        match self {
            Self::LeftAlone { until } | Self::DayUsedUp { until, .. } | Self::MonthUsedUp { until, .. } => {
                until
            }
        }
    }
}

impl SourceState {
    /// Requests of the current day and month.
    pub fn used(&self, now: UnixMs) -> (u32, u32) {
        let today = date(now);
        let day = self.day.as_ref().and_then(|day| day.parse::<Date>().ok());
        match day {
            Some(day) if day == today => (self.used_today, self.used_this_month),
            Some(day) if (day.year(), day.month()) == (today.year(), today.month()) => {
                (0, self.used_this_month)
            }
            Some(_) | None => (0, 0),
        }
    }

    pub fn circuit(&self, now: UnixMs) -> Circuit {
        match self.left_alone_until {
            None => Circuit::Closed,
            Some(until) if until > now => Circuit::Open { until },
            Some(_) => Circuit::HalfOpen,
        }
    }

    /// Whether a question may be sent now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, source: &SourceSettings, now: UnixMs) -> Result<(), Unavailable> {
        if let Circuit::Open { until } = self.circuit(now) {
            return Err(Unavailable::LeftAlone { until });
        }
        let (today, this_month) = self.used(now);
        if let Some(quota) = source.monthly.filter(|quota| this_month >= *quota) {
            return Err(Unavailable::MonthUsedUp { quota, until: next_month(now) });
        }
        if let Some(quota) = source.daily.filter(|quota| today >= *quota) {
            return Err(Unavailable::DayUsedUp { quota, until: next_day(now) });
        }
        Ok(())
    }

    /// Counts a question before it is sent, so that a quota holds whatever happens to the answer.
    ///
    /// # Errors
    /// Why it must not be sent.
    pub(crate) fn take(&mut self, source: &SourceSettings, now: UnixMs) -> Result<(), Unavailable> {
        self.check(source, now)?;
        let (today, this_month) = self.used(now);
        self.day = Some(date(now).to_string());
        self.used_today = today.saturating_add(1);
        self.used_this_month = this_month.saturating_add(1);
        Ok(())
    }

    pub(crate) fn answered(&mut self, now: UnixMs) {
        self.failures = 0;
        self.left_alone_until = None;
        self.last_answer_at = Some(now);
    }

    pub(crate) fn failed(&mut self, source: &SourceSettings, failure: &Failure, now: UnixMs) {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(failure.says.clone());
        self.last_error_at = Some(now);
        let doubled = |times: u32| {
            source
                .retry
                .saturating_mul(1_u32.checked_shl(times.min(31)).unwrap_or(u32::MAX))
                .min(MAX_LEFT_ALONE)
        };
        let own = match failure.kind {
            FailureKind::Limited => Some(doubled(self.failures - 1)),
            FailureKind::Refused => Some(AFTER_REFUSAL),
            FailureKind::Broken => self.failures.checked_sub(FAILURES_TO_OPEN).map(doubled),
        };
        let asked = failure.retry_after.map(|span| span.min(MAX_RETRY_AFTER));
        // What the source asks for goes before what would be guessed, but never makes the wait shorter for
        // one that is broken again and again.
        let span = match (failure.kind, asked, own) {
            (FailureKind::Limited, Some(asked), _) => Some(asked),
            (_, Some(asked), Some(own)) => Some(asked.max(own)),
            (_, asked, own) => asked.or(own),
        };
        if let Some(span) = span {
            self.left_alone_until = Some(now.plus(span));
        }
    }
}

fn date(now: UnixMs) -> Date {
    let at = Timestamp::from_millisecond(now.0).unwrap_or_default();
    at.to_zoned(TimeZone::UTC).date()
}

fn start_of(date: Date) -> Option<UnixMs> {
    let zoned = date.to_zoned(TimeZone::UTC).ok()?;
    Some(UnixMs(zoned.timestamp().as_millisecond()))
}

/// At the end of all time there is no next day.
fn next_day(now: UnixMs) -> UnixMs {
    date(now).checked_add(1.day()).ok().and_then(start_of).unwrap_or(UnixMs(i64::MAX))
}

fn next_month(now: UnixMs) -> UnixMs {
    let next = date(now).first_of_month().checked_add(1.month());
    next.ok().and_then(start_of).unwrap_or(UnixMs(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::SourceKind;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(text: &str) -> UnixMs {
        UnixMs(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn source(daily: Option<u32>, monthly: Option<u32>) -> SourceSettings {
        let kind = SourceKind::IpapiCo;
        let url = kind.url().to_owned();
        SourceSettings { kind, url, token: None, daily, monthly, timeout: SECOND, retry: 10 * SECOND }
    }

    fn failure(kind: FailureKind, retry_after: Option<u64>) -> Failure {
        Failure { kind, says: "it failed".to_owned(), retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn a_day_and_a_month_each_have_their_quota() {
        let source = source(Some(2), Some(3));
        let mut state = SourceState::default();
        let evening = at("2026-01-30T23:59:59.999Z");
        assert_eq!([state.take(&source, evening), state.take(&source, evening)], [Ok(()); 2]);
        let until = at("2026-01-31T00:00:00Z");
        assert_eq!(state.take(&source, evening), Err(Unavailable::DayUsedUp { quota: 2, until }));
        assert_eq!(state.take(&source, until), Ok(()));
        let month = at("2026-02-01T00:00:00Z");
        assert_eq!(state.take(&source, until), Err(Unavailable::MonthUsedUp { quota: 3, until: month }));
        assert_eq!((state.used(until), state.used(month)), ((1, 3), (0, 0)));
        assert_eq!(state.take(&source, month), Ok(()));
    }

    #[test]
    fn the_breaker_opens_at_the_third_failure_and_waits_longer_each_time() {
        let source = source(None, None);
        let mut state = SourceState::default();
        let mut now = at("2026-01-30T12:00:00Z");
        let broken = failure(FailureKind::Broken, None);
        for _ in 0..2 {
            state.failed(&source, &broken, now);
            assert_eq!(state.check(&source, now), Ok(()));
        }
        for seconds in [10, 20, 40] {
            state.failed(&source, &broken, now);
            let until = now.plus(seconds * SECOND);
            assert_eq!(state.check(&source, now), Err(Unavailable::LeftAlone { until }));
            assert_eq!(state.circuit(until), Circuit::HalfOpen);
            assert_eq!(state.check(&source, until), Ok(()), "one question decides");
            now = until;
        }
        for _ in 0..99 {
            state.failed(&source, &broken, now);
        }
        assert_eq!(state.check(&source, now).unwrap_err().until(), now.plus(MAX_LEFT_ALONE));
        state.answered(now);
        assert_eq!((state.circuit(now), state.check(&source, now)), (Circuit::Closed, Ok(())));
        state.failed(&source, &broken, now);
        assert_eq!(state.check(&source, now), Ok(()), "it counts from the beginning again");
    }

    #[test]
    fn a_source_is_left_alone_as_long_as_it_asks_to_be() {
        let source = source(None, None);
        let now = at("2026-01-30T12:00:00Z");
        let wait = |kind, after| {
            let mut state = SourceState::default();
            state.failed(&source, &failure(kind, after), now);
            state.check(&source, now).err().map(|why| why.until().since(now).as_secs())
        };
        assert_eq!(wait(FailureKind::Limited, Some(90)), Some(90));
        assert_eq!(wait(FailureKind::Limited, Some(9_999_999)), Some(86_400));
        assert_eq!(wait(FailureKind::Limited, None), Some(10));
        assert_eq!(wait(FailureKind::Refused, None), Some(600));
        assert_eq!(wait(FailureKind::Broken, Some(30)), Some(30));
        assert_eq!(wait(FailureKind::Broken, None), None);
    }

    #[test]
    fn a_state_of_another_version_is_read_as_far_as_it_goes() {
        let state: SourceState = serde_json::from_str(r#"{"failures": 2, "what": 1}"#).unwrap();
        assert_eq!(state, SourceState { failures: 2, ..SourceState::default() });
    }
}
