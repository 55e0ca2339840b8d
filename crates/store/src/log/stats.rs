//! The log's own figures, for the metrics.
//!
//! Owns the counters. Must not take locks: the request path increments them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Shared by all recorders, the writer and whoever reads the figures. At rest, what was offered is
/// `queued() + written() + handed_over() + dropped()`.
#[derive(Debug, Default)]
pub struct LogStats {
    pub(crate) accepted: AtomicU64,
    /// Text of the requests that wait, in bytes.
    pub(crate) queued_bytes: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    pub(crate) handed_over: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) write_errors: AtomicU64,
    pub(crate) limit_events_dropped: AtomicU64,
    pub(crate) enrichment_panics: AtomicU64,
    pub(crate) slices: AtomicU64,
    pub(crate) bytes_on_disk: AtomicU64,
    pub(crate) last_commit_ms: AtomicU64,
    pub(crate) is_failing: AtomicBool,
}

impl LogStats {
    /// Requests that wait to be committed.
    pub fn queued(&self) -> u64 {
        let done = self.written() + self.abandoned.load(Relaxed) + self.handed_over();
        self.accepted.load(Relaxed).saturating_sub(done)
    }

    /// Requests that another process was given to write.
    pub fn handed_over(&self) -> u64 {
        self.handed_over.load(Relaxed)
    }

    /// Requests committed since the start.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Requests lost since the start: the queue was full, or the gateway ended while the database
    /// was failing, or the writer panicked.
    pub fn dropped(&self) -> u64 {
        self.refused.load(Relaxed) + self.abandoned.load(Relaxed)
    }

    /// Attempts to write that failed; each is repeated.
    pub fn write_errors(&self) -> u64 {
        self.write_errors.load(Relaxed)
    }

    /// Limit events that did not fit into their bounds or could not be written.
    pub fn limit_events_dropped(&self) -> u64 {
        self.limit_events_dropped.load(Relaxed)
    }

    /// Questions about a row that ended in a panic; the row was stored without the answer.
    pub fn enrichment_panics(&self) -> u64 {
        self.enrichment_panics.load(Relaxed)
    }

    /// Time slices in the log.
    pub fn slices(&self) -> u64 {
        self.slices.load(Relaxed)
    }

    /// The size of log.db and its write-ahead log.
    pub fn bytes_on_disk(&self) -> u64 {
        self.bytes_on_disk.load(Relaxed)
    }

    /// When the last batch was committed, in milliseconds since 1970; 0 before the first.
    pub fn last_commit_ms(&self) -> u64 {
        self.last_commit_ms.load(Relaxed)
    }

    /// Whether the last attempt to write failed.
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Relaxed)
    }
}
