//! The fields of CSV and JSON: by which names they go, and how a time is written.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use portcullis_model::UnixMs;

/// Names of the network's field, in the order of preference.
pub(super) const NETWORK: &[&str] = &[
    "network",
    "cidr",
    "prefix",
    "ip",
    "address",
    "ip_address",
    "net",
    "range",
    "ip_prefix",
    "ipv6_prefix",
    "ipv4prefix",
    "ipv6prefix",
];
pub(super) const REASON: &[&str] = &["reason", "comment", "description", "note", "sblid"];
pub(super) const EXPIRES: &[&str] = &["expires", "expires_at", "until", "expiry"];

/// A number above this is milliseconds since 1970, else seconds: it is the year 5138 in seconds.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// RFC 3339, a date (its beginning in UTC), or a number of seconds or milliseconds since 1970. Nothing and
/// `never` are no end.
pub(super) fn expiry(text: &str) -> Result<Option<UnixMs>, String> {
    let text = text.trim();
    if text.is_empty() || matches!(text, "never" | "null" | "none") {
        return Ok(None);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Some(instant(number)));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Some(UnixMs(at.as_millisecond())));
    }
    let at = text.parse::<Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok());
    match at {
        Some(at) => Ok(Some(UnixMs(at.timestamp().as_millisecond()))),
        None => Err("expected an expiry such as 2026-12-31, 2026-12-31T18:00:00Z or nothing".to_owned()),
    }
}

pub(super) fn instant(number: i64) -> UnixMs {
    UnixMs(if number >= MILLISECONDS_FROM { number } else { number.saturating_mul(1_000) })
}
