//! The configuration: what of it can be changed without a restart, what became of the last reload, and another one.
//! Must not show values: secrets are among them, and the file is the place to read it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_config::takes_effect;
use portcullis_model::UnixMs;

use crate::console::error::PageError;
use crate::console::forms::{Change, Nothing};
use crate::console::layout::{form_token, table};
use crate::console::running::chores::Reloaded;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::time;

use super::settings_page;

const HERE: &str = "/settings/configuration";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route(HERE, get(show)).route("/settings/reload", post(reload))
}

async fn show(visitor: Visitor, State(shared): State<Arc<Shared>>) -> Result<Html<String>, PageError> {
    let file = shared.running.config_file().map_err(PageError::Failed)?;
    let last = shared.running.last_reload().map_err(PageError::Failed)?;
    let effects = takes_effect(&shared.config());
    let each = effects.at_once.iter().map(|name| (*name, true));
    let mut all: Vec<(&str, bool)> =
        each.chain(effects.at_the_next_start.iter().map(|name| (*name, false))).collect();
    all.sort_unstable();
    Ok(settings_page(
        &visitor,
        HERE,
        "Configuration",
        html! {
            dl.facts {
                dt { "File" } dd.mono { @match &file { Some(file) => (file.display()), None => "none: the defaults" } }
                dt { "Data" } dd.mono { (shared.data().display()) }
            }
            section.card aria-labelledby="reload" {
                h2 #reload { "Reload" }
                (outcome(last.as_ref()))
                @if visitor.is_operator() {
                    form action="/settings/reload" method="post" {
                        (form_token(&visitor))
                        div.actions { button { "Reload now" } }
                    }
                }
                p.hint { "The file is also read again by itself when it changes. A broken one changes nothing." }
            }
            h2 { "What takes effect when" }
            (table("Settings and when a change of them takes effect", html! {
                thead { tr { th scope="col" { "Setting" } th scope="col" { "A change takes effect" } } }
                tbody {
                    @for (name, at_once) in all {
                        tr {
                            td.mono { (name) }
                            td {
                                @if at_once { span.badge.good { "at once" } }
                                @else { span.badge.warn { "at the next start" } }
                            }
                        }
                    }
                }
            }))
        },
    ))
}

async fn reload(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form: Nothing {} }: Change<Nothing>,
) -> Result<Redirect, PageError> {
    let outcome = shared.blocking(|shared| shared.running.reload().map_err(PageError::Failed)).await?;
    let (actor, now) = (visitor.actor(), shared.now());
    let what = match outcome {
        Reloaded::Unchanged => "unchanged",
        Reloaded::Applied { .. } => "applied",
        Reloaded::Rejected(_) => "rejected",
    };
    shared
        .change(&visitor, move |state| state.note_act(&actor, "reload", "configuration", what, now))
        .await?;
    Ok(Redirect::to(HERE))
}

fn outcome(last: Option<&(UnixMs, Reloaded)>) -> Markup {
    let Some((at, outcome)) = last else {
        return html! { p { "Not reloaded since the start." } };
    };
    match outcome {
        Reloaded::Unchanged => html! {
            p { span.badge.good { "unchanged" } " " (time(*at)) ": nothing had changed." }
        },
        Reloaded::Applied { changed, waiting } => html! {
            p {
                span.badge.good { "applied" } " " (time(*at)) ": "
                @if changed.is_empty() { "nothing that can be changed while running" } @else { (changed.join(", ")) }
                "."
            }
            @if !waiting.is_empty() { p { span.badge.warn { "waiting" } " for the next start: " (waiting.join(", ")) "." } }
        },
        Reloaded::Rejected(why) => html! {
            p { span.badge.bad { "rejected" } " " (time(*at)) ": the old configuration stays in force." }
            pre { (why) }
        },
    }
}
