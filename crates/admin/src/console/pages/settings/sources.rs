//! Where the gateway's knowledge comes from, how old it is, and a button that has it updated.
//! Must not fetch anything: a task does.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use portcullis_model::UnixMs;

use crate::console::error::PageError;
use crate::console::layout::{form_token, table};
use crate::console::running::chores::{Condition, SourceGroup, SourceState};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{relative, visible};

use super::settings_page;

const HERE: &str = "/settings/sources";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route(HERE, get(show))
}

async fn show(visitor: Visitor, State(shared): State<Arc<Shared>>) -> Result<Html<String>, PageError> {
    let groups = shared.blocking(|shared| shared.running.sources().map_err(PageError::Failed)).await?;
    let now = shared.now();
    Ok(settings_page(
        &visitor,
        HERE,
        "Sources",
        html! { @for group in &groups { (section(&visitor, group, now)) } },
    ))
}

fn section(visitor: &Visitor, group: &SourceGroup, now: UnixMs) -> Markup {
    html! {
        section.card {
            h2 { (group.name) }
            @if group.sources.is_empty() { p.dim { (group.without) } } @else {
                (table(group.name, html! {
                    thead {
                        tr {
                            th scope="col" { "Source" } th scope="col" { "State" } th scope="col" { "Updated" }
                            th scope="col" { "What it holds" }
                        }
                    }
                    tbody { @for source in &group.sources { (row(source, now)) } }
                }))
            }
            @if let (Some(task), true) = (group.task, visitor.is_operator()) {
                form action="/settings/tasks/run" method="post" {
                    (form_token(visitor))
                    input type="hidden" name="task" value=(task);
                    div.actions { button.quiet aria-label=(format!("Update now: {}", group.name)) { "Update now" } }
                }
            }
        }
    }
}

fn row(source: &SourceState, now: UnixMs) -> Markup {
    let (class, word) = match source.condition {
        Condition::Good => ("badge good", "in force"),
        Condition::Poor => ("badge warn", "the last good copy"),
        Condition::Bad => ("badge bad", "failing"),
        Condition::Waiting => ("badge calm", "not there yet"),
    };
    html! {
        tr {
            th scope="row" { (source.name) }
            td.keep { span class=(class) { (word) } }
            td.keep { @match source.updated { Some(at) => (relative(at, now)), None => "never" } }
            td.wide { (visible(&source.facts)) @if let Some(problem) = &source.problem { div.field-error { (visible(problem)) } } }
        }
    }
}
