//! The audit log: who changed what, when and from where.
//! Must not change it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use portcullis_store::{AuditEntry, AuditFilter};
use serde::Deserialize;

use super::settings::settings_page;
use crate::console::error::PageError;
use crate::console::layout::{empty, table};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words;

const PER_PAGE: usize = 100;
/// Characters of a filter.
const MAX_FILTER: usize = 100;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/settings/audit", get(show))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    actor: String,
    #[serde(default)]
    action: String,
    before: Option<i64>,
}

async fn show(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, PageError> {
    let text = |text: &str| (!text.is_empty()).then(|| text.chars().take(MAX_FILTER).collect());
    let filter = AuditFilter { actor: text(&asked.actor), action: text(&asked.action), before: asked.before };
    let mut entries = shared.state(move |state| state.audit_page(&filter, PER_PAGE + 1)).await?;
    let has_more = entries.len() > PER_PAGE;
    entries.truncate(PER_PAGE);
    let older = entries.last().filter(|_| has_more).map(|last| last.id.to_string());
    let body = html! {
        (filters(&asked))
        @if entries.is_empty() { (empty("Nothing that fits.")) } @else { (rows(&entries)) }
        nav.pager aria-label="Pages of the audit log" {
            @if asked.before.is_some() { a href=(link(&asked, "")) { "Newest" } } @else { span {} }
            @if let Some(before) = older { a href=(link(&asked, &before)) { "Older" } }
        }
    };
    Ok(settings_page(&visitor, "/settings/audit", "Audit log", body))
}

fn link(asked: &Asked, before: &str) -> String {
    let pairs = [("actor", &*asked.actor), ("action", &*asked.action), ("before", before)];
    words::address("/settings/audit", &pairs)
}

fn filters(asked: &Asked) -> Markup {
    html! {
        form.fields method="get" action="/settings/audit" {
            div {
                label for="actor" { "Who (beginning)" }
                input #actor name="actor" value=(asked.actor) maxlength=(MAX_FILTER) placeholder="console:alice";
            }
            div {
                label for="action" { "What" }
                input #action name="action" value=(asked.action) maxlength=(MAX_FILTER) placeholder="block";
            }
            button type="submit" { "Show" }
        }
    }
}

fn rows(entries: &[AuditEntry]) -> Markup {
    table(
        "The audit log, newest first",
        html! {
            thead { tr {
                th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "From" }
                th scope="col" { "What" } th scope="col" { "To what" } th scope="col" { "Detail" }
            } }
            tbody { @for entry in entries { tr {
                td.keep { (words::time(entry.at)) }
                td { a href=(words::address("/settings/audit", &[("actor", &entry.actor)])) { (words::visible(&entry.actor)) } }
                td.mono { @match &entry.origin { Some(origin) => (origin), None => span.dim { "this machine" } } }
                td { a href=(words::address("/settings/audit", &[("action", &entry.action)])) { (words::visible(&entry.action)) } }
                td.wide { (words::visible(&entry.subject)) }
                td.wide { (words::visible(&entry.detail)) }
            } } }
        },
    )
}
