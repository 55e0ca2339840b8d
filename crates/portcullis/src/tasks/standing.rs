//! How it is with each task: its schedule, its last run, its next one. Must not run anything.

use portcullis_config::{Config, Schedule};
use portcullis_model::UnixMs;
use portcullis_store::{State, StoreError, TaskRun};
use serde::Serialize;

use super::{Plan, TASKS, Task, running_since};

/// One task as it is now.
#[derive(Serialize)]
pub(crate) struct Standing {
    pub(crate) task: &'static str,
    pub(crate) about: &'static str,
    pub(crate) schedule: String,
    pub(crate) last_run: Option<TaskRun>,
    pub(crate) last_success: Option<UnixMs>,
    pub(crate) running_since: Option<UnixMs>,
    /// When a running gateway runs it next, or one that is started now would.
    pub(crate) next_run: Option<UnixMs>,
}

/// All tasks.
///
/// # Errors
/// The state database cannot be read.
pub(crate) fn standing(
    config: &Config,
    state: Option<&State>,
    now: UnixMs,
) -> Result<Vec<Standing>, StoreError> {
    TASKS.iter().map(|task| of(task, config, state, now)).collect()
}

fn of(task: &Task, config: &Config, state: Option<&State>, now: UnixMs) -> Result<Standing, StoreError> {
    let schedule = (task.schedule)(config);
    let (mut last_run, mut last_success, mut known_since) = (None, None, None);
    if let Some(state) = state {
        last_run = state.task_runs(Some(task.name), 1)?.pop();
        last_success = state.last_success(task.name)?;
        known_since = state.task_known_since(task.name)?;
    }
    Ok(Standing {
        task: task.name,
        about: task.about,
        next_run: next_run(&schedule, config, last_run.as_ref(), known_since.unwrap_or(now), now),
        schedule: schedule.to_string(),
        last_run,
        last_success,
        running_since: running_since(&config.data, task.name),
    })
}

fn next_run(
    schedule: &Schedule,
    config: &Config,
    last_run: Option<&TaskRun>,
    known_since: UnixMs,
    now: UnixMs,
) -> Option<UnixMs> {
    let mut plan = Plan::at_start(last_run.map(|run| run.started_at), known_since, now);
    plan.next(schedule, &config.tasks.time_zone.time_zone(), now)
}
