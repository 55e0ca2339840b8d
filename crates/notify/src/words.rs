//! Numbers, sizes and times as messages and commands show them. Must not read clocks or the machine's time zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use portcullis_model::UnixMs;

/// Digits in groups of three.
pub fn number(n: u64) -> String {
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

/// `1 request`, `2 requests`, `12,345 requests`.
pub fn count(n: u64, noun: &str) -> String {
    let plural = match noun {
        _ if n == 1 => noun.to_owned(),
        noun if noun.ends_with("ss") || noun.ends_with("ch") => format!("{noun}es"),
        noun if noun.ends_with('y') && !noun.ends_with("ay") && !noun.ends_with("ey") => {
            format!("{}ies", &noun[..noun.len() - 1])
        }
        noun => format!("{noun}s"),
    };
    format!("{} {plural}", number(n))
}

/// Bytes with three significant figures: `512 B`, `1.50 MiB`.
pub fn bytes(n: u64) -> String {
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
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
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
    fn times_are_readable_whatever_they_are() {
        assert_eq!(iso(UnixMs(0)), "1970-01-01T00:00:00.000Z");
        assert!(!time(UnixMs(i64::MAX), &TimeZone::UTC).is_empty());
    }

    #[test]
    fn numbers_are_grouped_and_nouns_agree() {
        assert_eq!(count(1, "request"), "1 request");
        assert_eq!(count(0, "entry"), "0 entries");
        assert_eq!(count(1_234_567, "address"), "1,234,567 addresses");
        assert_eq!(number(999), "999");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.50 KiB");
        assert_eq!(bytes(12 << 20), "12.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }
}
