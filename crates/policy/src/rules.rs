//! The rules of one configuration, immutable once built: what a reload swaps.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::{AccessRule, Exhausted, LimitKey, Needs, RequestMatch};

/// Whether verdicts are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Refusals are sent.
    #[default]
    Enforce,
    /// The verdict that would have been is recorded; everybody is let through.
    DryRun,
}

impl Mode {
    /// The word that the configuration uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::DryRun => "dry-run",
        }
    }

    /// Dry-run wins: a rule enforces only where it and the whole gateway do.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Enforce, Self::Enforce) => Self::Enforce,
            (Self::DryRun, _) | (_, Self::DryRun) => Self::DryRun,
        }
    }
}

/// The largest count of a rate; larger ones would not fit the limiter's packed entries.
pub const MAX_RATE_COUNT: u32 = 10_000_000;
/// The longest window of a rate.
pub const MAX_RATE_WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// The most limit rules of a configuration.
pub const MAX_LIMIT_RULES: usize = 128;

/// At most `count` requests in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    window: Duration,
}

/// The text is not a rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateError(pub String);

impl Rate {
    /// # Errors
    /// When the count or the window is zero or above its maximum.
    pub fn new(count: u32, window: Duration) -> Result<Self, RateError> {
        let count = NonZeroU32::new(count)
            .filter(|n| n.get() <= MAX_RATE_COUNT)
            .ok_or_else(|| RateError(format!("the count must be from 1 to {MAX_RATE_COUNT}, got {count}")))?;
        if window < Duration::from_secs(1) || window > MAX_RATE_WINDOW {
            return Err(RateError("the period must be from 1s to 30d".to_owned()));
        }
        Ok(Self { count, window })
    }

    /// Requests per window.
    pub fn count(self) -> u32 {
        self.count.get()
    }

    /// The length of the sliding window.
    pub fn window(self) -> Duration {
        self.window
    }
}

impl FromStr for Rate {
    type Err = RateError;

    /// `3/5m`: a count, a slash, and a period of an optional number and `s`, `m`, `h` or `d`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || RateError(format!("expected N/PERIOD such as \"3/5m\" or \"100/h\", got {text:?}"));
        let (count, period) = text.split_once('/').ok_or_else(shape)?;
        let count: u32 = count.trim().parse().map_err(|_| shape())?;
        let period = period.trim();
        let digits = period.len() - period.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = if digits == 0 { 1 } else { period[..digits].parse().map_err(|_| shape())? };
        let unit = match &period[digits..] {
            "s" | "sec" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3_600,
            "d" | "day" => 86_400,
            _ => return Err(shape()),
        };
        Self::new(count, Duration::from_secs(number.saturating_mul(unit)))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window.as_secs();
        let (number, unit) = match seconds {
            s if s % 86_400 == 0 => (s / 86_400, "d"),
            s if s % 3_600 == 0 => (s / 3_600, "h"),
            s if s % 60 == 0 => (s / 60, "m"),
            s => (s, "s"),
        };
        write!(f, "{}/{number}{unit}", self.count)
    }
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RateError {}

/// How much each subject (see [`LimitKey`]) may ask for: in a while, at a stretch, and at once. At least one of
/// `rate` and `concurrency` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// Unique; counts survive a reload under the same name.
    pub name: Arc<str>,
    pub rate: Option<Rate>,
    /// A second, shorter window inside that of `rate`, with a smaller count.
    pub burst: Option<Rate>,
    /// Requests that may be under way at the same time, at least 1.
    pub concurrency: Option<u32>,
    /// What one request takes of `rate` and `burst`: at least 1, at most the smaller count of the two.
    pub cost: u32,
    pub key: LimitKey,
    pub mode: Mode,
    pub applies_to: RequestMatch,
}

impl LimitRule {
    /// At most `rate` requests of each client address, whatever they ask for.
    pub fn per_client(name: &str, rate: Rate) -> Self {
        Self {
            name: name.into(),
            rate: Some(rate),
            burst: None,
            concurrency: None,
            cost: 1,
            key: LimitKey::Ip,
            mode: Mode::Enforce,
            applies_to: RequestMatch::default(),
        }
    }

    /// What is admitted, in short: `600/1m, burst 10/1s, 4 at once`.
    pub fn allowance(&self) -> String {
        let cost = (self.cost > 1).then(|| format!("each taking {}", self.cost));
        let kinds = [Exhausted::Rate, Exhausted::Burst].map(|kind| self.bound(kind));
        let parts = kinds.into_iter().chain([cost, self.bound(Exhausted::Concurrency)]);
        parts.flatten().collect::<Vec<_>>().join(", ")
    }

    /// The part of the allowance that is used up: `3/5m`, `burst 10/1s` or `4 at once`.
    pub fn bound(&self, exhausted: Exhausted) -> Option<String> {
        match exhausted {
            Exhausted::Rate | Exhausted::SharedRate(_) => self.rate.map(|rate| rate.to_string()),
            Exhausted::Burst => self.burst.map(|burst| format!("burst {burst}")),
            Exhausted::Concurrency => self.concurrency.map(|most| format!("{most} at once")),
        }
    }
}

/// The rules in force; every hook of one request uses the same one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub mode: Mode,
    /// In their order.
    pub access: Vec<Arc<AccessRule>>,
    pub limits: Vec<Arc<LimitRule>>,
}

impl Snapshot {
    /// What the facts of a request must have for these rules.
    pub fn needs(&self) -> Needs {
        let access = self.access.iter().map(|rule| rule.applies_to.needs());
        let limits = self.limits.iter().map(|rule| rule.applies_to.needs());
        access.chain(limits).fold(Needs::default(), Needs::or)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_and_print_the_same() {
        for (text, count, seconds, printed) in [
            ("3/5m", 3, 300, "3/5m"),
            ("100/h", 100, 3_600, "100/1h"),
            ("5/min", 5, 60, "5/1m"),
            ("10/90s", 10, 90, "10/90s"),
            ("1/d", 1, 86_400, "1/1d"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.count(), rate.window().as_secs()), (count, seconds));
            assert_eq!(rate.to_string(), printed);
        }
        for bad in ["3-5m", "3/5w", "0/5m", "x/5m", "3/", "3/0s", "3/31d", "99999999/1s", ""] {
            assert!(bad.parse::<Rate>().is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn dry_run_anywhere_means_dry_run() {
        assert_eq!(Mode::Enforce.and(Mode::Enforce), Mode::Enforce);
        assert_eq!(Mode::Enforce.and(Mode::DryRun), Mode::DryRun);
        assert_eq!(Mode::DryRun.and(Mode::Enforce), Mode::DryRun);
    }
}
