//! The writer thread: drains the queue, commits batches, retries what fails, rolls and drops slices.
//!
//! Owns the only connection that writes log.db. Must not lose a request without counting it, nor
//! write one twice.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, select};
use rusqlite::{Connection, TransactionBehavior};

use portcullis_model::{ClientIp, Location, RequestRecord, UnixMs};

use super::batch::LiveSlice;
use super::erase::{self, ErasedFromLog};
use super::late::{self, Late};
use super::limit_events::{LimitEvents, WRITE_INTERVAL};
use super::scrub;
use super::stats::LogStats;
use super::sums;
use super::{Enrich, LogSettings, retention, slice, text_bytes};
use crate::error::{StoreError, sqlite_error};
use crate::folder::{self, LOG_FILE, WriterPragmas};
use crate::subject::Subject;

/// Requests in one transaction at most.
const MAX_BATCH: usize = 16_384;
/// Statements that stay prepared: all that a batch needs.
const MAX_STATEMENTS: usize = 48;
/// How often the open batch looks at the queue, unless the flush interval is shorter. Waiting on the
/// queue itself would mean a wake-up of this thread for each request.
const DRAIN_INTERVAL: Duration = Duration::from_millis(25);
/// How often age is looked at when nothing else happens.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);
/// After it has failed.
const MAINTENANCE_RETRY: Duration = Duration::from_secs(5);
/// After the start, which must not wait for the indexes that an earlier process left to be built.
const FIRST_MAINTENANCE: Duration = Duration::from_secs(5);
/// Waits between attempts of a commit that fails: doubling, and at most a second, so that logging is
/// back well within ten seconds of the cause ending.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const MAX_BACK_OFF: Duration = Duration::from_secs(1);
/// How long a running writer waits for a lock before the attempt counts as failed.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a shutdown goes on trying to commit.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);
/// Indexing and shrinking stop the writing for a while; they start only with a queue emptier than this part.
const QUIET_PART: usize = 16;
/// Pages given back to the file system in one step (4 KiB each).
const VACUUM_PAGES: u32 = 4_096;
/// Free pages are kept for new rows unless they are more than this part of the file.
const FREE_PART: u64 = 8;

/// `auto_vacuum` must be set before the first table; it lets the file shrink when slices go.
const PRAGMAS: WriterPragmas = WriterPragmas {
    pragmas: "PRAGMA auto_vacuum = INCREMENTAL;
              PRAGMA journal_mode = WAL;
              PRAGMA synchronous = NORMAL;
              PRAGMA secure_delete = FAST;
              PRAGMA cache_size = -8192;",
    busy_timeout: folder::BUSY_TIMEOUT,
};

/// What others ask of the writer.
pub(super) enum Control {
    /// Answer when everything in the queue is committed.
    Flush(Sender<()>),
    Apply(LogSettings),
    /// Where a client is whose rows are stored already.
    Locate(ClientIp, Box<Location>),
    /// Erase a person's data.
    Erase(Subject, Sender<Result<ErasedFromLog, StoreError>>),
    /// Commit what waits, close the database and give up the lock.
    Release(Sender<Result<(), StoreError>>),
    /// Open the released database again.
    Resume(Sender<Result<(), StoreError>>),
    Stop,
}

/// The open database and what is known of it; made anew after a failure.
struct Database {
    connection: Connection,
    live: LiveSlice,
    /// Which file this is: somebody may move or delete it under the running gateway.
    identity: Option<(u64, u64)>,
    /// What the live slice takes on disk, by the growth of the file.
    live_bytes: u64,
}

/// Where an attempt to write a batch failed.
enum Failure {
    BeforeBegin(StoreError),
    Within(StoreError),
}

/// An erasure that is under way, a slice at a time.
struct Erasing {
    subject: Subject,
    /// The slices that are left, the live one at the beginning.
    slices: Vec<i64>,
    erased: ErasedFromLog,
    done: Sender<Result<ErasedFromLog, StoreError>>,
}

/// A commit whose outcome is not known.
struct InDoubt {
    slice: i64,
    rows_before: i64,
}

