//! The request log: what the gateway's other parts hold of it.
//!
//! Owns the hand-over from the request path to the writer thread. Must never make a request wait.

mod batch;
mod erase;
mod intern;
mod late;
pub(crate) mod latency;
mod limit_events;
mod panics;
mod retention;
mod scrub;
pub(crate) mod slice;
mod stats;
pub(crate) mod sums;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use portcullis_model::{ClientIp, Location, Reason, RequestRecord};

pub use erase::ErasedFromLog;
pub(crate) use intern::MAX_STRINGS;
pub use scrub::FieldRetention;
pub use stats::LogStats;

use crate::error::StoreError;
use crate::subject::Subject;
use panics::{Alarm, Shielded};
use writer::{Control, Writer};

/// Orders that may wait for the writer; those who give more of them wait.
const MAX_ORDERS: usize = 64;
/// Text that may wait for the writer, in bytes: long paths and headers must not turn a queue that is
/// bounded by its length into hundreds of megabytes while the database fails.
const MAX_QUEUED_BYTES: u64 = 64 << 20;
/// How long a flush may take: longer than any back-off of the writer.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an erasure may take: it goes through the whole log, and requests are written in between.
const ERASE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long the writer may take to let go of the database, or to take it back.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How long a request stays in the log. It goes with its whole slice, at most 1/64 later.
    pub retention: Duration,
    /// The size that log.db and its write-ahead log may reach together, in bytes; sensible from
    /// 32 MiB. The oldest slices go first.
    pub max_bytes: u64,
    /// Requests that may wait for the writer; takes effect at the next start.
    pub queue: usize,
    /// How long kinds of fields are kept. They go with a whole slice, so a little later.
    pub fields: FieldRetention,
    /// How long a request may wait for others to be committed with it. A crash loses no more than this.
    pub flush_interval: Duration,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(30 * 24 * 60 * 60),
            max_bytes: 10 << 30,
            queue: 65_536,
            fields: FieldRetention::default(),
            flush_interval: Duration::from_millis(250),
        }
    }
}

/// What the writer thread asks of others about a request that it is about to store. A panic costs the
/// answer alone: the row is stored without a place, or marked.
pub trait Enrich: Send {
    /// Where the client is. Asked once per client and slice.
    fn location(&mut self, client: ClientIp) -> Location;
    /// Whether the row is marked. Asked for each request.
    fn is_suspicious(&mut self, record: &RequestRecord) -> bool;
    /// What of a limit was used up, in short, such as `3/5m`; empty when it is not known. Asked for each request that
    /// a limit met.
    fn bound(&mut self, _reason: &Reason) -> String {
        String::new()
    }
}

/// Knows no places and suspects nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEnrichment;

impl Enrich for NoEnrichment {
    fn location(&mut self, _: ClientIp) -> Location {
        Location::default()
    }

    fn is_suspicious(&mut self, _: &RequestRecord) -> bool {
        false
    }
}

