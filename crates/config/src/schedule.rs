//! When a task runs: what the file says, and which instant comes next after another.
//! Must not know tasks or read a clock.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use portcullis_model::UnixMs;

use crate::units::{format_duration, parse_duration};

/// The shortest and the longest interval.
const MIN_EVERY: Duration = Duration::from_secs(10);
const MAX_EVERY: Duration = Duration::from_secs(366 * 86_400);
/// Characters of an expression.
const MAX_TEXT: usize = 200;
const EXPECTED: &str =
    "a cron expression such as \"30 3 * * *\", \"@hourly\", \"@daily\", \"every 15m\" or \"off\"";

/// When something happens again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Off,
    /// So long after the last time.
    Every(Duration),
    /// Whenever the clock on the wall shows one of these times.
    Cron(CronExpression),
}

/// A cron expression of five fields, or a nickname such as `@daily`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronExpression {
    text: Box<str>,
    cron: Box<Cron>,
}

/// Whose clock a cron expression means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScheduleZone {
    #[default]
    Local,
    Utc,
}

impl ScheduleZone {
    pub const ALL: [Self; 2] = [Self::Local, Self::Utc];

    /// The word that the file uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Utc => "utc",
        }
    }

    /// The zone as it is on this machine.
    pub fn time_zone(self) -> TimeZone {
        match self {
            Self::Local => TimeZone::system(),
            Self::Utc => TimeZone::UTC,
        }
    }
}

impl Schedule {
    /// The first instant after `last`; `None` when there is none.
    ///
    /// Where clocks are put forward, a time that is left out comes at the first one that there is; where
    /// they are put back, a time of day that comes twice counts once.
    pub fn next_after(&self, last: UnixMs, zone: &TimeZone) -> Option<UnixMs> {
        match self {
            Self::Off => None,
            Self::Every(interval) => Some(last.plus(*interval)),
            Self::Cron(expression) => expression.next_after(last, zone),
        }
    }
}

impl CronExpression {
    fn next_after(&self, last: UnixMs, zone: &TimeZone) -> Option<UnixMs> {
        let last = Timestamp::from_millisecond(last.0).ok()?.to_zoned(zone.clone());
        let next = self.cron.find_next_occurrence(&last, false).ok()?;
        Some(UnixMs(next.timestamp().as_millisecond()))
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(interval) = text.strip_prefix("every ") {
            return every(interval.trim()).map(Self::Every);
        }
        let wrong = |why: String| format!("expected {EXPECTED}, got {text:?}{why}");
        if text.len() > MAX_TEXT {
            return Err(format!("expected {EXPECTED}, got {} characters", text.chars().count()));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|why| wrong(format!(": {}", reason(&why.to_string()))))?;
        let expression = CronExpression { text: text.into(), cron: Box::new(cron) };
        // 30 February: better said at once than waited for.
        match expression.next_after(UnixMs(0), &TimeZone::UTC) {
            Some(_) => Ok(Self::Cron(expression)),
            None => Err(wrong(": there is no such day".to_owned())),
        }
    }
}

fn every(text: &str) -> Result<Duration, String> {
    let range = || format!("from {} to {}", format_duration(MIN_EVERY), format_duration(MAX_EVERY));
    parse_duration(text)
        .filter(|interval| (MIN_EVERY..=MAX_EVERY).contains(interval))
        .ok_or_else(|| format!("expected \"every\" and a duration {}, got {text:?}", range()))
}

/// The library's sentence as a part of ours.
fn reason(why: &str) -> String {
    let why = why.trim().trim_end_matches('.');
    let mut letters = why.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "it is not understood".to_owned(),
    }
}

