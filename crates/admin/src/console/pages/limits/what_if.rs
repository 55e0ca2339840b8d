//! What a limit with another rate would have refused: the question, its progress, its answer.
//! Must not compute it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use portcullis_config::format_duration;
use portcullis_model::UnixMs;
use portcullis_policy::Rate;
use serde::Deserialize;

use crate::console::error::PageError;
use crate::console::forms::{Change, Nothing};
use crate::console::layout::{form_token, table};
use crate::console::running::limits::{Answer, Asked, LimitNow, Refusals, WhatIf};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{count, number, relative, time};

use super::{HERE, SPANS, client, limits};

/// How often the page looks again while it is being computed, in milliseconds.
const LOOK_MS: u32 = 1_000;

#[derive(Deserialize)]
pub(super) struct Form {
    rule: String,
    rate: String,
    span: String,
}

/// A question that was no good.
pub(super) struct Attempt {
    form: Form,
    problem: String,
}

pub(super) async fn ask(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Form>,
) -> Result<Response, PageError> {
    let asked = match question(&form) {
        Ok(question) => shared.blocking(move |shared| Ok(shared.running.ask_what_if(question))).await?,
        Err(problem) => Err(problem),
    };
    match asked {
        Ok(()) => Ok(Redirect::to("/limits#what-if").into_response()),
        Err(problem) => {
            let page = limits(&visitor, &shared, Some(&Attempt { form, problem })).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
    }
}

pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Change { form: Nothing {}, .. }: Change<Nothing>,
) -> Result<Redirect, PageError> {
    shared.running.cancel_what_if().map_err(PageError::Failed)?;
    Ok(Redirect::to(HERE))
}

fn question(form: &Form) -> Result<WhatIf, String> {
    let rate: Rate = form.rate.trim().parse().map_err(|error| format!("{error}."))?;
    let span = SPANS.iter().find(|(name, _)| *name == form.span).map(|(_, span)| *span);
    let span = span.ok_or_else(|| "Choose one of the spans.".to_owned())?;
    Ok(WhatIf { rule: form.rule.clone(), rate, span })
}

pub(super) fn section(
    visitor: &Visitor,
    rules: &[LimitNow],
    asked: Option<&Asked>,
    attempt: Option<&Attempt>,
    now: UnixMs,
) -> Markup {
    let is_computing = asked.is_some_and(|asked| matches!(asked.answer, Answer::Computing(_)));
    html! {
        section.card aria-labelledby="what-if" {
            h2 #what-if { "What if?" }
            p.dim { "What a limit with another rate would have refused of what is in the log." }
            @if visitor.is_operator() { (form(visitor, rules, asked, attempt)) }
            div #what-if-answer data-refresh=[is_computing.then_some(LOOK_MS)] {
                @if let Some(asked) = asked { (shown(visitor, asked, now)) }
            }
        }
    }
}

fn form(visitor: &Visitor, rules: &[LimitNow], asked: Option<&Asked>, attempt: Option<&Attempt>) -> Markup {
    let last = asked.map(|asked| &asked.question);
    let rule = attempt.map(|attempt| attempt.form.rule.as_str()).or(last.map(|last| last.rule.as_str()));
    let rate = attempt.map(|attempt| attempt.form.rate.clone()).or(last.map(|last| last.rate.to_string()));
    let span = attempt
        .map(|attempt| attempt.form.span.as_str())
        .or(last.and_then(|last| SPANS.iter().find(|(_, span)| *span == last.span).map(|(name, _)| *name)));
    let described = attempt.map(|_| "what-if-problem");
    html! {
        form action="/limits/what-if" method="post" {
            (form_token(visitor))
            div.fields {
                div {
                    label for="what-if-rule" { "Limit" }
                    select #what-if-rule name="rule" {
                        @for one in rules {
                            option value=(one.name) selected[rule == Some(&*one.name)] disabled[one.cannot_replay.is_some()] {
                                (one.name) " (" (one.allowance) ")"
                            }
                        }
                    }
                }
                div {
                    label for="what-if-rate" { "Rate" }
                    input #what-if-rate name="rate" value=[rate] placeholder="5/m" required maxlength="30" size="10"
                        aria-invalid=[attempt.map(|_| "true")] aria-describedby=[described];
                }
                div {
                    label for="what-if-span" { "Over the last" }
                    select #what-if-span name="span" {
                        @for (name, _) in SPANS { option value=(name) selected[span == Some(name)] { (name) } }
                    }
                }
                div { button { "Compute" } }
            }
            @if let Some(attempt) = attempt { p.field-error #what-if-problem { (attempt.problem) } }
        }
        @for one in rules {
            @if let Some(why) = one.cannot_replay { p.hint { (one.name) ": " (why) } }
        }
    }
}

fn shown(visitor: &Visitor, asked: &Asked, now: UnixMs) -> Markup {
    let WhatIf { rule, rate, span } = &asked.question;
    let question = format!("{rule} at {rate}, over {}", in_words(*span));
    html! {
        @match &asked.answer {
            Answer::Computing(percent) => {
                p role="status" { (question) ": " (percent) " % done, begun " (relative(asked.begun, now)) "." }
                progress max="100" value=(percent) aria-label="How much of the log has been gone through" {}
                @if visitor.is_operator() {
                    form action="/limits/what-if/cancel" method="post" {
                        (form_token(visitor))
                        div.actions { button.quiet { "Cancel" } }
                    }
                }
            }
            Answer::Cancelled => p { (question) ": cancelled." },
            Answer::Failed(why) => p.field-error { (question) ": " (why) },
            Answer::Done(refusals) => (answer(&question, refusals)),
        }
    }
}

fn in_words(span: Duration) -> String {
    let named = SPANS.iter().find(|(_, one)| *one == span).map(|(name, _)| (*name).to_owned());
    format!("the last {}", named.unwrap_or_else(|| format_duration(span)))
}

fn answer(question: &str, refusals: &Refusals) -> Markup {
    html! {
        p role="status" {
            strong { (question) ": " }
            (number(refusals.refused)) " of " (count(refusals.meant, "request")) " would have been refused, of "
            (count(refusals.clients, "client")) "; " (number(refusals.innocent)) " of them look innocent. The limit as \
            it was refused " (number(refusals.were_refused)) "."
        }
        @if refusals.of_others > 0 {
            p.hint { "There were more clients than are told apart; the totals count all." }
        }
        @if !refusals.first.is_empty() {
            (table("Clients that would have been refused, the most refused first", html! {
                thead {
                    tr {
                        th scope="col" { "Client" } th.number scope="col" { "Refused" } th.number scope="col" { "Of requests" }
                        th scope="col" { "First" } th scope="col" { "Looks" }
                    }
                }
                tbody {
                    @for one in &refusals.first {
                        tr {
                            td.keep { (client(one.client)) }
                            td.number { (number(one.refused)) }
                            td.number { (number(one.requests)) }
                            td.keep { (time(one.first_refused)) }
                            td {
                                @if one.is_innocent { span.badge.warn { "innocent" } }
                                @else { span.badge.calm { "not innocent" } }
                            }
                        }
                    }
                }
            }))
            p.hint { "Innocent: nothing was found about it, and at least half of what it asked for was answered well." }
        }
    }
}
