//! Tasks, alerts, reloads: what a person may have done at once.
//! Must not know how it is done.

use std::path::PathBuf;

use portcullis_model::{Severity, UnixMs};
use portcullis_store::TaskRun;

/// Has done at once what the gateway does by itself.
pub trait Chores: Send + Sync {
    /// The last reload of the configuration; `None` when there was none since the start.
    ///
    /// # Errors
    /// A sentence, here and below: the gateway is ending, or the state cannot be read.
    fn last_reload(&self) -> Result<Option<(UnixMs, Reloaded)>, String>;

    /// The file of the configuration; `None` without one.
    ///
    /// # Errors
    /// See above.
    fn config_file(&self) -> Result<Option<PathBuf>, String>;

    /// Reads the configuration again.
    ///
    /// # Errors
    /// See above. That the configuration is no good is an outcome.
    fn reload(&self) -> Result<Reloaded, String>;

    /// All tasks.
    ///
    /// # Errors
    /// See above.
    fn tasks(&self) -> Result<Vec<TaskState>, String>;

    /// Begins a task, and returns before it ends.
    ///
    /// # Errors
    /// There is no such task, it is running already, or see above.
    fn run_task(&self, name: &str) -> Result<(), String>;

    /// How it is with the ways in which people are told.
    ///
    /// # Errors
    /// See above.
    fn channels(&self) -> Result<Vec<ChannelState>, String>;

    /// What people were told of last, newest first.
    ///
    /// # Errors
    /// See above.
    fn recent_alerts(&self, limit: usize) -> Result<Vec<Told>, String>;

    /// Sends a message through each channel, and waits for what comes of it.
    ///
    /// # Errors
    /// See above.
    fn test_alerts(&self) -> Result<Vec<Tried>, String>;

    /// Where the gateway gets its knowledge from: feeds, locations, crawlers, the site itself.
    ///
    /// # Errors
    /// See above.
    fn sources(&self) -> Result<Vec<SourceGroup>, String>;
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    Unchanged,
    /// Settings, as the file names them, that have changed; `waiting` for the next start.
    Applied {
        changed: Vec<&'static str>,
        waiting: Vec<&'static str>,
    },
    /// Why the old configuration stays, as `check` prints it.
    Rejected(String),
}

/// A task as it is now.
#[derive(Clone, Debug)]
pub struct TaskState {
    pub name: &'static str,
    /// What it does: `delete what nobody needs any more`.
    pub about: &'static str,
    /// In words or as cron writes it.
    pub schedule: String,
    pub last_run: Option<TaskRun>,
    pub last_success: Option<UnixMs>,
    pub running_since: Option<UnixMs>,
    pub next_run: Option<UnixMs>,
}

/// A way in which people are told, as it is now.
#[derive(Clone, Debug)]
pub struct ChannelState {
    pub name: String,
    /// Where it leads, without anything secret.
    pub target: String,
    pub sent: u64,
    pub last_sent: Option<UnixMs>,
    /// Events that wait to be told.
    pub waiting: u64,
    pub next: Option<UnixMs>,
    /// Since when, and what the last try said.
    pub failing: Option<(UnixMs, String)>,
    /// Events that nobody was told of.
    pub lost: u64,
}

/// Something that people were told of, or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub last_at: UnixMs,
    pub severity: Severity,
    pub events: u64,
    pub what: String,
}

/// What became of a test of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub channel: String,
    pub target: String,
    /// Why it failed.
    pub problem: Option<String>,
}

/// Sources of one kind.
#[derive(Clone, Debug)]
pub struct SourceGroup {
    pub name: &'static str,
    /// The task that has them updated.
    pub task: Option<&'static str>,
    pub sources: Vec<SourceState>,
    /// What there is to say instead of an empty list.
    pub without: &'static str,
}

/// One source as it is now.
#[derive(Clone, Debug)]
pub struct SourceState {
    pub name: String,
    pub condition: Condition,
    /// What it holds, and from where, without anything secret.
    pub facts: String,
    pub updated: Option<UnixMs>,
    pub problem: Option<String>,
}

/// How it is with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Good,
    /// Works, and not as it should.
    Poor,
    Bad,
    /// There is nothing of it yet.
    Waiting,
}
