//! What a panic on the writer thread may cost: an enrichment, or the log's good standing, in plain sight.
//!
//! Owns the two guards. Must not repair anything: a bug stays a bug, and is counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use portcullis_model::{ClientIp, Location, Reason, RequestRecord};

use super::Enrich;
use super::stats::LogStats;

/// Asks another `Enrich`, and does without its answer when it panics: it reads what clients send, and
/// no client may end the log.
pub(super) struct Shielded {
    inner: Box<dyn Enrich>,
    stats: Arc<LogStats>,
}

impl Shielded {
    pub(super) fn new(inner: Box<dyn Enrich>, stats: Arc<LogStats>) -> Self {
        Self { inner, stats }
    }

    fn ask<T>(&mut self, question: impl FnOnce(&mut dyn Enrich) -> T, otherwise: T) -> T {
        // The panic hook has written where and why.
        catch_unwind(AssertUnwindSafe(|| question(self.inner.as_mut()))).unwrap_or_else(|_| {
            self.stats.enrichment_panics.fetch_add(1, Relaxed);
            otherwise
        })
    }
}

impl Enrich for Shielded {
    fn location(&mut self, client: ClientIp) -> Location {
        self.ask(|inner| inner.location(client), Location::default())
    }

    /// What nobody could judge is worth a look.
    fn is_suspicious(&mut self, record: &RequestRecord) -> bool {
        self.ask(|inner| inner.is_suspicious(record), true)
    }

    fn bound(&mut self, reason: &Reason) -> String {
        self.ask(|inner| inner.bound(reason), String::new())
    }
}

/// Lives as long as the writer's thread. When that ends by a panic, what waits is counted as lost and
/// the log counts as failing from then on.
pub(super) struct Alarm(pub(super) Arc<LogStats>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_failing.store(true, Relaxed);
            self.0.abandoned.fetch_add(self.0.queued(), Relaxed);
            tracing::error!("the log's writer thread has panicked: nothing is logged until the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_panics_leaves_a_failing_log_and_counts_what_waited() {
        let stats = Arc::new(LogStats::default());
        stats.accepted.fetch_add(7, Relaxed);
        stats.written.fetch_add(4, Relaxed);
        let alarm = Alarm(Arc::clone(&stats));
        let thread = std::thread::spawn(move || {
            let _alarm = alarm;
            panic!("a bug of the writer");
        });
        assert!(thread.join().is_err());
        assert!(stats.is_failing());
        assert_eq!((stats.queued(), stats.dropped()), (0, 3));
    }
}
