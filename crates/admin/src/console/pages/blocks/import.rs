//! Many blocks at once: pasted or read from a file, rehearsed, and then added, all of them or none.
//! Must not add anything that the rehearsal did not show.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use portcullis_model::reason_of;
use portcullis_store::{Imported, State as Store};

use super::add::{duration_choice, expiry};
use crate::console::actions;
use crate::console::error::PageError;
use crate::console::forms::{Change, Fields};
use crate::console::layout::{Tab, form_token, page_with};
use crate::console::running::clients::{AskedList, ReadList};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{count, visible};

/// What was typed.
#[derive(Default)]
struct Draft {
    list: String,
    reason: String,
    expires: String,
    until: String,
    is_forced: bool,
    leaves_out_bad: bool,
}

impl Draft {
    fn of(fields: &Fields) -> Self {
        Self {
            list: fields.all("list").next().unwrap_or("").to_owned(),
            reason: fields.text("reason").to_owned(),
            expires: fields.text("expires").to_owned(),
            until: fields.text("until").to_owned(),
            is_forced: fields.is_ticked("force"),
            leaves_out_bad: fields.is_ticked("leave-out-bad"),
        }
    }
}

/// What an import would do, or what keeps it from being done.
enum Outcome {
    Nothing,
    Problem(String),
    Rehearsed(ReadList, Imported),
}

pub(super) async fn ask(visitor: Visitor) -> Html<String> {
    show(&visitor, &Draft { expires: "never".to_owned(), ..Draft::default() }, &Outcome::Nothing)
}

pub(super) async fn import(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let fields = Fields::new(form);
    let draft = Draft::of(&fields);
    let list = match read(&shared, &visitor, &draft).await? {
        Ok(list) => list,
        Err(problem) => return Ok(refused(&visitor, &draft, &Outcome::Problem(problem))),
    };
    let may_be_done = (list.bad == 0 || draft.leaves_out_bad) && !list.blocks.is_empty();
    if !(fields.text("step") == "import" && may_be_done) {
        let now = shared.now();
        let blocks = list.blocks.clone();
        let imported = shared.state(move |state: &Store| state.rehearse_import(&blocks, now)).await?;
        let has_problem = list.bad > 0 && !draft.leaves_out_bad;
        let outcome = Outcome::Rehearsed(list, imported);
        return Ok(match has_problem {
            true => refused(&visitor, &draft, &outcome),
            false => show(&visitor, &draft, &outcome).into_response(),
        });
    }
    let (_, done) =
        shared.act(&visitor, move |state, author| actions::import(state, &list.blocks, author)).await?;
    Ok(Redirect::to(&shared.notices.keep(&visitor, "/blocks", done.text, done.undo)).into_response())
}

async fn read(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    draft: &Draft,
) -> Result<Result<ReadList, String>, PageError> {
    let now = shared.now();
    let expires_at = match expiry(&draft.expires, &draft.until, now) {
        Ok(expires_at) => expires_at,
        Err(problem) => return Ok(Err(format!("The end: {problem}."))),
    };
    let reason = match reason_of(&draft.reason) {
        Ok(reason) if reason.is_empty() => "imported in the console".to_owned(),
        Ok(reason) => reason,
        Err(problem) => return Ok(Err(format!("The reason: {problem}."))),
    };
    let (text, is_forced, from) = (draft.list.clone(), draft.is_forced, visitor.from);
    shared
        .blocking(move |shared| {
            let asked = AskedList {
                text: text.as_bytes(),
                reason: &reason,
                expires_at,
                is_forced,
                visitor: from,
                now,
            };
            Ok(shared.running.read_list(&asked))
        })
        .await
}

fn refused(visitor: &Visitor, draft: &Draft, outcome: &Outcome) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, show(visitor, draft, outcome)).into_response()
}

fn show(visitor: &Visitor, draft: &Draft, outcome: &Outcome) -> Html<String> {
    let body = html! {
        p {
            "One address, prefix or range per line, with a reason behind " code { "#" } " if you like; also CSV ("
            code { "network,reason,expires" } "), JSON and nginx " code { "deny" } " lines. A rehearsal shows what would "
            "happen before anything does."
        }
        form action="/blocks/import" method="post" {
            (form_token(visitor))
            (rehearsal(draft, outcome))
            div.field {
                label for="list" { "The list" }
                textarea.mono #list name="list" rows="12" required spellcheck="false" { (draft.list) }
                p.hint.scripted data-file-choice {
                    label for="file" { "Or from a file" } input #file type="file" data-into="list";
                }
            }
            div.fields {
                div {
                    label for="reason" { "Reason, for lines without one" }
                    input #reason name="reason" value=(draft.reason) maxlength="1000" autocomplete="off";
                }
                div { label for="expires" { "For how long" } (duration_choice("expires", &draft.expires)) }
                div {
                    label for="until" { "Or until" }
                    input #until name="until" value=(draft.until) maxlength="40" placeholder="2026-12-31 or +12h (UTC)";
                }
            }
            p {
                label.choice {
                    input type="checkbox" name="force" value="yes" checked[draft.is_forced];
                    " Also what is private, this machine's, a trusted proxy's, your own address, or very wide"
                }
            }
            div.actions {
                button.quiet name="step" value="rehearse" { "Rehearse" }
                a href="/blocks" { "Back to the blocks" }
            }
        }
    };
    page_with(visitor, Tab::Blocks, "Import blocks", &["blocks.js"], body)
}

fn rehearsal(draft: &Draft, outcome: &Outcome) -> Markup {
    let (list, imported) = match outcome {
        Outcome::Nothing => return html! {},
        Outcome::Problem(problem) => return html! { div.notice.error role="alert" { p { (problem) } } },
        Outcome::Rehearsed(list, imported) => (list, imported),
    };
    let is_stopped = list.bad > 0 && !draft.leaves_out_bad;
    html! {
        section.card aria-labelledby="rehearsal" {
            h2 #rehearsal { "Rehearsal" }
            p role="status" {
                "Read as " (list.format) ": " strong { (count(imported.added, "block")) " would be added" }
                @if imported.kept > 0 { ", " (count(imported.kept, "entry")) " blocked already" }
                @if list.expired > 0 { ", " (count(list.expired, "entry")) " out of date" }
                @if list.refused > 0 { ", " (count(list.refused, "entry")) " refused" }
                @if list.bad > 0 { ", " (count(list.bad, "line")) " bad" }
                @if list.allows > 0 { ", " (count(list.allows, "\"allow\" line")) " left out" }
                "."
            }
            (lines("Refused, because a list must not block it", &list.refused_shown, list.refused))
            (lines("Bad lines", &list.bad_shown, list.bad))
            @if is_stopped {
                p.field-error { "Nothing is imported as long as a line is bad. Correct it, or leave it out:" }
            }
            @if list.bad > 0 {
                p {
                    label.choice {
                        input type="checkbox" name="leave-out-bad" value="yes" checked[draft.leaves_out_bad];
                        " Leave out the bad lines"
                    }
                }
            }
            @if imported.added > 0 {
                button name="step" value="import" { "Import " (count(imported.added, "block")) }
            }
        }
    }
}

fn lines(heading: &str, shown: &[String], all: u64) -> Markup {
    html! {
        @if !shown.is_empty() {
            h3 { (heading) }
            ul.mono {
                @for line in shown { li { (visible(line)) } }
                @if all > shown.len() as u64 { li { "and " (count(all - shown.len() as u64, "other")) } }
            }
        }
    }
}
