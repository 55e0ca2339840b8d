//! Counters of the edge: relaxed atomics on the request path, read by whoever renders them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;
use portcullis_model::{ConnectionLimit, MalformedKind, Reason, VerdictKind};

/// Upper bounds of the latency histogram's buckets, in microseconds; the last bucket has none.
pub const LATENCY_BUCKETS_US: [u64; 13] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// The headers that proxies name a client in, for [`EdgeMetrics::ignored_forwarding`].
pub const FORWARDING_HEADERS: [&str; 5] =
    ["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip"];

/// The classes of the answer's status, "none" being no answer at all.
pub const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The index of a status in [`CLASSES`].
fn class_index(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => usize::from(class),
        _ => 0,
    }
}

/// Rules that refusals are counted for, those of earlier configurations included; far more than one has.
const MAX_RULES: usize = 4_096;

/// A rule that refused, or would have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleCounter {
    /// What of it: `limit`, `burst`, `concurrency` or `access`.
    pub kind: &'static str,
    pub rule: Arc<str>,
    pub is_dry_run: bool,
}

/// All counters start at zero with the process.
#[derive(Default)]
pub struct EdgeMetrics {
    requests: [[AtomicU64; CLASSES.len()]; VerdictKind::ALL.len()],
    latency: [AtomicU64; LATENCY_BUCKETS_US.len() + 1],
    latency_sum_us: AtomicU64,
    connections: AtomicI64,
    ignored_forwarding: [AtomicU64; FORWARDING_HEADERS.len()],
    shed: [AtomicU64; ConnectionLimit::ALL.len()],
    dropped: AtomicU64,
    malformed: [AtomicU64; MalformedKind::ALL.len()],
    rules: RwLock<HashMap<RuleCounter, AtomicU64>>,
}

/// The histogram at one moment: counts per bucket, not cumulated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencySnapshot {
    pub counts: [u64; LATENCY_BUCKETS_US.len() + 1],
    pub sum_us: u64,
}

impl EdgeMetrics {
    /// How many requests ended with this verdict and this class of status.
    pub fn requests(&self, verdict: VerdictKind, class: usize) -> u64 {
        self.requests[verdict.index()][class].load(Ordering::Relaxed)
    }

    /// The time from the first byte of a request to the last of its answer.
    pub fn latency(&self) -> LatencySnapshot {
        LatencySnapshot {
            counts: std::array::from_fn(|n| self.latency[n].load(Ordering::Relaxed)),
            sum_us: self.latency_sum_us.load(Ordering::Relaxed),
        }
    }

    /// Connections from clients that are open now.
    pub fn connections(&self) -> u64 {
        u64::try_from(self.connections.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// How many requests came from a peer that is not trusted and named a client in this one of
    /// [`FORWARDING_HEADERS`]. Many of them mean that a proxy of the operator's own is not trusted.
    pub fn ignored_forwarding(&self, header: usize) -> u64 {
        self.ignored_forwarding[header].load(Ordering::Relaxed)
    }

    /// Counts a request under each of the headers that it has.
    pub(crate) fn forwarding_ignored(&self, headers: &http::HeaderMap) {
        // On every request: to look for each of the names would be to parse and hash it each time.
        for name in headers.keys() {
            if let Some(n) = FORWARDING_HEADERS.iter().position(|known| *known == name.as_str()) {
                self.ignored_forwarding[n].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Connections that were closed because there were too many.
    pub fn shed(&self, limit: ConnectionLimit) -> u64 {
        self.shed[limit as usize].load(Ordering::Relaxed)
    }

    /// Connections that were closed before the TLS handshake because their client is blocked.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What was refused as malformed, by why.
    pub fn malformed(&self, kind: MalformedKind) -> u64 {
        self.malformed[kind as usize].load(Ordering::Relaxed)
    }

    /// How many requests each rule refused, sorted.
    pub fn rules(&self) -> Vec<(RuleCounter, u64)> {
        let rules = self.rules.read();
        let mut all: Vec<_> =
            rules.iter().map(|(rule, count)| (rule.clone(), count.load(Ordering::Relaxed))).collect();
        all.sort_unstable();
        all
    }

    fn count_rule(&self, counter: RuleCounter) {
        if let Some(count) = self.rules.read().get(&counter) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut rules = self.rules.write();
        if rules.len() < MAX_RULES || rules.contains_key(&counter) {
            rules.entry(counter).or_default().fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_reason(&self, reason: &Reason, verdict: VerdictKind) {
        if let Some((kind, rule)) = reason.rule() {
            let is_dry_run = !verdict.is_refusal();
            self.count_rule(RuleCounter { kind, rule: Arc::clone(rule), is_dry_run });
        }
        match reason {
            Reason::Malformed(kind) => self.malformed[*kind as usize].fetch_add(1, Ordering::Relaxed),
            Reason::Connections(limit) => self.shed[*limit as usize].fetch_add(1, Ordering::Relaxed),
            Reason::None
            | Reason::Allow(_)
            | Reason::Block(_)
            | Reason::Feed(_)
            | Reason::Caught(_)
            | Reason::Limit(_)
            | Reason::SharedLimit(..)
            | Reason::Burst(_)
            | Reason::Concurrency(_)
            | Reason::Access(_)
            | Reason::Upstream(_)
            | Reason::Login(_) => 0,
        };
    }

    pub(crate) fn connection_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, verdict: VerdictKind, status: u16, latency_us: u64) {
        self.requests[verdict.index()][class_index(status)].fetch_add(1, Ordering::Relaxed);
        let bucket = LATENCY_BUCKETS_US.partition_point(|&bound| bound < latency_us);
        self.latency[bucket].fetch_add(1, Ordering::Relaxed);
        self.latency_sum_us.fetch_add(latency_us, Ordering::Relaxed);
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