impl fmt::Display for Schedule {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Every(interval) => write!(f, "every {}", format_duration(*interval)),
            Self::Cron(expression) => f.write_str(&expression.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn at(text: &str) -> UnixMs {
        UnixMs(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn berlin() -> TimeZone {
        // Written out, so that the test needs no database of zones.
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn in_berlin(text: &str, from: &str, n: usize) -> Vec<String> {
        let (schedule, mut last) = (schedule(text), at(from));
        let next = || {
            last = schedule.next_after(last, &berlin()).unwrap();
            Timestamp::from_millisecond(last.0).unwrap().to_string()
        };
        std::iter::repeat_with(next).take(n).collect()
    }

    #[test]
    fn schedules_are_read_and_print_as_they_were_written() {
        for text in
            ["off", "every 15m", "every 1d", "30 3 * * *", "*/5 8-18 * * mon-fri", "@daily", "0 0 L * *"]
        {
            assert_eq!(schedule(text).to_string(), text);
        }
        assert_eq!(schedule("every 60s"), Schedule::Every(Duration::from_secs(60)));
    }

    #[test]
    fn what_is_no_schedule_is_named_with_an_example() {
        for bad in [
            "",
            "daily",
            "@fortnightly",
            "* * * *",
            "* * * * * *",
            "61 * * * *",
            "0 0 31 2 *",
            "every",
            "every 1s",
            "every 15 minutes",
            "every 9999d",
            "x".repeat(300).as_str(),
        ] {
            let why = bad.parse::<Schedule>().unwrap_err();
            assert!(why.starts_with("expected ") && why.len() < 400, "{bad:?}: {why}");
        }
    }

    #[test]
    fn an_interval_counts_from_the_last_time() {
        let every = schedule("every 15m");
        assert_eq!(every.next_after(UnixMs(7), &TimeZone::UTC), Some(UnixMs(900_007)));
        assert_eq!(schedule("off").next_after(UnixMs(7), &TimeZone::UTC), None);
    }

    #[test]
    fn the_next_time_is_later_than_the_last_also_at_that_very_time() {
        let hourly = schedule("@hourly");
        let noon = at("2026-06-01T12:00:00Z");
        assert_eq!(hourly.next_after(noon, &TimeZone::UTC), Some(at("2026-06-01T13:00:00Z")));
        assert_eq!(hourly.next_after(noon.minus(Duration::from_millis(1)), &TimeZone::UTC), Some(noon));
    }

    #[test]
    fn the_zone_decides_what_half_past_three_is() {
        let nightly = schedule("30 3 * * *");
        let noon = at("2026-06-01T12:00:00Z");
        assert_eq!(nightly.next_after(noon, &TimeZone::UTC), Some(at("2026-06-02T03:30:00Z")));
        assert_eq!(nightly.next_after(noon, &berlin()), Some(at("2026-06-02T01:30:00Z")));
    }

    #[test]
    fn an_hour_that_is_left_out_in_spring_leaves_nothing_out() {
        // On 29 March 2026 it is 03:00 right after 02:00 (01:00 UTC).
        let days = in_berlin("30 2 * * *", "2026-03-28T00:00:00Z", 3);
        assert_eq!(days[0], "2026-03-28T01:30:00Z");
        assert!(("2026-03-29T01:00:00Z"..="2026-03-29T01:30:00Z").contains(&days[1].as_str()), "{days:?}");
        assert_eq!(days[2], "2026-03-30T00:30:00Z");
    }

    #[test]
    fn an_hour_that_comes_twice_in_autumn_counts_once() {
        // On 25 October 2026 it is 02:00 again right after 03:00 (01:00 UTC).
        let days = in_berlin("30 2 * * *", "2026-10-24T00:30:00Z", 2);
        assert_eq!(days[0].get(..10), Some("2026-10-25"), "{days:?}");
        assert_eq!(days[1], "2026-10-26T01:30:00Z", "{days:?}");
        // What is meant for every hour comes in both.
        let hours = in_berlin("0 * * * *", "2026-10-24T23:30:00Z", 3);
        assert_eq!(hours, ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"]);
    }
}
