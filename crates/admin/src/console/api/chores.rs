//! What the gateway does by itself: tasks, alerts, the sources of what it knows.
//! Must not know how any of it is done.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use portcullis_store::TaskRun as StoredRun;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::document::Api;
use super::input::{Params, Part};
use super::problem::Problem;
use super::words::{Done, FindingSeverity, Limit, Page, Text, Time};
use crate::console::error::PageError;
use crate::console::running::chores::{
    ChannelState, Condition, SourceGroup, SourceState, TaskState, Told, Tried,
};
use crate::console::shared::Shared;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_tasks, tasks)
        .add(__path_runs, runs)
        .add(__path_run, run)
        .add(__path_alerts, alerts)
        .add(__path_channels, channels)
        .add(__path_test_alerts, test_alerts)
        .add(__path_sources, sources)
}

/// A run of a task.
#[derive(Debug, Serialize, ToSchema)]
struct TaskRun {
    id: i64,
    task: String,
    started_at: Time,
    finished_at: Time,
    succeeded: bool,
    /// What it did, or why it failed.
    summary: String,
}

impl From<StoredRun> for TaskRun {
    fn from(run: StoredRun) -> Self {
        let StoredRun { id, task, started_at, finished_at, succeeded, summary } = run;
        Self { id, task, started_at: Time(started_at), finished_at: Time(finished_at), succeeded, summary }
    }
}

/// A task as it is now.
#[derive(Debug, Serialize, ToSchema)]
struct Task {
    task: &'static str,
    /// What it does.
    about: &'static str,
    /// In words or as cron writes it.
    schedule: String,
    last_run: Option<TaskRun>,
    last_success: Option<Time>,
    running_since: Option<Time>,
    next_run: Option<Time>,
}

impl From<TaskState> for Task {
    fn from(state: TaskState) -> Self {
        Self {
            task: state.name,
            about: state.about,
            schedule: state.schedule,
            last_run: state.last_run.map(TaskRun::from),
            last_success: state.last_success.map(Time),
            running_since: state.running_since.map(Time),
            next_run: state.next_run.map(Time),
        }
    }
}

/// All tasks.
#[derive(Debug, Serialize, ToSchema)]
struct Tasks {
    items: Vec<Task>,
}

async fn known(shared: &Arc<Shared>) -> Result<Vec<TaskState>, PageError> {
    shared.blocking(|shared| shared.running.tasks().map_err(PageError::Failed)).await
}

/// What the gateway does by itself, when it did and when it will
#[utoipa::path(get, path = "/tasks", tag = "tasks", responses((status = 200, body = Tasks)))]
async fn tasks(State(shared): State<Arc<Shared>>) -> Result<Json<Tasks>, Problem> {
    Ok(Json(Tasks { items: known(&shared).await?.into_iter().map(Task::from).collect() }))
}

/// The name as the gateway knows it.
async fn named(shared: &Arc<Shared>, name: &str) -> Result<&'static str, Problem> {
    let all = known(shared).await?;
    all.iter().find(|task| task.name == name).map(|task| task.name).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|task| task.name).collect();
        Problem::not_found(format!("There is no such task; there are {}.", names.join(", ")))
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RunsAsked {
    #[serde(default)]
    limit: Limit,
}

/// The latest runs of a task, newest first
///
/// Not more than a thousand are kept: one page.
#[utoipa::path(get, path = "/tasks/{task}/runs", tag = "tasks",
    params(("task" = inline(Text<64>), Path, description = "Its name"), RunsAsked),
    responses((status = 200, body = Page<TaskRun>)))]
async fn runs(
    State(shared): State<Arc<Shared>>,
    Part(task): Part<Text<64>>,
    Params(asked): Params<RunsAsked>,
) -> Result<Json<Page<TaskRun>>, Problem> {
    let name = named(&shared, &task.0).await?;
    let found = shared.state(move |state| state.task_runs(Some(name), asked.limit.get())).await?;
    Ok(Json(Page { items: found.into_iter().map(TaskRun::from).collect(), next: None }))
}

/// Run a task now
///
/// Answers when it has begun; its outcome is the newest of its runs.
#[utoipa::path(post, path = "/tasks/{task}/run", tag = "tasks",
    params(("task" = inline(Text<64>), Path, description = "Its name")),
    responses(
        (status = 202, body = Done),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "It is running already, or cannot be run now."),
    ))]
async fn run(
    State(shared): State<Arc<Shared>>,
    Part(task): Part<Text<64>>,
) -> Result<(StatusCode, Json<Done>), Problem> {
    let name = named(&shared, &task.0).await?;
    let begun = shared.blocking(move |shared| shared.running.run_task(name).map_err(PageError::Conflict));
    begun.await?;
    Ok((StatusCode::ACCEPTED, Json(Done::new(format!("{name} has begun.")))))
}

/// Something that people were told of, or will be.
#[derive(Debug, Serialize, ToSchema)]
struct Alert {
    last_at: Time,
    severity: FindingSeverity,
    events: u64,
    what: String,
}

