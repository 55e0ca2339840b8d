//! The state database: what people and the detector decided, in force across restarts.
//!
//! Owns the connection, the change counter and the audit trail. Must not cache: several processes
//! change this database, and it is the one source of truth.

mod alerts;
mod allows;
mod audit;
mod blocks;
mod changes;
mod console;
mod findings;
mod geo;
mod limits;
mod listing;
mod nevers;
mod opt_outs;
mod parties;
mod purge;
mod settings;
mod subject;
mod summary;
mod tasks;
mod watcher;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

pub use alerts::{
    AlertChannel, AlertFailure, AlertTry, MAX_ALERTS, MAX_OUTBOX, NewAlert, OutboxMessage, StoredAlert,
};
pub use allows::StoredAllow;
pub use audit::{AuditEntry, AuditFilter};
use audit::{note, noting_origin};
pub use blocks::{Imported, NewBlock, StoredBlock};
pub use changes::{BlockChange, Changes, Seq};
pub use console::{
    AccessRefusal, ApiToken, ConsoleLink, ConsoleSession, ConsoleUser, Credentials, MAX_API_TOKENS,
    MAX_CONSOLE_USERS, MAX_SESSIONS_PER_USER, NewApiToken, NewSession, NewUser, TokenDigest,
};
pub use findings::{FindingFilter, StoredFinding};
pub use geo::GeoAnswer;
pub use limits::{LimitEvent, LimitEventCursor, LimitEventFilter, LimitTotal};
pub use listing::{Listing, Standing};
pub use nevers::{MAX_NEVERS, Never, NewNever};
pub use opt_outs::{MAX_OPT_OUTS, OptOut};
pub use parties::{NewPartyBlock, PartyChange, StoredPartyBlock};
pub use purge::Purged;
pub use settings::Setting;
pub use subject::{ErasedFromState, Found, Lifted};
pub use summary::{LimitSum, StateSummary};
pub use tasks::{MAX_TASK_RUNS, NewTaskRun, TaskRun};
pub use watcher::{Noticed, StateWatcher};

use crate::error::{StoreError, sqlite_error};
use crate::folder::{self, STATE_FILE, WriterPragmas};

/// The schema steps of state.db, oldest first.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/state/001_initial.sql"),
    include_str!("../../migrations/state/002_geo_answers.sql"),
    include_str!("../../migrations/state/003_tasks.sql"),
    include_str!("../../migrations/state/004_party_blocks.sql"),
    include_str!("../../migrations/state/005_alerts.sql"),
    include_str!("../../migrations/state/006_limit_bounds.sql"),
    include_str!("../../migrations/state/007_opt_outs.sql"),
    include_str!("../../migrations/state/008_repeat_offenders.sql"),
    include_str!("../../migrations/state/009_dismissals.sql"),
    include_str!("../../migrations/state/010_console.sql"),
];

/// FULL: a block that was acknowledged survives a power failure.
const PRAGMAS: &str = "PRAGMA journal_mode = WAL;
                       PRAGMA synchronous = FULL;
                       PRAGMA secure_delete = ON;
                       PRAGMA journal_size_limit = 8388608;
                       PRAGMA cache_size = -8192;";

/// One connection to the state database.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    connection: Connection,
    /// Writes are part of a transaction that is open.
    is_together: bool,
    /// From where changes come, as the audit trail has it; `None` is this machine's command line or the gateway itself.
    from: Option<IpAddr>,
}