pub(super) struct Writer {
    path: PathBuf,
    settings: LogSettings,
    enrich: Box<dyn Enrich>,
    records: Receiver<RequestRecord>,
    orders: Receiver<Control>,
    stats: Arc<LogStats>,
    database: Option<Database>,
    batch: Vec<RequestRecord>,
    in_doubt: Option<InDoubt>,
    /// The open database turned out to be damaged; it is moved aside before the next attempt.
    is_damaged: bool,
    failing_since: Option<Instant>,
    /// Locations that wait for a commit.
    late: Vec<Late>,
    /// Who has asked first is served first.
    erasing: VecDeque<Erasing>,
    limit_events: LimitEvents,
    limit_events_due: Instant,
    maintenance_due: Instant,
    waiting: Vec<Sender<()>>,
    stop_by: Option<Instant>,
    /// Whoever waits for the database to be free.
    release: Option<Sender<Result<(), StoreError>>>,
    /// Keeps a second gateway out; `None` while another process has the log.
    lock: Option<File>,
}

impl Writer {
    pub(super) fn open(
        dir: &Path,
        settings: LogSettings,
        enrich: Box<dyn Enrich>,
        records: Receiver<RequestRecord>,
        orders: Receiver<Control>,
        stats: Arc<LogStats>,
    ) -> Result<Self, StoreError> {
        folder::prepare(dir)?;
        let lock = folder::lock_log(dir)?;
        let path = dir.join(LOG_FILE);
        let database = Some(open_or_replace(&path)?);
        let now = Instant::now();
        let writer = Self {
            path,
            settings,
            enrich,
            records,
            orders,
            stats,
            database,
            batch: Vec::with_capacity(MAX_BATCH),
            in_doubt: None,
            late: Vec::new(),
            erasing: VecDeque::new(),
            limit_events: LimitEvents::new(dir),
            limit_events_due: now,
            maintenance_due: now + FIRST_MAINTENANCE,
            is_damaged: false,
            failing_since: None,
            waiting: Vec::new(),
            stop_by: None,
            release: None,
            lock: Some(lock),
        };
        writer.tune_wal();
        writer.count_slices()?;
        Ok(writer)
    }

    /// How far the write-ahead log grows before it is emptied, in proportion to the log. SQLite's own
    /// values stand when this fails.
    fn tune_wal(&self) {
        let Some(Database { connection, .. }) = &self.database else { return };
        let bytes = retention::wal_checkpoint_bytes(&self.settings);
        let pages = bytes / page_bytes(connection);
        let tuned = connection.execute_batch(&format!(
            "PRAGMA wal_autocheckpoint = {pages}; PRAGMA journal_size_limit = {bytes}"
        ));
        if let Err(error) = tuned {
            tracing::warn!(%error, "the write-ahead log keeps its default size");
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.write_until_told();
            if self.stop_by.is_some() {
                return self.finish();
            }
            if self.let_go() && !self.rest() {
                return self.abandon_queue();
            }
        }
    }

    fn write_until_told(&mut self) {
        while self.stop_by.is_none() && self.release.is_none() {
            self.wait();
            self.fill_batch();
            self.commit_batch();
            self.write_late();
            self.write_limit_events();
            self.maintain_when_due();
            self.answer();
            self.erase_when_asked();
        }
    }

    /// Gives the database up to another process. False when it cannot be written to the end.
    fn let_go(&mut self) -> bool {
        self.drain();
        self.commit_batch();
        self.answer();
        // A commit that failed has refused it already.
        let Some(done) = self.release.take() else { return false };
        self.write_limit_events();
        // Closing it empties the write-ahead log.
        self.database = None;
        self.lock = None;
        // Whoever asked may have stopped waiting; then nobody will say what is next.
        if done.send(Ok(())).is_err() {
            return self.take_back().is_err();
        }
        true
    }

    /// Waits without a database. True when it is this process's again.
    fn rest(&mut self) -> bool {
        while let Ok(order) = self.orders.recv() {
            match order {
                Control::Resume(done) => {
                    let result = self.take_back();
                    let is_back = result.is_ok();
                    let _ = done.send(result);
                    if is_back {
                        return true;
                    }
                }
                Control::Release(done) => {
                    let _ = done.send(Ok(()));
                }
                // Nothing can be committed; the asker hears of it when its channel is dropped.
                Control::Flush(done) => drop(done),
                Control::Apply(settings) => self.settings = settings,
                // The process that writes now asks for itself.
                Control::Locate(..) => {}
                Control::Erase(_, done) => {
                    let dir = self.path.parent().unwrap_or(Path::new("."));
                    let _ = done.send(Err(StoreError::InUse(dir.to_path_buf())));
                }
                Control::Stop => return false,
            }
        }
        false
    }

