//! What limits have counted, kept in `limits.journal` of the data folder, so that it survives the end of the process.
//!
//! Owns the thread that writes what has changed, less than a second after it has, and the file's place in the life of
//! a gateway. No request waits for it; without it the gateway serves all the same. The file holds no address: windows
//! go by a hash whose key is in the file too, which is for the owner alone.

mod file;
mod format;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portcullis_policy::{Limiter, LiveState};
use portcullis_proxy::Clock;

use crate::sentence::sentence;

pub(crate) use file::FILE;
use file::Journal;

/// From one writing to the next: with the time that writing takes, less than a second.
const INTERVAL: Duration = Duration::from_millis(800);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);

/// For the metrics.
#[derive(Default)]
pub(crate) struct CountsStats {
    written: AtomicU64,
    is_failing: AtomicBool,
}

impl CountsStats {
    /// Bytes written since the start.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }
}

/// A limiter that counts on from where the last gateway on this folder ended, however that was.
pub(crate) fn load(data: &Path, clock: Clock) -> Limiter {
    file::load(data, clock).unwrap_or_default()
}

/// The thread that writes; ended when it is dropped, then without a last word.
pub(crate) struct Counts {
    data: PathBuf,
    live: Arc<LiveState>,
    clock: Clock,
    stats: Arc<CountsStats>,
    writing: Option<Writing>,
}

struct Writing {
    is_ending: Arc<AtomicBool>,
    thread: JoinHandle<Journal>,
}

impl Counts {
    /// Begins to write down what `live` counts. Without a thread nothing is written, which the log says.
    pub(crate) fn start(data: &Path, live: Arc<LiveState>, clock: Clock, stats: Arc<CountsStats>) -> Self {
        let mut counts = Self { data: data.to_owned(), live, clock, stats, writing: None };
        counts.resume();
        counts
    }

    /// Goes on after [`Counts::pause`].
    pub(crate) fn resume(&mut self) {
        if self.writing.is_some() {
            return;
        }
        let is_ending = Arc::new(AtomicBool::new(false));
        let (live, clock, stats) = (Arc::clone(&self.live), self.clock, Arc::clone(&self.stats));
        let (mut journal, end) = (Journal::new(&self.data), Arc::clone(&is_ending));
        let thread = std::thread::Builder::new().name("portcullis-counts".to_owned()).spawn(move || {
            write(&mut journal, &live.limiter, clock, &stats, &end);
            journal
        });
        match thread {
            Ok(thread) => self.writing = Some(Writing { is_ending, thread }),
            Err(error) => tracing::warn!("a restart will forget what limits have counted: {error}"),
        }
    }

    /// Writes nothing any more: another process is about to.
    pub(crate) fn pause(&mut self) {
        self.end();
    }

    /// Writes down everything for the next process, when no more requests come. Does nothing when paused.
    pub(crate) fn finish(mut self) {
        if let Some(mut journal) = self.end() {
            let written = journal.finish(&self.live.limiter, self.clock);
            report(written.map(|_| ()), &self.stats);
        }
    }

    fn end(&mut self) -> Option<Journal> {
        let Writing { is_ending, thread } = self.writing.take()?;
        is_ending.store(true, Ordering::Relaxed);
        thread.thread().unpark();
        // A panic has been printed by the panic hook.
        thread.join().ok()
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.end();
    }
}

fn write(
    journal: &mut Journal,
    limiter: &Limiter,
    clock: Clock,
    stats: &CountsStats,
    is_ending: &AtomicBool,
) {
    let mut next = Instant::now() + INTERVAL;
    while !is_ending.load(Ordering::Relaxed) {
        let wait = next.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::park_timeout(wait);
            continue;
        }
        let written = journal.write(limiter, clock);
        stats.written.fetch_add(*written.as_ref().unwrap_or(&0), Ordering::Relaxed);
        let is_good = report(written.map(|_| ()), stats);
        next = Instant::now() + if is_good { INTERVAL } else { RETRY };
    }
}

/// Says once that it fails, and once that it does not any more.
fn report(outcome: anyhow::Result<()>, stats: &CountsStats) -> bool {
    let was_failing = stats.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
    match &outcome {
        Ok(()) if was_failing => tracing::info!("what limits have counted is written down again"),
        Err(error) if !was_failing => {
            tracing::warn!("a restart will forget what limits have counted: {}", sentence(error));
        }
        Ok(()) | Err(_) => {}
    }
    outcome.is_ok()
}
