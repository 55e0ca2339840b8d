//! What the gateway does by itself: when it did, when it will, and a button for now.
//! Must not know what a task does.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_model::UnixMs;
use portcullis_store::TaskRun;
use serde::Deserialize;

use crate::console::error::PageError;
use crate::console::forms::Change;
use crate::console::layout::{empty, form_token, table};
use crate::console::running::chores::TaskState;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{relative, time, visible};

use super::watching_page;

const HERE: &str = "/settings/tasks";
/// Runs that are listed.
const MAX_RUNS: usize = 50;
/// How often the page looks again while a task runs, in milliseconds.
const LOOK_MS: u32 = 1_000;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route(HERE, get(show)).route("/settings/tasks/run", post(run))
}

#[derive(Deserialize)]
struct Run {
    task: String,
}

async fn show(visitor: Visitor, State(shared): State<Arc<Shared>>) -> Result<Html<String>, PageError> {
    let tasks = shared.blocking(|shared| shared.running.tasks().map_err(PageError::Failed)).await?;
    let runs = shared.state(|state| state.task_runs(None, MAX_RUNS)).await?;
    let now = shared.now();
    let is_busy = tasks.iter().any(|task| task.running_since.is_some());
    Ok(watching_page(
        &visitor,
        HERE,
        "Tasks",
        html! {
            div #tasks data-refresh=[is_busy.then_some(LOOK_MS)] {
                (table("Tasks", html! {
                    thead {
                        tr {
                            th scope="col" { "Task" } th scope="col" { "Schedule" } th scope="col" { "Last run" }
                            th scope="col" { "Next run" } th scope="col" { "Outcome" }
                            @if visitor.is_operator() { th scope="col" { "Now" } }
                        }
                    }
                    tbody { @for task in &tasks { (row(&visitor, task, now)) } }
                }))
                h2 { "Last runs" }
                @if runs.is_empty() { (empty("No task has run yet.")) } @else { (history(&runs)) }
            }
        },
    ))
}

async fn run(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Run>,
) -> Result<Redirect, PageError> {
    let task = form.task.clone();
    shared.blocking(move |shared| shared.running.run_task(&task).map_err(PageError::Conflict)).await?;
    let (actor, now) = (visitor.actor(), shared.now());
    shared.change(&visitor, move |state| state.note_act(&actor, "run", &form.task, "", now)).await?;
    Ok(Redirect::to(HERE))
}

fn row(visitor: &Visitor, task: &TaskState, now: UnixMs) -> Markup {
    let run = task.last_run.as_ref();
    html! {
        tr {
            th scope="row" { (task.name) div.hint { (task.about) } }
            td.keep { (task.schedule) }
            td.keep { @match run { Some(run) => (relative(run.started_at, now)), None => "never" } }
            td.keep {
                @match (task.running_since, task.next_run) {
                    (Some(since), _) => span.badge.warn { "running, begun " (relative(since, now)) },
                    (None, Some(at)) => (relative(at, now)),
                    (None, None) => "by hand only",
                }
            }
            td.wide { @if let Some(run) = run { (outcome(run)) } }
            @if visitor.is_operator() {
                td.keep {
                    form action="/settings/tasks/run" method="post" {
                        (form_token(visitor))
                        input type="hidden" name="task" value=(task.name);
                        button.quiet disabled[task.running_since.is_some()] { "Run now" span.hidden { " " (task.name) } }
                    }
                }
            }
        }
    }
}

fn outcome(run: &TaskRun) -> Markup {
    html! {
        @if run.succeeded { span.badge.good { "done" } } @else { span.badge.bad { "failed" } }
        " " (visible(&run.summary))
    }
}

fn history(runs: &[TaskRun]) -> Markup {
    table(
        "The last runs of all tasks",
        html! {
            thead {
                tr {
                    th scope="col" { "Begun" } th scope="col" { "Task" } th.number scope="col" { "Took" }
                    th scope="col" { "Outcome" }
                }
            }
            tbody {
                @for run in runs {
                    tr {
                        td.keep { (time(run.started_at)) }
                        td.keep { (run.task) }
                        td.number { (format!("{:.1} s", run.finished_at.since(run.started_at).as_secs_f64())) }
                        td.wide { (outcome(run)) }
                    }
                }
            }
        },
    )
}
