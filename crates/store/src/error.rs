//! What can go wrong with the two databases, in words for the person who has to repair it.
//!
//! Owns `StoreError`. Must not log or print: whoever handles the error does, once.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Every failure of this crate.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The data folder cannot be created or written.
    #[error(
        "cannot use the data folder {}: {source}; make it writable for the user that runs portcullis, \
         or choose another one with --data",
        path.display()
    )]
    Folder { path: PathBuf, source: std::io::Error },

    /// Whether there is a database cannot be told, usually because the folder belongs to somebody else.
    #[error("cannot look at {}: {source}; name the right folder, or run this as the user that runs the gateway", path.display())]
    Hidden { path: PathBuf, source: std::io::Error },

    /// Nothing has been logged in this folder yet.
    #[error("no log at {} yet; start the gateway with the same --data, or name the right folder", .0.display())]
    NoLog(PathBuf),

    /// There is no state database in this folder.
    #[error("no state at {} yet; start the gateway with the same --data, or name the right folder", .0.display())]
    NoState(PathBuf),

    /// A later version of the gateway wrote the database.
    #[error(
        "{} has schema version {found}, this portcullis knows versions up to {supported}; \
         run the newer portcullis, or point --data to another folder",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, supported: usize },

    /// An older version of the gateway wrote the database, and may be running on it.
    #[error(
        "{} has schema version {found}, this portcullis needs {wanted}: start this version's gateway or run \
         \"portcullis migrate\"; where an older gateway runs, \"portcullis upgrade\" puts this version in its place",
        path.display()
    )]
    Older { path: PathBuf, found: usize, wanted: usize },

    /// Another process writes the log of this folder.
    #[error(
        "another portcullis is already writing the log in {}; stop it, or choose another folder with --data",
        .0.display()
    )]
    InUse(PathBuf),

    /// The database is damaged or no database at all.
    #[error("{} is damaged ({source}); restore it from a backup, or move it away to begin a new one", path.display())]
    Damaged { path: PathBuf, source: rusqlite::Error },

    /// A thread could not be started.
    #[error("cannot start the thread {name}: {source}; raise the process limit (ulimit -u)")]
    Thread { name: &'static str, source: std::io::Error },

    /// Any other failure of SQLite.
    #[error("{}: {doing} failed: {source}", path.display())]
    Sqlite { path: PathBuf, doing: &'static str, source: rusqlite::Error },

    /// A reader keeps the write-ahead log from being emptied, and it has reached its bound.
    #[error(
        "{} has grown to {bytes} bytes because a program keeps a read transaction open on the log; \
         end that program",
        path.display()
    )]
    WalHeldOpen { path: PathBuf, bytes: u64 },

    /// A stored value that this version cannot have written.
    #[error(
        "{table}.{column} holds {value:?}, which no version of portcullis writes; somebody edited the database"
    )]
    BadValue { table: &'static str, column: &'static str, value: String },

    /// A file that somebody named is not there.
    #[error("there is no {}; name the right file", .0.display())]
    NoFile(PathBuf),

    /// Another program's database is larger than is taken over.
    #[error("{} has more than {max} bans; let fail2ban purge the old ones first", path.display())]
    TooManyBans { path: PathBuf, max: usize },

    /// No row has this number.
    #[error("there is no {what} with the number {id}")]
    NotFound { what: &'static str, id: i64 },

    /// The writer could not commit in time.
    #[error("the log could not be flushed within {seconds} s; the database is locked, full or failing")]
    FlushTimeout { seconds: u64 },

    /// An erasure was not finished.
    #[error(
        "the log could not be erased from to the end within {seconds} s, or has ended meanwhile; erase again"
    )]
    EraseTimeout { seconds: u64 },

    /// The writer did not let go of the log, or did not take it back, in time.
    #[error("the log could not change hands within {seconds} s; the database is locked, full or failing")]
    HandoverTimeout { seconds: u64 },
}

impl StoreError {
    /// Whether the file itself is broken, so that trying again cannot help.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Folder { .. }
            | Self::Hidden { .. }
            | Self::NoLog(_)
            | Self::NoState(_)
            | Self::Newer { .. }
            | Self::InUse(_)
            | Self::Thread { .. }
            | Self::Sqlite { .. }
            | Self::WalHeldOpen { .. }
            | Self::BadValue { .. }
            | Self::NotFound { .. }
            | Self::NoFile(_)
            | Self::TooManyBans { .. }
            | Self::FlushTimeout { .. }
            | Self::EraseTimeout { .. }
            | Self::HandoverTimeout { .. }
            | Self::Older { .. } => false,
        }
    }
}

/// Gives a failure of SQLite its place, and tells damage from everything else.
pub(crate) fn sqlite_error<'a>(
    path: &'a Path,
    doing: &'static str,
) -> impl FnOnce(rusqlite::Error) -> StoreError + 'a {
    move |source| {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                StoreError::Damaged { path, source }
            }
            _ => StoreError::Sqlite { path, doing, source },
        }
    }
}