    fn take_back(&mut self) -> Result<(), StoreError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let lock = folder::lock_log(dir)?;
        self.database = Some(open_or_replace(&self.path)?);
        self.lock = Some(lock);
        self.tune_wal();
        self.count_slices()
    }

    /// Nobody will write what still waits.
    fn abandon_queue(&mut self) {
        self.batch.extend(self.records.try_iter());
        self.abandon();
    }

    /// Sleeps until there is something to do; an idle log wakes up once a minute.
    fn wait(&mut self) {
        if !self.waiting.is_empty() || !self.erasing.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut due = self.maintenance_due;
        if !self.limit_events.is_empty() {
            due = due.min(self.limit_events_due);
        }
        select! {
            recv(self.records) -> record => self.batch.extend(record),
            recv(self.orders) -> order => self.take(order.unwrap_or(Control::Stop)),
            default(due.saturating_duration_since(now)) => {}
        }
    }

    fn take(&mut self, order: Control) {
        match order {
            Control::Flush(done) => self.waiting.push(done),
            Control::Apply(settings) => {
                self.settings = settings;
                self.tune_wal();
                self.maintenance_due = Instant::now();
            }
            Control::Locate(client, location) => {
                if self.late.len() < late::MAX_WAITING {
                    self.late.push((client, *location));
                }
            }
            Control::Erase(subject, done) => self.begin_erasing(subject, done),
            Control::Release(done) => self.release = Some(done),
            Control::Resume(done) => {
                let _ = done.send(Ok(()));
            }
            Control::Stop => self.stop_by = Some(Instant::now() + SHUTDOWN_PATIENCE),
        }
    }

    /// Gathers requests until the batch is full, the flush interval is over, or somebody gives an order.
    fn fill_batch(&mut self) {
        self.drain();
        let until = Instant::now() + self.settings.flush_interval;
        while !self.batch.is_empty()
            && self.batch.len() < MAX_BATCH
            && self.waiting.is_empty()
            && self.erasing.is_empty()
            && self.release.is_none()
            && self.stop_by.is_none()
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if let Ok(order) = self.orders.recv_timeout(left.min(DRAIN_INTERVAL)) {
                self.take(order);
            }
            self.drain();
        }
    }

    fn drain(&mut self) {
        let room = MAX_BATCH.saturating_sub(self.batch.len());
        self.batch.extend(self.records.try_iter().take(room));
    }

    /// Commits the batch, trying again until it succeeds or a shutdown loses patience.
    fn commit_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut back_off = FIRST_BACK_OFF;
        while let Err(error) = self.try_commit() {
            self.note_failure(&error);
            if self.stop_by.is_some_and(|by| Instant::now() >= by) {
                self.abandon();
                return;
            }
            if let Some(done) = self.release.take() {
                let _ = done.send(Err(error));
            }
            if let Ok(order) = self.orders.recv_timeout(back_off) {
                self.take(order);
            }
            back_off = (back_off * 2).min(MAX_BACK_OFF);
        }
        self.note_recovery();
    }

    fn note_recovery(&mut self) {
        self.stats.is_failing.store(false, Relaxed);
        if let Some(since) = self.failing_since.take() {
            let dropped = self.stats.dropped();
            tracing::info!(after = ?since.elapsed(), dropped, "the log can be written again");
        }
    }

    fn note_failure(&mut self, error: &StoreError) {
        self.stats.write_errors.fetch_add(1, Relaxed);
        self.is_damaged |= error.is_damage();
        self.stats.is_failing.store(true, Relaxed);
        if self.failing_since.is_none() {
            tracing::warn!(%error, "the log cannot be written; traffic goes on, trying again");
            self.failing_since = Some(Instant::now());
        }
    }

    fn abandon(&mut self) {
        self.stats.abandoned.fetch_add(self.batch.len() as u64, Relaxed);
        self.clear_batch();
        self.in_doubt = None;
    }

    fn try_commit(&mut self) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.reopen_if_needed()?;
        self.settle_doubt()?;
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bound_wal()?;
        self.roll_if_full()?;
        self.append_and_commit()?;
        self.count_commit();
        self.bound_bytes()
    }

    fn reopen_if_needed(&mut self) -> Result<(), StoreError> {
        let moved = |database: &Database| database.identity != folder::identity(&self.path);
        if self.database.as_ref().is_some_and(moved) {
            tracing::warn!(path = %self.path.display(), "the log was moved or deleted; beginning a new one");
            self.database = None;
        }
        if self.is_damaged {
            self.database = None;
            replace(&self.path)?;
            self.is_damaged = false;
        }
        if self.database.is_none() {
            self.database = Some(open_or_replace(&self.path)?);
            self.tune_wal();
        }
        Ok(())
    }

    /// After a commit that reported an error: did it take effect after all?
    fn settle_doubt(&mut self) -> Result<(), StoreError> {
        let Some(doubt) = self.in_doubt.take() else { return Ok(()) };
        let Some(database) = &self.database else { return Ok(()) };
        let stored = match slice::get(&database.connection, doubt.slice) {
            Ok(stored) => stored,
            Err(source) => {
                self.in_doubt = Some(doubt);
                return Err(sqlite_error(&self.path, "reading the slices")(source));
            }
        };
        if stored.is_some_and(|slice| slice.rows > doubt.rows_before) {
            self.count_commit();
        }
        Ok(())
    }

    fn append_and_commit(&mut self) -> Result<(), StoreError> {
        let Some(mut database) = self.database.take() else { return Ok(()) };
        match self.append_to(&mut database) {
            // Nothing has happened yet, so what is known of the database still holds.
            Err(Failure::BeforeBegin(error)) if is_busy(&error) => {
                self.database = Some(database);
                Err(error)
            }
            // The numbers given out in the transaction are void with it: open the database anew.
            Err(Failure::BeforeBegin(error) | Failure::Within(error)) => Err(error),
            Ok(()) => {
                self.database = Some(database);
                Ok(())
            }
        }
    }

    fn append_to(&mut self, database: &mut Database) -> Result<(), Failure> {
        let Database { connection, live, live_bytes, .. } = database;
        let pages_before = used_pages(connection).unwrap_or(0);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(sqlite_error(&self.path, "beginning a batch"))
            .map_err(Failure::BeforeBegin)?;
        let (slice, rows_before) = (live.slice.id, live.slice.rows);
        live.append(&transaction, &self.batch, self.enrich.as_mut())
            .map_err(sqlite_error(&self.path, "writing a batch"))
            .map_err(Failure::Within)?;
        self.in_doubt = Some(InDoubt { slice, rows_before });
        transaction
            .commit()
            .map_err(sqlite_error(&self.path, "committing a batch"))
            .map_err(Failure::Within)?;
        self.in_doubt = None;
        let grown = used_pages(connection).unwrap_or(0).saturating_sub(pages_before);
        *live_bytes += grown * page_bytes(connection);
        Ok(())
    }

    /// Writes the locations that came late. What fails is tried again.
    fn write_late(&mut self) {
        if self.late.is_empty() || self.stop_by.is_some() {
            return;
        }
        match self.reopen_if_needed().and_then(|()| self.try_write_late()) {
            Ok(()) => {
                self.late.clear();
                self.note_recovery();
            }
            Err(error) => {
                self.note_failure(&error);
                self.maintenance_due = Instant::now() + MAINTENANCE_RETRY;
            }
        }
    }

    fn try_write_late(&mut self) -> Result<(), StoreError> {
        let slices = self.slices()?;
        let sealed = slices.iter().rev().filter(|slice| slice.is_sealed).take(late::SLICES - 1);
        let sealed: Vec<i64> = sealed.map(|slice| slice.id).collect();
        // The numbers given out in a transaction that fails are void with it: the database is opened anew.
        let Some(mut database) = self.database.take() else { return Ok(()) };
        let error = || sqlite_error(&self.path, "writing late locations");
        let Database { connection, live, .. } = &mut database;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error())?;
        late::write(&transaction, live, &sealed, &self.late).map_err(error())?;
        transaction.commit().map_err(error())?;
        self.database = Some(database);
        Ok(())
    }

    /// Everything that has been offered is written first: also what the queue holds of the subject has to go.
    fn begin_erasing(&mut self, subject: Subject, done: Sender<Result<ErasedFromLog, StoreError>>) {
        let (flushed, _) = crossbeam_channel::bounded(1);
        self.waiting.push(flushed);
        self.late.retain(|(client, _)| !subject.clients().contains(client));
        let (slices, erased) = (Vec::new(), ErasedFromLog::default());
        self.erasing.push_back(Erasing { subject, slices, erased, done });
    }

    /// Erases from one slice, so that requests are written in between.
    fn erase_when_asked(&mut self) {
        // What came with this round's orders is flushed by the next round.
        if !self.waiting.is_empty() || self.stop_by.is_some() {
            return;
        }
        let Some(mut erasing) = self.erasing.pop_front() else { return };
        let stepped = self.reopen_if_needed().and_then(|()| self.erase_step(&mut erasing));
        match stepped {
            Ok(true) => {
                let _ = erasing.done.send(Ok(erasing.erased));
            }
            Ok(false) => self.erasing.push_front(erasing),
            Err(error) => {
                self.database = None;
                let _ = erasing.done.send(Err(error));
            }
        }
    }

    /// Returns whether that was all.
    fn erase_step(&mut self, erasing: &mut Erasing) -> Result<bool, StoreError> {
        if erasing.slices.is_empty() {
            erasing.slices = self.slices()?.iter().rev().map(|slice| slice.id).collect();
        }
        if let Some(id) = erasing.slices.pop() {
            let erased = self.erase_slice(id, &erasing.subject)?;
            erasing.erased.add(erased);
        }
        if !erasing.slices.is_empty() {
            return Ok(false);
        }
        self.let_nothing_remain()?;
        self.count_slices()?;
        Ok(true)
    }

    fn erase_slice(&mut self, id: i64, subject: &Subject) -> Result<ErasedFromLog, StoreError> {
        let Some(mut database) = self.database.take() else { return Ok(ErasedFromLog::default()) };
        let error = || sqlite_error(&self.path, "erasing a person's data");
        let Database { connection, live, .. } = &mut database;
        connection.execute_batch("PRAGMA secure_delete = ON").map_err(error())?;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error())?;
        let Some(slice) = slice::get(&transaction, id).map_err(error())? else {
            drop(transaction);
            self.database = Some(database);
            return Ok(ErasedFromLog::default());
        };
        let erased = erase::erase(&transaction, &slice, subject).map_err(error())?;
        transaction.commit().map_err(error())?;
        if id == live.slice.id {
            *live = LiveSlice::load(connection, slice).map_err(error())?;
        }
        connection.execute_batch("PRAGMA secure_delete = FAST").map_err(error())?;
        self.database = Some(database);
        Ok(erased)
    }

    /// Gives back every free page, some of which may hold what was deleted long ago, and empties the write-ahead
    /// log.
    fn let_nothing_remain(&self) -> Result<(), StoreError> {
        let Some(Database { connection, .. }) = &self.database else { return Ok(()) };
        let error = || sqlite_error(&self.path, "giving back what was erased");
        let free = || pragma(connection, "freelist_count").map_err(error());
        let mut left = free()?;
        while left > 0 {
            vacuum(connection, VACUUM_PAGES).map_err(error())?;
            let before = std::mem::replace(&mut left, free()?);
            if left >= before {
                break;
            }
        }
        let until = Instant::now() + BUSY_TIMEOUT * 5;
        while folder::file_bytes(&folder::wal_of(&self.path)) > 0 && Instant::now() < until {
            checkpoint(connection).map_err(error())?;
            // A reader that is in the middle of something holds it up for that long.
            std::thread::sleep(DRAIN_INTERVAL);
        }
        Ok(())
    }

    /// The batch is in the database.
    fn count_commit(&mut self) {
        self.stats.written.fetch_add(self.batch.len() as u64, Relaxed);
        let now = u64::try_from(now().0).unwrap_or(0);
        self.stats.last_commit_ms.store(now, Relaxed);
        self.limit_events.gather(&self.batch, self.enrich.as_mut(), &self.stats);
        self.clear_batch();
    }

    fn clear_batch(&mut self) {
        let bytes = self.batch.drain(..).map(|record| text_bytes(&record)).sum();
        self.stats.queued_bytes.fetch_sub(bytes, Relaxed);
    }

    fn bound_wal(&mut self) -> Result<(), StoreError> {
        let Some(database) = &self.database else { return Ok(()) };
        let wal = folder::wal_of(&self.path);
        let limit = retention::max_wal_bytes(&self.settings);
        if folder::file_bytes(&wal) <= limit {
            return Ok(());
        }
        checkpoint(&database.connection).map_err(sqlite_error(&self.path, "emptying the write-ahead log"))?;
        let bytes = folder::file_bytes(&wal);
        if bytes > limit {
            return Err(StoreError::WalHeldOpen { path: wal, bytes });
        }
        Ok(())
    }

    fn roll_if_full(&mut self) -> Result<(), StoreError> {
        let Some(database) = &self.database else { return Ok(()) };
        let slices = usize::try_from(self.stats.slices()).unwrap_or(usize::MAX);
        if !retention::is_slice_full(&database.live.slice, database.live_bytes, slices, now(), &self.settings)
        {
            return Ok(());
        }
        // What maintenance does with the sealed slice may fail without holding up the requests.
        self.maintenance_due = Instant::now();
        self.roll()
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        let Some(mut database) = self.database.take() else { return Ok(()) };
        database.live = open_slice(&mut database.connection, &self.path)?;
        database.live_bytes = 0;
        self.database = Some(database);
        self.count_slices()
    }

    fn count_slices(&self) -> Result<(), StoreError> {
        let slices = self.slices()?;
        self.stats.slices.store(slices.len() as u64, Relaxed);
        let wal = folder::file_bytes(&folder::wal_of(&self.path));
        self.stats.bytes_on_disk.store(folder::file_bytes(&self.path) + wal, Relaxed);
        Ok(())
    }

    fn slices(&self) -> Result<Vec<slice::Slice>, StoreError> {
        let Some(database) = &self.database else { return Ok(Vec::new()) };
        slice::list(&database.connection).map_err(sqlite_error(&self.path, "reading the slices"))
    }

    /// Drops the oldest slices until the log is within its size again.
    fn bound_bytes(&mut self) -> Result<(), StoreError> {
        loop {
            let Some(database) = &self.database else { return Ok(()) };
            let sql = sqlite_error(&self.path, "measuring the log");
            let used = used_pages(&database.connection).map_err(sql)? * page_bytes(&database.connection);
            let wal = folder::file_bytes(&folder::wal_of(&self.path));
            self.stats.bytes_on_disk.store(folder::file_bytes(&self.path) + wal, Relaxed);
            if !retention::is_too_large(used, wal, &self.settings) {
                return Ok(());
            }
            let slices = self.slices()?;
            match slices.as_slice() {
                [] => return Ok(()),
                // One slice that is larger than the whole log may be: the bound was lowered.
                [live] if live.rows > 0 => self.roll()?,
                [_] => return Ok(()),
                [oldest, ..] => self.drop_slices(&[oldest.id])?,
            }
        }
    }

    fn drop_slices(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        let Some(database) = &mut self.database else { return Ok(()) };
        let error = || sqlite_error(&self.path, "dropping old slices");
        let transaction =
            database.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error())?;
        for id in ids {
            slice::drop_slice(&transaction, *id).map_err(error())?;
        }
        transaction.commit().map_err(error())?;
        self.count_slices()
    }

    fn maintain_when_due(&mut self) {
        if Instant::now() < self.maintenance_due || self.stop_by.is_some() {
            return;
        }
        self.maintenance_due = Instant::now() + MAINTENANCE_INTERVAL;
        match self.reopen_if_needed().and_then(|()| self.maintain()) {
            Ok(()) => self.note_recovery(),
            Err(error) => {
                self.database = None;
                self.note_failure(&error);
                self.maintenance_due = Instant::now() + MAINTENANCE_RETRY;
            }
        }
    }

    /// Enforces age and size, indexes sealed slices, gives free pages back.
    fn maintain(&mut self) -> Result<(), StoreError> {
        let now = now();
        let settings = self.settings.clone();
        let is_old = |slice: &slice::Slice| retention::is_expired(slice, now, &settings);
        let has_old_fields = |slice: &slice::Slice| {
            let kept = settings.fields.shortest().unwrap_or(settings.retention);
            slice.span.is_some_and(|(_, newest)| UnixMs(newest) < now.minus(kept))
        };
        if self.slices()?.last().is_some_and(|live| is_old(live) || has_old_fields(live)) {
            self.roll()?;
        }
        let slices = self.slices()?;
        let old: Vec<i64> =
            slices.iter().filter(|slice| slice.is_sealed && is_old(slice)).map(|slice| slice.id).collect();
        if !old.is_empty() {
            self.drop_slices(&old)?;
        }
        self.bound_bytes()?;
        self.index_sealed()?;
        self.scrub(now)?;
        self.shrink()?;
        self.bound_bytes()?;
        self.count_slices()
    }

    /// Gives sealed slices their indexes and sums: one slice at a time, so that requests are written in between.
    fn index_sealed(&mut self) -> Result<(), StoreError> {
        for slice in self.slices()? {
            let is_quiet = self.is_quiet();
            let Some(database) = &mut self.database else { return Ok(()) };
            let error = || sqlite_error(&self.path, "indexing a sealed slice");
            if !slice.is_sealed || !is_quiet {
                continue;
            }
            if !slice.is_indexed || !sums::is_complete(&database.connection, &slice).map_err(error())? {
                let transaction = database
                    .connection
                    .transaction_with_behavior(TransactionBehavior::Immediate)
                    .map_err(error())?;
                slice::build_index(&transaction, slice.id).map_err(error())?;
                sums::complete(&transaction, &slice).map_err(error())?;
                transaction.commit().map_err(error())?;
                self.maintenance_due = Instant::now();
                break;
            }
        }
        Ok(())
    }

    /// Takes out of a sealed slice what its rows have kept long enough: one slice at a time, so that requests are
    /// written in between.
    fn scrub(&mut self, now: UnixMs) -> Result<(), StoreError> {
        if self.settings.fields.shortest().is_none() {
            return Ok(());
        }
        for slice in self.slices()? {
            let is_quiet = self.is_quiet();
            let Some(Database { connection, .. }) = &mut self.database else { return Ok(()) };
            let error = || sqlite_error(&self.path, "taking out old fields");
            let kinds = scrub::due(connection, &slice, &self.settings.fields, now).map_err(error())?;
            // The index makes it quick, and comes first in a quiet moment.
            if kinds == 0 || !slice.is_indexed || !is_quiet {
                continue;
            }
            connection.execute_batch("PRAGMA secure_delete = ON").map_err(error())?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error())?;
            scrub::scrub(&transaction, &slice, kinds).map_err(error())?;
            transaction.commit().map_err(error())?;
            connection.execute_batch("PRAGMA secure_delete = FAST").map_err(error())?;
            checkpoint(connection).map_err(error())?;
            self.maintenance_due = Instant::now();
            break;
        }
        Ok(())
    }

    /// Gives pages back to the file system when the file is over its bound or much of it is free.
    fn shrink(&mut self) -> Result<(), StoreError> {
        let Some(database) = &self.database else { return Ok(()) };
        let error = || sqlite_error(&self.path, "shrinking the log");
        let connection = &database.connection;
        let pages = pragma(connection, "page_count").map_err(error())?;
        let free = pragma(connection, "freelist_count").map_err(error())?;
        let is_over = pages * page_bytes(connection) > self.settings.max_bytes;
        if free == 0 || !self.is_quiet() || (free <= pages / FREE_PART && !is_over) {
            return Ok(());
        }
        let mut given_back = 0;
        while given_back < free && self.is_quiet() {
            vacuum(connection, VACUUM_PAGES).map_err(error())?;
            given_back += u64::from(VACUUM_PAGES);
        }
        checkpoint(connection).map_err(error())
    }

    /// Whether the queue has room for what comes while the writer does something else.
    fn is_quiet(&self) -> bool {
        self.records.len() <= self.settings.queue / QUIET_PART
    }

    fn write_limit_events(&mut self) {
        let is_due = Instant::now() >= self.limit_events_due;
        if !self.limit_events.is_empty() && (is_due || !self.waiting.is_empty() || self.stop_by.is_some()) {
            self.limit_events.write();
            self.limit_events_due = Instant::now() + WRITE_INTERVAL;
        }
    }

    /// Answers those who wait for a flush. More may have come than one batch holds.
    fn answer(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut left = self.records.len();
        while left > 0 && self.stop_by.is_none() {
            self.drain();
            left = left.saturating_sub(self.batch.len());
            self.commit_batch();
        }
        self.write_limit_events();
        for done in self.waiting.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    fn finish(&mut self) {
        loop {
            self.drain();
            if self.batch.is_empty() {
                break;
            }
            self.commit_batch();
        }
        self.write_limit_events();
        for done in self.waiting.drain(..) {
            let _ = done.send(());
        }
        if let Some(database) = &self.database
            && let Err(error) = checkpoint(&database.connection)
        {
            tracing::warn!(%error, "the log's write-ahead log stays for the next start");
        }
    }
}

