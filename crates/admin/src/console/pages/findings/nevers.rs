//! What was dismissed for good: listed, and taken back.
//! Must not judge.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{Html, Redirect};
use maud::html;
use portcullis_store::Never;
use serde::Deserialize;

use crate::console::actions;
use crate::console::error::PageError;
use crate::console::forms::{Change, Fields};
use crate::console::layout::{Tab, empty, form_token, page, table};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{relative, visible};

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    done: String,
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(Asked { done }): Query<Asked>,
) -> Result<Html<String>, PageError> {
    let nevers = shared.state(|state| state.nevers()).await?;
    let now = shared.now();
    let row = |never: &Never| {
        html! {
            tr {
                th.wide scope="row" { (visible(&never.to_string())) }
                td { (visible(&never.note)) }
                td.keep { (relative(never.created_at, now)) div.dim { (visible(&never.created_by)) } }
                td.keep {
                    @if let Some(finding) = never.finding_id {
                        a href=(format!("/findings/{finding}")) { "finding " (finding) }
                    }
                }
                @if visitor.is_operator() {
                    td { button.quiet name="only" value=(never.id) { "Let it speak again" } }
                }
            }
        }
    };
    let rows = html! {
        thead { tr {
            th scope="col" { "Never again" }
            th scope="col" { "Note" }
            th scope="col" { "Since" }
            th scope="col" { "Because of" }
            @if visitor.is_operator() { th scope="col" { span.hidden { "Actions" } } }
        } }
        tbody { @for never in &nevers { (row(never)) } }
    };
    let body = html! {
        (shared.notices.show(&visitor, &done))
        nav aria-label="Lists" {
            ul.tabs {
                li { a href="/findings" { "Findings" } }
                li { a href="/findings/never" aria-current="page" { "Never again" } }
            }
        }
        @if nevers.is_empty() {
            (empty("Nothing was dismissed for good. On the page of a finding, a rule can be told to be silent about its client, a path, or everybody."))
        } @else {
            form action="/findings/never" method="post" { (form_token(&visitor)) (table("Dismissed for good", rows)) }
        }
    };
    Ok(page(&visitor, Tab::Findings, "Never again", body))
}

pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Vec<(String, String)>>,
) -> Result<Redirect, PageError> {
    let fields = Fields::new(form);
    let ids = fields.chosen()?;
    let id = ids[0];
    let done = shared.act(&visitor, move |state, author| actions::remove_never(state, id, author)).await?;
    Ok(shared.notices.answer(&visitor, &fields, "/findings/never", done))
}