impl State {
    /// Opens `DIR/state.db` for reading and writing; creates folder and database when missing and brings an older
    /// schema up to date. For a gateway that starts, and whoever does that on purpose: a gateway of an older version
    /// that runs on the folder cannot use the database any more.
    ///
    /// # Errors
    /// The folder cannot be written, a newer version wrote the database, it is damaged, or SQLite fails.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        folder::prepare(dir)?;
        let (path, mut connection) = open_writer(dir, folder::BUSY_TIMEOUT)?;
        folder::migrate(&mut connection, &path, MIGRATIONS)?;
        Ok(Self { path, connection, is_together: false, from: None })
    }

    /// The same for commands, which may run beside a gateway of an older version: an older schema stays, as an error.
    ///
    /// # Errors
    /// The schema is older ([`StoreError::Older`]), or one of those of [`State::open`].
    pub fn open_or_create(dir: &Path) -> Result<Self, StoreError> {
        folder::prepare(dir)?;
        if folder::has(&dir.join(STATE_FILE))? { Self::open_existing(dir) } else { Self::open(dir) }
    }

    /// Opens an existing `DIR/state.db` for reading and writing, as it is. Never makes a database: in the place of
    /// one that was deleted under a running gateway an empty one would lift every block.
    ///
    /// # Errors
    /// There is no state, or one of those of [`State::open_or_create`].
    pub fn open_existing(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with_timeout(dir, folder::BUSY_TIMEOUT)
    }

    /// The same, waiting for other processes no longer than `busy_timeout`.
    pub(crate) fn open_with_timeout(dir: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        let path = dir.join(STATE_FILE);
        if !folder::has(&path)? {
            return Err(StoreError::NoState(path));
        }
        folder::prepare(dir)?;
        let (path, connection) = open_writer(dir, busy_timeout)?;
        require_newest(&connection, &path)?;
        Ok(Self { path, connection, is_together: false, from: None })
    }

    /// Opens an existing `DIR/state.db` for reading alone; changes nothing, its schema neither.
    ///
    /// # Errors
    /// There is no state yet, its schema is older or newer than this version's, it is damaged, or SQLite fails.
    pub fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(STATE_FILE);
        if !folder::has(&path)? {
            return Err(StoreError::NoState(path));
        }
        let connection = folder::open_reader(&path)?;
        require_newest(&connection, &path)?;
        Ok(Self { path, connection, is_together: false, from: None })
    }

    /// The same state, for changes that somebody makes from this address.
    #[must_use]
    pub fn acting_from(self, from: IpAddr) -> Self {
        Self { from: Some(from), ..self }
    }

    /// The number of the latest change.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn latest_change(&self) -> Result<Seq, StoreError> {
        self.read("reading the number of the latest change", || {
            let sql = "SELECT seq FROM counter";
            self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).map(Seq)
        })
    }

    /// A number that changes whenever another connection has committed a change.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn data_version(&self) -> Result<i64, StoreError> {
        self.read("reading the data version", || {
            self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
        })
    }

    /// Has all that `work` changes in one transaction, which holds the write lock from its beginning: all of it is kept,
    /// or when `work` fails, or the process ends, nothing.
    ///
    /// # Errors
    /// Those of `work`, or SQLite fails; then nothing has changed.
    pub fn together<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.is_together {
            return work(self);
        }
        let together = Together::begin(self)?;
        let value = work(together.0)?;
        together.commit()?;
        Ok(value)
    }

    /// Runs `change` in one transaction that holds the write lock from its beginning.
    fn write<T>(
        &mut self,
        doing: &'static str,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let Self { path, connection, is_together, from } = self;
        let change = |connection: &Connection| match from {
            Some(from) => noting_origin(connection, *from, change),
            None => change(connection),
        };
        let run = || {
            if *is_together {
                let savepoint = connection.savepoint()?;
                let value = change(&savepoint)?;
                savepoint.commit()?;
                return Ok(value);
            }
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(sqlite_error(path, doing))
    }

    fn read<T>(
        &self,
        doing: &'static str,
        read: impl FnOnce() -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        read().map_err(sqlite_error(&self.path, doing))
    }
}

/// An open transaction of several writes; dropped without a commit it is taken back.
struct Together<'s>(&'s mut State);

impl<'s> Together<'s> {
    fn begin(state: &'s mut State) -> Result<Self, StoreError> {
        let began = state.connection.execute_batch("BEGIN IMMEDIATE");
        began.map_err(sqlite_error(&state.path, "beginning several changes"))?;
        state.is_together = true;
        Ok(Self(state))
    }

    fn commit(self) -> Result<(), StoreError> {
        let done = self.0.connection.execute_batch("COMMIT");
        done.map_err(sqlite_error(&self.0.path, "keeping several changes"))
    }
}

impl Drop for Together<'_> {
    fn drop(&mut self) {
        self.0.is_together = false;
        if !self.0.connection.is_autocommit() {
            // A connection that cannot even do that has lost its transaction with the file.
            let _ = self.0.connection.execute_batch("ROLLBACK");
        }
    }
}

fn open_writer(dir: &Path, busy_timeout: Duration) -> Result<(PathBuf, Connection), StoreError> {
    let path = dir.join(STATE_FILE);
    let with = WriterPragmas { pragmas: PRAGMAS, busy_timeout };
    let connection = folder::open_writer(&path, &with)?;
    Ok((path, connection))
}

/// Tables of an older version lack what this one reads and writes.
fn require_newest(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wanted = MIGRATIONS.len();
    match folder::schema_version(connection, path, wanted)? {
        0 => Err(StoreError::NoState(path.to_path_buf())),
        found if found < wanted => Err(StoreError::Older { path: path.to_path_buf(), found, wanted }),
        _ => Ok(()),
    }
}

/// The number of the next change. All rows of one transaction share it.
fn next_seq(transaction: &Connection) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("UPDATE counter SET seq = seq + 1 RETURNING seq")?
        .query_row([], |row| row.get(0))
}

/// SQLite's LIMIT is signed, and negative means none.
fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Reads a column that holds the text form of `T`.
pub(crate) fn parsed<T: std::str::FromStr>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|_| {
        let error = format!("unexpected value {text:?}");
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}
