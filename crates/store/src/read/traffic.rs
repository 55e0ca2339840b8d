//! Sums of requests: verdicts, statuses, bytes, and how long they took.
//!
//! Owns the buckets of the latency histogram. Must not know where the requests come from.

use serde::{Serialize, Serializer};

use portcullis_model::VerdictKind;

use super::report::StatusCounts;
use super::row::Decoded;
use crate::log::latency::{BUCKETS, bucket_of, upper_us};
use crate::log::sums::Class;

/// Sums over requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    pub requests: u64,
    /// In the order of `VerdictKind::ALL`.
    pub verdicts: [u64; VerdictKind::ALL.len()],
    /// Answers by their status, those of the gateway itself included.
    pub statuses: StatusCounts,
    /// To sensitive paths, or refused.
    pub suspicious: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    #[serde(rename = "latency_us", serialize_with = "percentiles")]
    pub latencies: Latencies,
}

/// How long requests took, in buckets of at most a quarter of their lower end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    counts: Box<[u64; BUCKETS]>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]) }
    }
}

impl Latencies {
    fn add(&mut self, latency_us: u64) {
        self.counts[bucket_of(latency_us)] += 1;
    }

    pub(super) fn add_bucket(&mut self, bucket: usize, requests: u64) {
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += requests;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts.iter()).for_each(|(sum, count)| *sum += count);
    }

    /// The time within which this share of the requests was answered, in microseconds: the upper end of its
    /// bucket, so at most a quarter too long. `None` without requests.
    pub fn percentile(&self, share: f64) -> Option<u64> {
        let all: u64 = self.counts.iter().sum();
        let wanted = ((all as f64 * share).ceil() as u64).clamp(1, all.max(1));
        let mut seen = 0;
        self.counts
            .iter()
            .position(|count| {
                seen += count;
                seen >= wanted
            })
            .map(upper_us)
    }
}

fn percentiles<S: Serializer>(latencies: &Latencies, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Percentiles {
        p50: Option<u64>,
        p95: Option<u64>,
        p99: Option<u64>,
    }
    let at = |share| latencies.percentile(share);
    Percentiles { p50: at(0.5), p95: at(0.95), p99: at(0.99) }.serialize(serializer)
}

impl Traffic {
    /// Requests with this verdict.
    pub fn with_verdict(&self, verdict: VerdictKind) -> u64 {
        self.verdicts[verdict.index()]
    }

    /// Requests that the gateway answered itself.
    pub fn refused(&self) -> u64 {
        VerdictKind::ALL.into_iter().filter(|v| v.is_refusal()).map(|v| self.with_verdict(v)).sum()
    }

    /// So many requests of one class.
    pub(super) fn add_class(&mut self, class: Class, requests: u64) {
        self.requests += requests;
        self.verdicts[class.verdict.index()] += requests;
        self.statuses.add_many(class.status * 100, requests);
        if class.is_suspicious {
            self.suspicious += requests;
        }
    }

    pub(super) fn add_row(&mut self, row: &Decoded<'_>) {
        self.add_class(Class::of(row.shape.verdict, row.shape.status, row.shape.is_suspicious), 1);
        self.add_bytes(row.bytes_in, row.bytes_out);
        self.latencies.add(row.latency_us);
    }

    pub(super) fn add_bytes(&mut self, bytes_in: u64, bytes_out: u64) {
        self.bytes_in = self.bytes_in.saturating_add(bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(bytes_out);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.verdicts.iter_mut().zip(other.verdicts).for_each(|(sum, count)| *sum += count);
        self.statuses.merge(&other.statuses);
        self.suspicious += other.suspicious;
        self.add_bytes(other.bytes_in, other.bytes_out);
        self.latencies.merge(&other.latencies);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_upper_ends_of_their_buckets() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(0.5), None);
        for us in 1..=1_000 {
            latencies.add(us);
        }
        for (share, exact) in [(0.0, 1.0), (0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let got = latencies.percentile(share).unwrap() as f64;
            assert!(got >= exact && got <= exact * 1.25, "{share}: {got}");
        }
    }
}
