//! How a client's requests lie in time: bursts, the busiest hour, gaps. Bounded, one pass, and tolerant
//! of slightly unordered input, because the log is written when requests end.

const BURST_SECONDS: usize = 10;
const HOUR_MINUTES: usize = 60;
const GAP_BUCKETS: usize = 24;

/// The most requests within any [`BURST_SECONDS`] consecutive seconds of the clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Burst {
    ring: Ring<BURST_SECONDS>,
}

impl Burst {
    pub(crate) fn add(&mut self, time_ms: i64) {
        self.ring.add(time_ms.div_euclid(1_000));
    }

    pub(crate) fn largest(&self) -> u32 {
        self.ring.largest
    }

    /// Takes the larger of both; what lies across the seam is not seen together.
    pub(crate) fn join(&mut self, other: &Self) {
        self.ring.largest = self.ring.largest.max(other.ring.largest);
    }
}

/// The most requests within any 60 consecutive minutes of the clock: never more than a sliding hour
/// holds, and less than it by at most what the hour's first minute holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct BusiestHour {
    ring: Ring<HOUR_MINUTES>,
}

impl BusiestHour {
    pub(crate) fn add(&mut self, time_ms: i64) {
        self.ring.add(time_ms.div_euclid(60_000));
    }

    pub(crate) fn largest(&self) -> u32 {
        self.ring.largest
    }
}

#[derive(Clone, Debug)]
struct Ring<const N: usize> {
    newest: i64,
    counts: [u16; N],
    sum: u32,
    largest: u32,
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self { newest: i64::MIN / 2, counts: [0; N], sum: 0, largest: 0 }
    }
}

impl<const N: usize> Ring<N> {
    fn add(&mut self, slot: i64) {
        let span = N as i64;
        if slot <= self.newest - span {
            return;
        }
        if slot >= self.newest + span {
            self.counts = [0; N];
            self.sum = 0;
            self.newest = slot;
        }
        while self.newest < slot {
            self.newest += 1;
            let gone = &mut self.counts[self.newest.rem_euclid(span) as usize];
            self.sum -= u32::from(*gone);
            *gone = 0;
        }
        let count = &mut self.counts[slot.rem_euclid(span) as usize];
        if *count < u16::MAX {
            *count += 1;
            self.sum += 1;
        }
        self.largest = self.largest.max(self.sum);
    }
}

/// The gaps between consecutive requests, as a histogram of powers of two of milliseconds, with their
/// mean and spread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps {
    buckets: [u16; GAP_BUCKETS],
    count: u32,
    sum_seconds: f64,
    sum_squares: f64,
}

impl Gaps {
    pub(crate) fn add(&mut self, gap_ms: i64) {
        let gap = u64::try_from(gap_ms).unwrap_or(0);
        let bucket = (u64::BITS - gap.leading_zeros()) as usize;
        let counted = &mut self.buckets[bucket.min(GAP_BUCKETS - 1)];
        *counted = counted.saturating_add(1);
        self.count = self.count.saturating_add(1);
        let seconds = gap as f64 / 1_000.0;
        self.sum_seconds += seconds;
        self.sum_squares += seconds * seconds;
    }

    /// The median gap in seconds, interpolated within its power of two; zero without gaps.
    pub(crate) fn median_seconds(&self) -> f64 {
        // Not `count`: a bucket that is full counts no further.
        let half = self.buckets.iter().map(|&count| f64::from(count)).sum::<f64>() / 2.0;
        let mut before = 0.0;
        for (n, &count) in self.buckets.iter().enumerate() {
            let count = f64::from(count);
            if count > 0.0 && before + count >= half {
                let share = (half - before) / count;
                let low = if n == 0 { 0.0 } else { 2f64.powi(n as i32 - 1) };
                let high = if n == 0 { 1.0 } else { 2f64.powi(n as i32) };
                return (low + share * (high - low)) / 1_000.0;
            }
            before += count;
        }
        0.0
    }

    /// Standard deviation over mean: near 0 for a clockwork, about 1 for random arrivals.
    pub(crate) fn unevenness(&self) -> f64 {
        if self.count == 0 || self.sum_seconds <= 0.0 {
            return f64::INFINITY;
        }
        let n = f64::from(self.count);
        let mean = self.sum_seconds / n;
        (self.sum_squares / n - mean * mean).max(0.0).sqrt() / mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_slides_and_forgets() {
        let mut burst = Burst::default();
        for second in 0..30 {
            burst.add(second * 1_000);
        }
        assert_eq!(burst.largest(), 10);
        for _ in 0..25 {
            burst.add(100_000);
        }
        assert_eq!(burst.largest(), 25);
        burst.add(5);
        assert_eq!(burst.largest(), 25);
    }

    #[test]
    fn the_busiest_hour_never_counts_more_than_an_hour() {
        let mut hour = BusiestHour::default();
        for minute in 0..600 {
            hour.add(minute * 60_000);
            hour.add(minute * 60_000 + 30_000);
        }
        assert_eq!(hour.largest(), 120);
    }

    #[test]
    fn slightly_unordered_times_are_counted() {
        let mut burst = Burst::default();
        for second in [5, 3, 6, 1, 7] {
            burst.add(second * 1_000);
        }
        assert_eq!(burst.largest(), 5);
    }

    #[test]
    fn clockwork_is_told_from_people() {
        let (mut clock, mut person) = (Gaps::default(), Gaps::default());
        for n in 0..60 {
            clock.add(60_000 + n % 3);
            person.add(if n % 5 == 0 { 90_000 } else { 700 });
        }
        assert!(clock.unevenness() < 0.1 && person.unevenness() > 1.0);
        assert!((32.0..66.0).contains(&clock.median_seconds()), "{}", clock.median_seconds());
        assert!((0.5..1.1).contains(&person.median_seconds()));
        assert_eq!(Gaps::default().median_seconds(), 0.0);
    }
}
