//! Times as people read them at the command line, and how long ago something was.
//! Must not read clocks: `now` is handed in.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use portcullis_config::format_duration;
pub(crate) use portcullis_config::{Expiry, Moment};
use portcullis_model::UnixMs;

fn timestamp(at: UnixMs) -> Timestamp {
    let bound = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_millisecond(at.0).unwrap_or(bound)
}

fn zoned(at: UnixMs, zone: &TimeZone) -> Zoned {
    timestamp(at).to_zoned(zone.clone())
}

/// `2026-09-01T12:34:56.789Z`
pub(crate) fn iso(at: UnixMs) -> String {
    format!("{:.3}", timestamp(at))
}

/// `2026-09-01 12:34:56`, for columns under each other.
pub(crate) fn short(at: UnixMs, zone: &TimeZone) -> String {
    zoned(at, zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `2026-09-01 12:34:56 CEST`
pub(crate) fn full(at: UnixMs, zone: &TimeZone) -> String {
    zoned(at, zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// `12:34`
pub(crate) fn hour(at: UnixMs, zone: &TimeZone) -> String {
    zoned(at, zone).strftime("%m-%d %H:%M").to_string()
}

/// `3 min ago`, `in 23 h`, `just now`.
pub(crate) fn relative(at: UnixMs, now: UnixMs) -> String {
    match (now.since(at), at.since(now)) {
        (past, ahead) if past.max(ahead) < Duration::from_secs(1) => "just now".to_owned(),
        (past, Duration::ZERO) => format!("{} ago", span(past)),
        (_, ahead) => format!("in {}", span(ahead)),
    }
}

/// A length of time for people, rounded to the nearest unit: `42 s`, `5 min`, `24 h`, `7 days`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = (time.as_millis() + 500) / 1_000;
    let rounded = |unit: u128| (seconds + unit / 2) / unit;
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7_170 => format!("{} min", rounded(60)),
        7_170..171_000 => format!("{} h", rounded(3_600)),
        _ => format!("{} days", rounded(86_400)),
    }
}

/// A length of time as the configuration writes it, with words: `5 minutes`, `90 seconds`, `1 hour`.
pub(crate) fn in_words(time: Duration) -> String {
    let text = format_duration(time);
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "d" => "day",
        "h" => "hour",
        "m" => "minute",
        "s" => "second",
        _ => return text,
    };
    if digits == "1" { format!("1 {unit}") } else { format!("{digits} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-11-20T06:51:25Z
    const NOW: UnixMs = UnixMs(1_795_157_485_000);

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(1))
    }

    #[test]
    fn lengths_of_time_are_rounded_to_what_people_say() {
        for (seconds, want) in
            [(1, "1 s"), (90, "90 s"), (299, "5 min"), (86_399, "24 h"), (604_800, "7 days")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), want);
        }
        assert_eq!(span(Duration::from_millis(250)), "250 ms");
        assert_eq!(relative(NOW.minus(Duration::from_secs(180)), NOW), "3 min ago");
        assert_eq!(relative(NOW.plus(Duration::from_secs(23 * 3_600)), NOW), "in 23 h");
        assert_eq!(relative(NOW, NOW), "just now");
        assert_eq!(in_words(Duration::from_secs(300)), "5 minutes");
        assert_eq!(in_words(Duration::from_secs(3_600)), "1 hour");
    }

    #[test]
    fn extreme_times_are_printed_and_do_not_panic() {
        for at in [UnixMs(i64::MIN), UnixMs(i64::MAX), UnixMs(0)] {
            assert!(!full(at, &zone()).is_empty());
            assert!(!iso(at).is_empty());
            assert!(!relative(at, NOW).is_empty());
        }
    }
}