impl From<Told> for Alert {
    fn from(Told { last_at, severity, events, what }: Told) -> Self {
        Self { last_at: Time(last_at), severity: FindingSeverity(severity), events, what }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AlertsAsked {
    #[serde(default)]
    limit: Limit,
}

/// What people were told of last, newest first
///
/// The newest alone are kept: one page.
#[utoipa::path(get, path = "/alerts", tag = "tasks", params(AlertsAsked), responses((status = 200, body = Page<Alert>)))]
async fn alerts(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<AlertsAsked>,
) -> Result<Json<Page<Alert>>, Problem> {
    let limit = asked.limit.get();
    let found =
        shared.blocking(move |shared| shared.running.recent_alerts(limit).map_err(PageError::Failed)).await?;
    Ok(Json(Page { items: found.into_iter().map(Alert::from).collect(), next: None }))
}

/// A way in which people are told, as it is now.
#[derive(Debug, Serialize, ToSchema)]
struct Channel {
    name: String,
    /// Where it leads, without anything secret.
    target: String,
    sent: u64,
    last_sent: Option<Time>,
    /// Events that wait to be told.
    waiting: u64,
    next: Option<Time>,
    failing_since: Option<Time>,
    /// What the last try said.
    error: Option<String>,
    /// Events that nobody was told of.
    lost: u64,
}

impl From<ChannelState> for Channel {
    fn from(state: ChannelState) -> Self {
        let (failing_since, error) = state.failing.unzip();
        Self {
            name: state.name,
            target: state.target,
            sent: state.sent,
            last_sent: state.last_sent.map(Time),
            waiting: state.waiting,
            next: state.next.map(Time),
            failing_since: failing_since.map(Time),
            error,
            lost: state.lost,
        }
    }
}

/// All ways in which people are told.
#[derive(Debug, Serialize, ToSchema)]
struct Channels {
    items: Vec<Channel>,
}

/// How it is with the ways in which people are told
#[utoipa::path(get, path = "/alerts/channels", tag = "tasks", responses((status = 200, body = Channels)))]
async fn channels(State(shared): State<Arc<Shared>>) -> Result<Json<Channels>, Problem> {
    let found = shared.blocking(|shared| shared.running.channels().map_err(PageError::Failed)).await?;
    Ok(Json(Channels { items: found.into_iter().map(Channel::from).collect() }))
}

/// What became of a test of a channel.
#[derive(Debug, Serialize, ToSchema)]
struct Tested {
    channel: String,
    target: String,
    /// Why it failed.
    problem: Option<String>,
}

impl From<Tried> for Tested {
    fn from(Tried { channel, target, problem }: Tried) -> Self {
        Self { channel, target, problem }
    }
}

/// What became of a test.
#[derive(Debug, Serialize, ToSchema)]
struct Tests {
    items: Vec<Tested>,
}

/// Send a message through each channel
#[utoipa::path(post, path = "/alerts/test", tag = "tasks", responses((status = 200, body = Tests)))]
async fn test_alerts(State(shared): State<Arc<Shared>>) -> Result<Json<Tests>, Problem> {
    let tried = shared.blocking(|shared| shared.running.test_alerts().map_err(PageError::Failed)).await?;
    Ok(Json(Tests { items: tried.into_iter().map(Tested::from).collect() }))
}

/// How it is with a source.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SourceCondition {
    Good,
    /// Works, and not as it should.
    Poor,
    Bad,
    /// There is nothing of it yet.
    Waiting,
}

impl From<Condition> for SourceCondition {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::Good => Self::Good,
            Condition::Poor => Self::Poor,
            Condition::Bad => Self::Bad,
            Condition::Waiting => Self::Waiting,
        }
    }
}

/// One source as it is now.
#[derive(Debug, Serialize, ToSchema)]
struct KnowledgeSource {
    name: String,
    condition: SourceCondition,
    /// What it holds, and from where, without anything secret.
    facts: String,
    updated: Option<Time>,
    problem: Option<String>,
}

impl From<SourceState> for KnowledgeSource {
    fn from(state: SourceState) -> Self {
        let SourceState { name, condition, facts, updated, problem } = state;
        Self { name, condition: condition.into(), facts, updated: updated.map(Time), problem }
    }
}

/// Sources of one kind.
#[derive(Debug, Serialize, ToSchema)]
struct SourcesOfOneKind {
    name: &'static str,
    /// The task that has them updated.
    task: Option<&'static str>,
    items: Vec<KnowledgeSource>,
}

impl From<SourceGroup> for SourcesOfOneKind {
    fn from(group: SourceGroup) -> Self {
        let items = group.sources.into_iter().map(KnowledgeSource::from).collect();
        Self { name: group.name, task: group.task, items }
    }
}

/// Where the gateway gets its knowledge from.
#[derive(Debug, Serialize, ToSchema)]
struct Sources {
    items: Vec<SourcesOfOneKind>,
}

/// Where the gateway gets its knowledge from: feeds, locations, crawlers, the site itself
#[utoipa::path(get, path = "/sources", tag = "tasks", responses((status = 200, body = Sources)))]
async fn sources(State(shared): State<Arc<Shared>>) -> Result<Json<Sources>, Problem> {
    let found = shared.blocking(|shared| shared.running.sources().map_err(PageError::Failed)).await?;
    Ok(Json(Sources { items: found.into_iter().map(SourcesOfOneKind::from).collect() }))
}