/// Opens the log; a damaged one is moved aside first.
fn open_or_replace(path: &Path) -> Result<Database, StoreError> {
    match open_database(path) {
        Err(error) if error.is_damage() => {
            tracing::warn!(%error, "the log is damaged");
            replace(path)?;
            open_database(path)
        }
        other => other,
    }
}

fn replace(path: &Path) -> Result<(), StoreError> {
    let seconds = u64::try_from(now().0 / 1_000).unwrap_or(0);
    let kept = folder::move_aside(path, seconds)?;
    tracing::warn!(kept = %kept.display(), "the damaged log was moved aside; beginning a new one");
    Ok(())
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let mut connection = folder::open_writer(path, &PRAGMAS)?;
    folder::migrate(&mut connection, path, slice::MIGRATIONS)?;
    connection.set_prepared_statement_cache_capacity(MAX_STATEMENTS);
    let live = slice::live(&connection).map_err(sqlite_error(path, "reading the slices"))?;
    let live = match live {
        Some(slice) => {
            LiveSlice::load(&connection, slice).map_err(sqlite_error(path, "reading the live slice"))?
        }
        None => open_slice(&mut connection, path)?,
    };
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite_error(path, "setting the busy timeout"))?;
    // Only an estimate is possible for a slice that an earlier process began; it decides no more than
    // when the slice ends.
    let live_bytes = u64::try_from(live.slice.rows).unwrap_or(0) * ESTIMATED_ROW_BYTES;
    Ok(Database { connection, live, identity: folder::identity(path), live_bytes })
}

