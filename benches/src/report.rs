//! Medians and how they are printed.
//!
//! Owns the text; knows nothing of what was measured.

use std::fmt::Write as _;
use std::time::Duration;

use crate::measure::Sample;

/// The middle value; of an even number the mean of the two in the middle. 0 of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// All rounds of one contestant.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub samples: Vec<Sample>,
}

impl Series {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), samples: Vec::new() }
    }

    /// Microseconds of CPU time per request, over the rounds.
    pub fn cpu_us(&self) -> f64 {
        median(self.samples.iter().map(Sample::cpu_us))
    }

    /// Answers in all rounds.
    pub fn answered(&self) -> u64 {
        self.samples.iter().map(|sample| sample.answered).sum()
    }

    /// The median over the rounds of this one's cost divided by the other's in the same round, so that
    /// a machine that slows down half-way does not move it.
    pub fn ratio(&self, to: &Self) -> f64 {
        let pairs = self.samples.iter().zip(&to.samples);
        median(pairs.map(|(own, other)| own.cpu_us() / other.cpu_us()))
    }
}

/// One line for each contestant, ratios to the first.
pub fn table(series: &[Series]) -> String {
    let mut text = format!(
        "  {:<44} {:>10} {:>7}  {:>15} {:>10} {:>9} {:>9}\n",
        "", "CPU µs/req", "ratio", "lowest-highest", "req/s", "p50", "p99"
    );
    for one in series {
        let costs: Vec<f64> = one.samples.iter().map(Sample::cpu_us).collect();
        let (low, high) = costs
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &cost| (low.min(cost), high.max(cost)));
        let ratio = series.first().map_or(1.0, |first| one.ratio(first));
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "  {:<44} {:>10.2} {:>7.3}  {:>15} {:>10.0} {:>9} {:>9}",
            one.name,
            one.cpu_us(),
            ratio,
            format!("{low:.2}-{high:.2}"),
            median(one.samples.iter().map(Sample::throughput)),
            millis(one.samples.iter().map(|sample| sample.p50)),
            millis(one.samples.iter().map(|sample| sample.p99)),
        );
    }
    text
}

fn millis(spans: impl Iterator<Item = Duration>) -> String {
    format!("{:.2} ms", median(spans.map(|span| span.as_secs_f64() * 1e3)))
}

/// A figure beside what it should not exceed.
pub fn against(name: &str, value: f64, target: f64, unit: &str) -> String {
    let verdict = if value <= target { "met" } else { "missed" };
    format!("  {name:<58} {value:>8.2} {unit:<6} target {target:>6.2}  {verdict}\n")
}

/// Megabytes of 10^6 bytes.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, costs_us: &[u64]) -> Series {
        let sample = |&cost: &u64| Sample {
            answered: 1_000,
            refused: 0,
            failed: 0,
            took: Duration::from_secs(1),
            p50: Duration::from_millis(1),
            p99: Duration::from_millis(2),
            cpu: Duration::from_micros(cost * 1_000),
        };
        Series { name: name.to_owned(), samples: costs_us.iter().map(sample).collect() }
    }

    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(median([3.0, 1.0, 900.0]), 3.0);
        assert_eq!(median([1.0, 2.0]), 1.5);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn ratios_compare_within_a_round() {
        // The machine became twice as slow in the second round; the ratio did not change.
        let ratio = series("b", &[11, 22]).ratio(&series("a", &[10, 20]));
        assert!((ratio - 1.1).abs() < 1e-9);
    }

    #[test]
    fn the_table_has_a_line_for_each_contestant() {
        let text = table(&[series("bare", &[20]), series("gateway", &[22])]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("1.100"), "{text}");
    }
}