/// The owner of the writer thread. Dropping it ends the log as [`Log::shutdown`] does.
#[derive(Debug)]
pub struct Log {
    recorder: Recorder,
    /// The queue's other end, for a log whose database another process writes.
    waiting: Receiver<RequestRecord>,
    control: Sender<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    /// Opens or creates `DIR/log.db` and starts the writer thread, `portcullis-log`. A damaged database
    /// is moved aside and a new one begun.
    ///
    /// # Errors
    /// The folder cannot be written, another process writes this log, a newer version wrote it, or
    /// SQLite fails.
    pub fn start(dir: &Path, settings: LogSettings, enrich: Box<dyn Enrich>) -> Result<Self, StoreError> {
        let stats = Arc::new(LogStats::default());
        let (records, incoming) = bounded(settings.queue.max(1));
        let (control, orders) = bounded(MAX_ORDERS);
        let waiting = incoming.clone();
        let enrich = Box::new(Shielded::new(enrich, Arc::clone(&stats)));
        let writer = Writer::open(dir, settings, enrich, incoming, orders, Arc::clone(&stats))?;
        let alarm = Alarm(Arc::clone(&stats));
        let name = "portcullis-log";
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alarm = alarm;
                writer.run();
            })
            .map_err(|source| StoreError::Thread { name, source })?;
        Ok(Self { recorder: Recorder { records, stats }, waiting, control, thread: Some(thread) })
    }

    /// The handle through which requests are offered.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// The log's figures.
    pub fn stats(&self) -> Arc<LogStats> {
        Arc::clone(&self.recorder.stats)
    }

    /// The handle through which others wait for what they offered to be committed.
    pub fn flusher(&self) -> Flusher {
        Flusher { control: self.control.clone() }
    }

    /// The handle through which locations are handed in that were not known in time.
    pub fn locator(&self) -> Locator {
        Locator { control: self.control.clone() }
    }

    /// Changes retention, size and flush interval while running, and enforces them at once.
    pub fn apply(&self, settings: &LogSettings) {
        // The writer only goes away with this value.
        let _ = self.control.send(Control::Apply(settings.clone()));
    }

    /// Commits what waits, then closes the database and gives up the lock, so that another process can
    /// write this log. Requests are taken as before; they wait in the queue for [`Log::resume`] or
    /// [`Log::hand_over`].
    ///
    /// # Errors
    /// The database fails or does not answer in time: the log goes on as if nothing had been asked.
    pub fn release(&self) -> Result<(), StoreError> {
        self.order(Control::Release)
    }

    /// Takes a released log back, with what waits in the queue.
    ///
    /// # Errors
    /// Another process writes this log, or it cannot be opened: it stays released.
    pub fn resume(&self) -> Result<(), StoreError> {
        self.order(Control::Resume)
    }

    /// The handle through which others erase a person's data. It does not keep the log from ending.
    pub fn eraser(&self) -> Eraser {
        Eraser { control: self.control.clone() }
    }

    fn order(&self, order: impl FnOnce(Sender<Result<(), StoreError>>) -> Control) -> Result<(), StoreError> {
        let timeout = || StoreError::HandoverTimeout { seconds: HANDOVER_TIMEOUT.as_secs() };
        let (done, is_done) = bounded(1);
        self.control.send_timeout(order(done), HANDOVER_TIMEOUT).map_err(|_| timeout())?;
        is_done.recv_timeout(HANDOVER_TIMEOUT).map_err(|_| timeout())?
    }

    /// Gives the requests that wait in the queue of a released log to `send`, until none has come for
    /// `patience`. Returns whether `send` took them all; the one that it did not take is lost and counted,
    /// the others go on waiting.
    pub fn hand_over(&self, patience: Duration, send: &mut dyn FnMut(&RequestRecord) -> bool) -> bool {
        let stats = &self.recorder.stats;
        loop {
            let record = match self.waiting.recv_timeout(patience) {
                Ok(record) => record,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return true,
            };
            stats.queued_bytes.fetch_sub(text_bytes(&record), Relaxed);
            if !send(&record) {
                stats.abandoned.fetch_add(1, Relaxed);
                return false;
            }
            stats.handed_over.fetch_add(1, Relaxed);
        }
    }

    /// Commits what waits, empties the write-ahead log, and ends the thread. With a database that
    /// fails, gives up after five seconds and counts what is lost.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let _ = self.control.send(Control::Stop);
        if thread.join().is_err() {
            tracing::error!("the log's writer thread panicked; see above");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Takes requests from the request path; cheap to clone, used by all threads.
#[derive(Clone, Debug)]
pub struct Recorder {
    records: Sender<RequestRecord>,
    stats: Arc<LogStats>,
}

impl Recorder {
    /// Hands a request over to the writer. Never waits: with a full queue the request is dropped and
    /// counted, and the answer is `false`.
    pub fn offer(&self, record: RequestRecord) -> bool {
        let bytes = text_bytes(&record);
        let waiting = self.stats.queued_bytes.fetch_add(bytes, Relaxed);
        if waiting + bytes <= MAX_QUEUED_BYTES && self.records.try_send(record).is_ok() {
            self.stats.accepted.fetch_add(1, Relaxed);
            return true;
        }
        self.stats.queued_bytes.fetch_sub(bytes, Relaxed);
        self.stats.refused.fetch_add(1, Relaxed);
        false
    }
}

fn text_bytes(record: &RequestRecord) -> u64 {
    let text = &record.text;
    let fields = [
        text.method(),
        text.host(),
        text.path(),
        text.query(),
        text.user_agent(),
        text.referer(),
        text.user(),
    ];
    fields.map(|field| field.len() as u64).iter().sum()
}

/// Erases people's data.
#[derive(Clone, Debug)]
pub struct Eraser {
    control: Sender<Control>,
}

impl Eraser {
    /// Erases the subject's requests, and whatever else the log holds of it. Requests are written meanwhile, also new
    /// ones of the subject. Waits until it is done.
    ///
    /// # Errors
    /// The database fails, or the log ends or belongs to another process: a part may be erased already.
    pub fn erase(&self, subject: Subject) -> Result<ErasedFromLog, StoreError> {
        let timeout = || StoreError::EraseTimeout { seconds: ERASE_TIMEOUT.as_secs() };
        let (done, is_done) = bounded(1);
        self.control.send_timeout(Control::Erase(subject, done), FLUSH_TIMEOUT).map_err(|_| timeout())?;
        is_done.recv_timeout(ERASE_TIMEOUT).map_err(|_| timeout())?
    }
}

/// Waits for commits.
#[derive(Clone, Debug)]
pub struct Flusher {
    control: Sender<Control>,
}

impl Flusher {
    /// Returns when everything that was offered before is committed and can be read.
    ///
    /// # Errors
    /// The database fails or is locked for half a minute, or the log has been shut down.
    pub fn flush(&self) -> Result<(), StoreError> {
        let timeout = || StoreError::FlushTimeout { seconds: FLUSH_TIMEOUT.as_secs() };
        let (done, is_done) = bounded(1);
        self.control.send_timeout(Control::Flush(done), FLUSH_TIMEOUT).map_err(|_| timeout())?;
        is_done.recv_timeout(FLUSH_TIMEOUT).map_err(|_| timeout())
    }
}

/// Hands in locations that were not known when the row was written.
#[derive(Clone, Debug)]
pub struct Locator {
    control: Sender<Control>,
}

impl Locator {
    /// Puts the client's rows of the last day or so to where it is: those of the open slice and of the few
    /// before it. Never waits; `false` when the writer has too much to do, and the caller may try again.
    pub fn locate(&self, client: ClientIp, location: &Location) -> bool {
        self.control.try_send(Control::Locate(client, Box::new(location.clone()))).is_ok()
    }
}