/// As measured by `examples/log_cost.rs`.
const ESTIMATED_ROW_BYTES: u64 = 45;

fn open_slice(connection: &mut Connection, path: &Path) -> Result<LiveSlice, StoreError> {
    let error = || sqlite_error(path, "opening a slice");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error())?;
    let slice = slice::open_next(&transaction, now()).map_err(error())?;
    transaction.commit().map_err(error())?;
    LiveSlice::load(connection, slice).map_err(error())
}

fn is_busy(error: &StoreError) -> bool {
    let StoreError::Sqlite { source, .. } = error else { return false };
    matches!(
        source.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    )
}

/// Empties the write-ahead log as far as readers allow.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Moves up to `pages` pages from the end of the file into free ones and cuts the file.
fn vacuum(connection: &Connection, pages: u32) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    // Each step moves one page.
    let mut steps = statement.query([])?;
    while steps.next()?.is_some() {}
    Ok(())
}

fn pragma(connection: &Connection, name: &'static str) -> rusqlite::Result<u64> {
    let value: i64 = connection.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(value).unwrap_or(0))
}

/// Pages that hold something.
fn used_pages(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(pragma(connection, "page_count")?.saturating_sub(pragma(connection, "freelist_count")?))
}

fn page_bytes(connection: &Connection) -> u64 {
    pragma(connection, "page_size").unwrap_or(4_096)
}

/// The one place where the log reads the clock: retention follows the time of day.
fn now() -> UnixMs {
    UnixMs::from_system(SystemTime::now())
}
