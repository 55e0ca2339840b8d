//! The record of what ran in the background.
//!
//! Owns the tables `tasks` and `task_runs`. Must not run or schedule anything.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use portcullis_model::UnixMs;

use super::{State, row_limit};
use crate::error::StoreError;

/// Runs of one task that are kept; those of a detector that runs every second would fill the disk.
pub const MAX_TASK_RUNS: usize = 1_000;

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTaskRun {
    /// `detect`, `cleanup`, ...
    pub task: String,
    pub started_at: UnixMs,
    pub finished_at: UnixMs,
    pub succeeded: bool,
    /// One sentence: what it did, or why it failed.
    pub summary: String,
}

/// A run as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskRun {
    pub id: i64,
    pub task: String,
    pub started_at: UnixMs,
    pub finished_at: UnixMs,
    pub succeeded: bool,
    pub summary: String,
}

impl State {
    /// Since when there is a task of this name: `now` when it was not known.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn note_task(&mut self, task: &str, now: UnixMs) -> Result<UnixMs, StoreError> {
        self.write("noting a task", |transaction| {
            transaction.execute(
                "INSERT INTO tasks (name, first_seen) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
                params![task, now.0],
            )?;
            let sql = "SELECT first_seen FROM tasks WHERE name = ?1";
            transaction.query_row(sql, [task], |row| row.get(0).map(UnixMs))
        })
    }

    /// Since when there is a task of this name; `None` when no gateway has had it.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn task_known_since(&self, task: &str) -> Result<Option<UnixMs>, StoreError> {
        self.read("reading the tasks", || {
            let mut statement =
                self.connection.prepare_cached("SELECT first_seen FROM tasks WHERE name = ?1")?;
            statement.query_row([task], |row| row.get(0).map(UnixMs)).optional()
        })
    }

    /// The latest run of a task that succeeded.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn last_success(&self, task: &str) -> Result<Option<UnixMs>, StoreError> {
        let sql = "SELECT finished_at FROM task_runs WHERE task = ?1 AND succeeded ORDER BY id DESC LIMIT 1";
        self.read("reading the task runs", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_row([task], |row| row.get(0).map(UnixMs)).optional()
        })
    }

    /// Records a run, and forgets those before the last [`MAX_TASK_RUNS`]; returns its number.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn record_task_run(&mut self, run: &NewTaskRun) -> Result<i64, StoreError> {
        self.write("recording a task's run", |transaction| {
            transaction.execute(
                "INSERT INTO task_runs (task, started_at, finished_at, succeeded, summary) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![run.task, run.started_at.0, run.finished_at.0, run.succeeded, run.summary],
            )?;
            let id = transaction.last_insert_rowid();
            transaction.execute(
                "DELETE FROM task_runs WHERE task = ?1 AND id <= \
                 (SELECT id FROM task_runs WHERE task = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![run.task, row_limit(MAX_TASK_RUNS)],
            )?;
            Ok(id)
        })
    }

    /// The latest runs of one task, or of all, newest first.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn task_runs(&self, task: Option<&str>, limit: usize) -> Result<Vec<TaskRun>, StoreError> {
        let sql = "SELECT id, task, started_at, finished_at, succeeded, summary FROM task_runs \
                   WHERE ?1 IS NULL OR task = ?1 ORDER BY id DESC LIMIT ?2";
        self.read("reading the task runs", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let runs = statement.query_map(params![task, row_limit(limit)], |row| {
                Ok(TaskRun {
                    id: row.get(0)?,
                    task: row.get(1)?,
                    started_at: UnixMs(row.get(2)?),
                    finished_at: UnixMs(row.get(3)?),
                    succeeded: row.get(4)?,
                    summary: row.get(5)?,
                })
            })?;
            runs.collect()
        })
    }
}
