//! The log, newest first, with filters, pages, a live tail and exports.
//! Must not decide about requests.

mod asked;
mod columns;
mod export;
mod find;
mod form;
mod tail;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use maud::{Markup, html};
use portcullis_store::{LogCursor, Page};

use crate::console::error::PageError;
use crate::console::layout::{self, Tab, page_with};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{number, time};

use asked::{Asked, Fault};
pub(super) use columns::duration;
pub(in crate::console) use export::MAX_EXPORTS;

/// Rows of one page.
const PAGE_ROWS: usize = 100;
/// How long one page searches; then it says how far it came.
const SEARCH_TIME: Duration = Duration::from_millis(1_500);
const BEFORE: &str = "before";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/requests", get(show))
        .route("/requests/tail", get(tail::follow))
        .route("/requests/export.csv", get(export::as_csv))
        .route("/requests/export.jsonl", get(export::as_json_lines))
        .route("/find", get(find::find))
}

/// The names and values of an address.
fn pairs(query: Option<String>) -> Vec<(String, String)> {
    serde_urlencoded::from_str(&query.unwrap_or_default()).unwrap_or_default()
}

async fn show(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Result<Response, PageError> {
    let pairs = pairs(query);
    let asked = Asked::of(&pairs);
    let before = pairs.iter().find(|(name, _)| name == BEFORE).map(|(_, value)| value.parse::<LogCursor>());
    let before = before.transpose().map_err(|_| {
        PageError::Invalid("This link to older requests is broken. Begin with the newest.".to_owned())
    })?;
    let (status, faults, results) = match asked.filter(shared.now()) {
        Ok(filter) => {
            let page = shared
                .log_if_any(move |log| log.page(&filter, before, PAGE_ROWS, Instant::now() + SEARCH_TIME))
                .await?;
            (StatusCode::OK, Vec::new(), results(&asked, before, page))
        }
        Err(faults) => (StatusCode::UNPROCESSABLE_ENTITY, faults, misasked()),
    };
    let body = body(&asked, &faults, &results);
    Ok((status, page_with(&visitor, Tab::Requests, "Requests", &["requests.js"], body)).into_response())
}

fn body(asked: &Asked, faults: &[Fault], results: &Markup) -> Markup {
    html! {
        (form::filters(asked, faults))
        @if faults.is_empty() { (tools(asked)) }
        div #results aria-live="polite" { (results) }
    }
}

/// What can be done with all requests of the filter.
fn tools(asked: &Asked) -> Markup {
    html! {
        div.tools data-tools {
            button.quiet.scripted type="button" data-tail=(asked.address("/requests/tail", &[])) aria-pressed="false" {
                "Follow live"
            }
            span.dim data-tail-state role="status" {}
            span.spacer {}
            span.dim { "Export all that match:" }
            a.button.quiet href=(asked.address("/requests/export.csv", &[])) download data-export { "CSV" }
            a.button.quiet href=(asked.address("/requests/export.jsonl", &[])) download data-export { "JSON lines" }
            div.progress data-progress hidden {
                span role="status" data-progress-text {}
                button.quiet type="button" data-progress-cancel { "Cancel" }
            }
        }
    }
}

fn misasked() -> Markup {
    layout::empty("Correct the fields above; nothing was searched.")
}

fn results(asked: &Asked, before: Option<LogCursor>, page: Option<Page>) -> Markup {
    let Some(page) = page else {
        return layout::empty(
            "No request has been logged yet. Send one through the gateway, and it appears here.",
        );
    };
    let heading = html! { thead { tr { @for column in &asked.columns { (column.heading()) } } } };
    html! {
        @if page.rows.is_empty() && page.is_complete {
            (layout::empty(if before.is_some() { "There are no older requests that match." } else { "No request matches." }))
        }
        @if !page.rows.is_empty() || before.is_none() {
            (layout::table("Requests, the newest first", html! {
                (heading)
                tbody data-rows { @for row in &page.rows { (columns::row(row, asked)) } }
            }))
        }
        (pager(asked, before, &page))
    }
}

fn pager(asked: &Asked, before: Option<LogCursor>, page: &Page) -> Markup {
    let next = page.next.map(|cursor| asked.address("/requests", &[(BEFORE, &cursor.to_string())]));
    html! {
        nav.pager aria-label="Pages of the log" {
            @if before.is_some() {
                a.button.quiet href=(asked.address("/requests", &[])) { "Back to the newest" }
            }
            p.dim {
                (number(page.rows.len() as u64)) " shown"
                @if !page.is_complete { "; nothing else since " (time(page.searched_to)) ", the search goes on from there" }
            }
            @if let Some(next) = next {
                a.button.quiet href=(next) rel="next" {
                    @if page.is_complete { "Older" } @else { "Go on searching" }
                }
            }
        }
    }
}
