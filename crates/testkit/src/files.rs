//! The data folder of a gateway, read from outside as any program can.
//!
//! Waits where the gateway may still be writing; must not write while one runs.

use std::path::{Path, PathBuf};

use portcullis_model::RequestId;
use portcullis_store::{LogFilter, LogReader, LogRow, State};
use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags};

use crate::wait::eventually;

/// The most rows that are read at once.
const MAX_ROWS: usize = 200_000;

/// A data folder.
#[derive(Clone, Debug)]
pub struct Data {
    folder: PathBuf,
}

impl Data {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One value by plain SQL from `log.db`.
    pub fn sql<T: FromSql>(&self, query: &str) -> T {
        self.connect("log.db").query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// `SELECT count(*) FROM request_log`
    pub fn count(&self) -> u64 {
        self.sql::<i64>("SELECT count(*) FROM request_log").try_into().unwrap()
    }

    /// Waits until the log has so many rows.
    ///
    /// # Panics
    /// When they do not come, or more than these do.
    pub fn wait_for_count(&self, wanted: u64) {
        eventually(&format!("{wanted} rows in the log"), || {
            let count = self.count();
            assert!(count <= wanted, "{count} rows in the log instead of {wanted}");
            (count == wanted).then_some(())
        });
    }

    /// All rows that are there now, oldest first.
    pub fn rows(&self) -> Vec<LogRow> {
        let Ok(log) = LogReader::open(&self.folder) else { return Vec::new() };
        let mut rows = log.rows(&LogFilter::default(), MAX_ROWS).unwrap();
        rows.reverse();
        rows
    }

    /// Waits for the row of a request by its decision ID.
    pub fn row(&self, id: &str) -> LogRow {
        let id: RequestId = id.parse().expect("this is no decision ID");
        eventually(&format!("the row of request {id}"), || {
            LogReader::open(&self.folder).ok()?.find(id).unwrap()
        })
    }

    /// Waits for the newest row that `is` accepts.
    pub fn row_where(&self, what: &str, is: impl Fn(&LogRow) -> bool) -> LogRow {
        eventually(&format!("a row of {what}"), || self.rows().into_iter().rev().find(&is))
    }

    /// Waits for the row of a path.
    pub fn row_of(&self, path: &str) -> LogRow {
        self.row_where(path, |row| row.path == path)
    }

    /// The state database, for reading.
    pub fn state(&self) -> State {
        State::open_read_only(&self.folder).unwrap()
    }

    /// What SQLite says about both databases: "ok" for each.
    pub fn integrity(&self) -> [String; 2] {
        ["log.db", "state.db"]
            .map(|name| self.connect(name).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap())
    }

    pub fn schema_version(&self, name: &str) -> i64 {
        self.connect(name).query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    /// Makes a database look like one of another version. No gateway may be running on it.
    pub fn set_schema_version(&self, name: &str, version: i64) {
        let connection = self.open(name, OpenFlags::SQLITE_OPEN_READ_WRITE);
        connection.pragma_update(None, "user_version", version).unwrap();
    }

    /// Runs SQL that changes a database as nobody but a test does: to make a later write fail, say.
    pub fn execute(&self, name: &str, sql: &str) {
        self.open(name, OpenFlags::SQLITE_OPEN_READ_WRITE).execute_batch(sql).unwrap();
    }

    fn connect(&self, name: &str) -> Connection {
        self.open(name, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn open(&self, name: &str, flags: OpenFlags) -> Connection {
        let connection = Connection::open_with_flags(self.folder.join(name), flags).unwrap();
        connection.busy_timeout(crate::wait::DEADLINE).unwrap();
        connection
    }
}
