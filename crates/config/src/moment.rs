//! Points in time as people type them: `1h`, `+7d`, dates, RFC 3339.
//! Must not read clocks: `now` is handed in.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use portcullis_model::UnixMs;

use crate::units::parse_duration;

const FORMS: &str = "a time ago such as 90s, 30m, 24h or 7d, \"today\", \"yesterday\", a date such as 2026-12-31, \
                     a date with a time such as 2026-12-31T18:00, or RFC 3339";

/// A point in the past as `--since` and `--until` take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    Now,
    Ago(Duration),
    /// Midnight, so many days back.
    Midnight(u8),
    /// In the time zone of the reader.
    Local(DateTime),
    At(UnixMs),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match text {
            "now" => return Ok(Self::Now),
            "today" => return Ok(Self::Midnight(0)),
            "yesterday" => return Ok(Self::Midnight(1)),
            _ => {}
        }
        if let Some(span) = parse_duration(text) {
            return Ok(Self::Ago(span));
        }
        date(text).ok_or_else(|| format!("expected {FORMS}, got {text:?}"))
    }
}

impl Moment {
    pub fn resolve(&self, now: UnixMs, zone: &TimeZone) -> UnixMs {
        match self {
            Self::Now => now,
            Self::Ago(span) => now.minus(*span),
            Self::Midnight(days_back) => midnight(now, zone, *days_back),
            Self::Local(local) => local_instant(*local, zone),
            Self::At(at) => *at,
        }
    }
}

/// When a block ends, as `--expires` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expiry {
    Never,
    After(Duration),
    Local(DateTime),
    At(UnixMs),
}

impl std::str::FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text == "never" {
            return Ok(Self::Never);
        }
        if let Some(span) = parse_duration(text.strip_prefix('+').unwrap_or(text)) {
            return Ok(Self::After(span));
        }
        match date(text) {
            Some(Moment::Local(local)) => Ok(Self::Local(local)),
            Some(Moment::At(at)) => Ok(Self::At(at)),
            Some(Moment::Now | Moment::Ago(_) | Moment::Midnight(_)) | None => Err(format!(
                "expected a time from now such as +12h or +7d, a date such as 2026-12-31, a date with a time \
                 such as 2026-12-31T18:00, RFC 3339, or \"never\"; got {text:?}"
            )),
        }
    }
}

impl Expiry {
    /// `None` is never.
    ///
    /// # Errors
    /// A sentence when that is not in the future.
    pub fn resolve(&self, now: UnixMs, zone: &TimeZone) -> Result<Option<UnixMs>, String> {
        let at = match self {
            Self::Never => return Ok(None),
            Self::After(span) => now.plus(*span),
            Self::Local(local) => local_instant(*local, zone),
            Self::At(at) => *at,
        };
        if at <= now {
            return Err(format!(
                "expected a time to come, got {}, which is not in the future",
                zoned(at, zone).strftime("%Y-%m-%d %H:%M:%S %Z")
            ));
        }
        Ok(Some(at))
    }
}

fn date(text: &str) -> Option<Moment> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(Moment::At(UnixMs(at.as_millisecond())));
    }
    text.parse::<DateTime>().ok().map(Moment::Local)
}

/// A time that the clocks skip becomes the one after the gap.
fn local_instant(local: DateTime, zone: &TimeZone) -> UnixMs {
    match zone.to_ambiguous_timestamp(local).compatible() {
        Ok(at) => UnixMs(at.as_millisecond()),
        Err(_) => UnixMs(if local.year() < 1970 { i64::MIN } else { i64::MAX }),
    }
}

fn midnight(now: UnixMs, zone: &TimeZone, days_back: u8) -> UnixMs {
    let today = zoned(now, zone).date();
    let day = (0..days_back).fold(today, |day, _| day.yesterday().unwrap_or(day));
    local_instant(day.to_datetime(jiff::civil::Time::midnight()), zone)
}

/// Times out of range are shown as the last one in it.
fn zoned(at: UnixMs, zone: &TimeZone) -> jiff::Zoned {
    let bound = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_millisecond(at.0).unwrap_or(bound).to_zoned(zone.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-11-20T06:51:25Z
    const NOW: UnixMs = UnixMs(1_795_157_485_000);

    fn since(text: &str) -> String {
        iso(text.parse::<Moment>().unwrap().resolve(NOW, &zone()))
    }

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(1))
    }

    #[test]
    fn moments_are_read_in_all_their_forms() {
        for (text, want) in [
            ("now", "2026-11-20T06:51:25.000Z"),
            ("90s", "2026-11-20T06:49:55.000Z"),
            ("1h", "2026-11-20T05:51:25.000Z"),
            ("7d", "2026-11-13T06:51:25.000Z"),
            ("today", "2026-11-19T23:00:00.000Z"),
            ("yesterday", "2026-11-18T23:00:00.000Z"),
            ("2026-11-01", "2026-10-31T23:00:00.000Z"),
            ("2026-11-01T12:30", "2026-11-01T11:30:00.000Z"),
            ("2026-11-01 12:30:15", "2026-11-01T11:30:15.000Z"),
            ("2026-11-01T12:30:15Z", "2026-11-01T12:30:15.000Z"),
            ("2026-11-01T12:30:15.5-02:00", "2026-11-01T14:30:15.500Z"),
        ] {
            assert_eq!(since(text), want, "{text}");
        }
        for bad in ["", "soon", "1w", "-1h", "2026-13-01", "2026", "12:30"] {
            assert!(bad.parse::<Moment>().unwrap_err().contains("expected a time ago"), "{bad}");
        }
    }

    #[test]
    fn an_expiry_is_never_in_the_past() {
        let resolve = |text: &str| text.parse::<Expiry>().unwrap().resolve(NOW, &zone());
        assert_eq!(resolve("never"), Ok(None));
        assert_eq!(resolve("+7d"), Ok(Some(NOW.plus(Duration::from_secs(7 * 86_400)))));
        assert_eq!(resolve("12h"), Ok(Some(NOW.plus(Duration::from_secs(12 * 3_600)))));
        assert_eq!(resolve("2026-12-31").unwrap().map(iso).unwrap(), "2026-12-30T23:00:00.000Z");
        assert!(resolve("2026-11-20T07:51:25").unwrap_err().contains("not in the future"));
        assert!(resolve("+0s").is_err());
        assert!("tomorrow".parse::<Expiry>().unwrap_err().contains("+7d"));
    }

    #[test]
    fn extreme_times_do_not_panic() {
        assert_eq!("9999999d".parse::<Moment>().unwrap().resolve(NOW, &zone()).0.signum(), -1);
    }

    fn iso(at: UnixMs) -> String {
        format!("{:.3}", Timestamp::from_millisecond(at.0).unwrap())
    }
}
