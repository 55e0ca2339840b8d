//! Times as logs write them. Owns their forms; times without a zone are taken as UTC. Must not read a clock.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use portcullis_model::UnixMs;

/// What is earlier or later is no time of a request: 1980 to 2200.
const EARLIEST_MS: i64 = 315_532_800_000;
const LATEST_MS: i64 = 7_258_118_400_000;
const DAY_MS: i64 = 86_400_000;

/// `17/Oct/2022:14:14:21 +0200`, with or without `.123` and the zone; or RFC 3339; or an epoch.
pub(crate) fn any(text: &str) -> Option<UnixMs> {
    let text = text.trim();
    clf(text.as_bytes()).or_else(|| rfc3339(text)).or_else(|| epoch(text.parse().ok()?))
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size.
pub(crate) fn epoch(number: f64) -> Option<UnixMs> {
    let ms = match number {
        n if n < 1e11 => n * 1e3,
        n if n < 1e14 => n,
        n if n < 1e17 => n / 1e3,
        n => n / 1e6,
    };
    // NaN is outside, too.
    (EARLIEST_MS as f64..LATEST_MS as f64).contains(&ms).then_some(UnixMs(ms.round() as i64))
}

fn rfc3339(text: &str) -> Option<UnixMs> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let at = match text.parse::<Timestamp>() {
        Ok(at) => at,
        Err(_) => wall(text)?,
    };
    within(at.as_millisecond())
}

/// Without a zone; also with slashes, as Go writes it.
fn wall(text: &str) -> Option<Timestamp> {
    let civil = text.parse::<DateTime>().or_else(|_| text.replace('/', "-").parse::<DateTime>());
    TimeZone::UTC.to_ambiguous_timestamp(civil.ok()?).compatible().ok()
}

/// `17/Oct/2022:14:14:21`, `.123` and ` +0200`.
pub(crate) fn clf(text: &[u8]) -> Option<UnixMs> {
    let (stamp, rest) = text.split_first_chunk::<20>()?;
    let is_shaped = [(2, b'/'), (6, b'/'), (11, b':'), (14, b':'), (17, b':')];
    if !is_shaped.iter().all(|&(at, byte)| stamp[at] == byte) {
        return None;
    }
    let month = month(&stamp[3..6])?;
    let (day, year) = (number(&stamp[..2])?, number(&stamp[7..11])?);
    let (hour, minute, second) = (number(&stamp[12..14])?, number(&stamp[15..17])?, number(&stamp[18..20])?);
    // 60 is a leap second.
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, rest) = fraction(rest)?;
    let seconds = (hour * 60 + minute) * 60 + second;
    within(days(year, month, day) * DAY_MS + seconds * 1_000 + fraction - zone_ms(rest)?)
}

fn within(ms: i64) -> Option<UnixMs> {
    (EARLIEST_MS..LATEST_MS).contains(&ms).then_some(UnixMs(ms))
}

/// Milliseconds of `.123456`, and what follows.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    let ms = (0..3).fold(0, |ms, n| ms * 10 + digits[..end].get(n).map_or(0, |&d| i64::from(d - b'0')));
    (end > 0).then_some((ms, &digits[end..]))
}

/// Of ` +0200`; nothing is UTC.
fn zone_ms(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    let (sign, digits) = match text {
        [] | b"Z" => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?),
        _ => return None,
    };
    (hours <= 15 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60_000)
}

fn month(name: &[u8]) -> Option<i64> {
    const NAMES: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    NAMES.iter().position(|known| *known == name).map(|n| n as i64 + 1)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

/// Days since 1970 in the Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_one_instant_is_that_instant() {
        let expected = Some(UnixMs(1_666_016_061_000));
        for text in [
            "17/Oct/2022:14:14:21 +0000",
            "17/Oct/2022:16:14:21 +0200",
            "17/Oct/2022:04:44:21 -0930",
            "17/Oct/2022:14:14:21",
            "2022-10-17T14:14:21Z",
            "2022-10-17T16:14:21+02:00",
            "2022-10-17 14:14:21",
            "2022/10/17 14:14:21",
            "1666016061",
            "1666016061.0",
            "1666016061000",
            "1666016061000000",
            "1666016061000000000",
        ] {
            assert_eq!(any(text), expected, "{text}");
        }
        assert_eq!(any("17/Oct/2022:14:14:21.885").map(|at| at.0 % 1_000), Some(885));
        assert_eq!(any("1700758468.384019"), Some(UnixMs(1_700_758_468_384)));
        assert_eq!(any("29/Feb/2024:23:59:60 +0000"), Some(UnixMs(1_709_251_200_000)));
    }

    #[test]
    fn what_is_no_time_of_a_request_is_none() {
        for text in [
            "",
            "-",
            "x",
            "32/Oct/2022:14:14:21 +0000",
            "17/Okt/2022:14:14:21 +0000",
            "17/Oct/2022:24:14:21 +0000",
            "17/Oct/2022:14:14:21 CEST",
            "17/Oct/0001:14:14:21 +0000",
            "17/Oct/9999:14:14:21 +0000",
            "0",
            "-5",
            "NaN",
            "inf",
            "1e300",
        ] {
            assert_eq!(any(text), None, "{text}");
        }
    }
}
