//! Numbers, sizes and times as messages show them. Must not read clocks or the machine's time zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use portcullis_model::UnixMs;

/// Digits in groups of three.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 block`, `1,234 blocks`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(n), if n == 1 { "" } else { "s" })
}

/// `512 B`, `1.5 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1_024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1_024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1_000.0 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    format!("{value:.*} {unit}", usize::from(value < 100.0))
}

fn timestamp(at: UnixMs) -> Timestamp {
    let bound = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_millisecond(at.0).unwrap_or(bound)
}

/// `2026-11-19 12:34:56 CET`
pub(crate) fn time(at: UnixMs, zone: &TimeZone) -> String {
    timestamp(at).to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// `2026-11-19T12:34:56.789Z`
pub(crate) fn iso(at: UnixMs) -> String {
    format!("{:.3}", timestamp(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!((number(1_234_567).as_str(), number(999).as_str()), ("1,234,567", "999"));
        assert_eq!((count(1, "block").as_str(), count(0, "block").as_str()), ("1 block", "0 blocks"));
        assert_eq!(
            (bytes(1_023).as_str(), bytes(1_536).as_str(), bytes(300 << 20).as_str()),
            ("1023 B", "1.5 KiB", "300 MiB")
        );
        assert_eq!(iso(UnixMs(0)), "1970-01-01T00:00:00.000Z");
        assert!(!time(UnixMs(i64::MAX), &TimeZone::UTC).is_empty());
    }
}
