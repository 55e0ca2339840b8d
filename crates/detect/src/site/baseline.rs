//! How busy a site is at which hour. Owns what is usual and its spread; must not look at requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The last four weeks.
pub const MAX_HOURS: usize = 28 * 24;
/// The same hour of the same weekday says most, from so many of them on.
const SAME_WEEKDAY: usize = 3;
/// Else the same hour of all days, from so many on.
const SAME_HOUR: usize = 3;
/// From the median absolute deviation to the standard deviation of a normal distribution.
const MAD_TO_SIGMA: f64 = 1.4826;
/// A site is never steadier than this share of what is usual.
const LEAST_SPREAD: f64 = 0.1;

/// An hour is a spike from so many spreads above what is usual on,
const SPIKE_SPREADS: f64 = 8.0;
/// so many times what is usual,
const SPIKE_TIMES: f64 = 3.0;
/// and so many requests.
const SPIKE_REQUESTS: u64 = 500;

/// What came in one hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourTotals {
    /// By everybody, without what the gateway refused.
    pub requests: u64,
    /// For assets, by clients that nothing is said against; so the next ones.
    pub assets: u64,
    /// Answers that can be errors.
    pub judged: u64,
    pub errors: u64,
}

impl HourTotals {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.assets += other.assets;
        self.judged += other.judged;
        self.errors += other.errors;
    }
}

/// What is usual in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Expected {
    /// The median of the hours that it is compared with.
    pub requests: f64,
    /// A robust standard deviation: 1.4826 times the median absolute deviation, at least the square root and a
    /// tenth of the median.
    pub spread: f64,
    /// How many hours it is compared with.
    pub hours: usize,
}

impl Expected {
    /// Whether so many requests are far more than usual.
    pub fn is_far_below(&self, requests: u64) -> bool {
        let far = (self.requests + SPIKE_SPREADS * self.spread).max(SPIKE_TIMES * self.requests);
        requests >= SPIKE_REQUESTS && requests as f64 > far
    }
}

/// By hours since 1970.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Hours(BTreeMap<i64, HourTotals>);

impl Hours {
    pub(super) fn add(&mut self, hour: i64, totals: HourTotals) {
        self.0.entry(hour).or_default().add(&totals);
        let newest = self.0.last_key_value().map_or(hour, |(newest, _)| *newest);
        self.0.retain(|known, _| newest - known < MAX_HOURS as i64);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &HourTotals)> {
        self.0.iter().map(|(hour, totals)| (*hour, totals))
    }

    pub(super) fn sum(&self) -> HourTotals {
        let mut sum = HourTotals::default();
        self.0.values().for_each(|totals| sum.add(totals));
        sum
    }

    /// From earlier hours alone. Hours without any request may be ones in which the gateway did not run: they count
    /// for nothing.
    pub(super) fn expected(&self, hour: i64) -> Option<Expected> {
        let earlier = || self.0.range(..hour).map(|(at, totals)| (*at, totals.requests as f64));
        let every = |period: i64| -> Vec<f64> {
            earlier().filter(|(at, _)| (hour - at) % period == 0).map(|(_, requests)| requests).collect()
        };
        let same_weekday = every(7 * 24);
        let mut values = if same_weekday.len() >= SAME_WEEKDAY { same_weekday } else { every(24) };
        if values.len() < SAME_HOUR {
            return None;
        }
        let median = median(&mut values);
        let mut deviations: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        let spread =
            (MAD_TO_SIGMA * self::median(&mut deviations)).max(median.sqrt()).max(LEAST_SPREAD * median);
        Some(Expected { requests: median, spread, hours: values.len() })
    }
}

/// Of values that are not empty; sorts them.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}
