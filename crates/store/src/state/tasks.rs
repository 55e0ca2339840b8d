//! The record of what ran in the background.
//!
//! Owns the table `task_runs`. Must not run or schedule anything.

use rusqlite::params;
use serde::Serialize;

use portcullis_model::UnixMs;

use super::{State, row_limit};
use crate::error::StoreError;

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTaskRun {
    /// `detect`, `purge`, ...
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
    /// Records a run; returns its number.
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
            Ok(transaction.last_insert_rowid())
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
