//! The detector's settings, changed while running: each beside what the file says, with who changed it and the way back.
//! Must not judge values.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_config::{LiveSetting, SettingProblem, setting_list, setting_value};
use portcullis_model::{Severity, actor_in_words};
use serde::Deserialize;

use crate::console::actions::settings::{Changed, Refused, Standing, change, standing};
use crate::console::error::PageError;
use crate::console::forms::Change;
use crate::console::layout::{form_token, warning};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::relative;

use super::settings_page;

const HERE: &str = "/settings";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route(HERE, get(show)).route("/settings/detection", post(save))
}

#[derive(Deserialize)]
struct Seen {
    /// The notice of what was just changed.
    #[serde(default)]
    done: String,
}

#[derive(Deserialize)]
struct Form {
    setting: String,
    #[serde(default)]
    value: String,
    /// Back to the file.
    #[serde(default)]
    unset: bool,
}

/// What somebody typed that was no good.
struct Attempt {
    setting: LiveSetting,
    typed: String,
    problems: Vec<SettingProblem>,
}

async fn show(
    visitor: Visitor,
    State(shared): State<Arc<Shared>>,
    Query(Seen { done }): Query<Seen>,
) -> Result<Html<String>, PageError> {
    let all = standing(&shared).await?;
    let notice = shared.notices.show(&visitor, &done);
    Ok(settings(&visitor, &shared, &all, &notice, None))
}

async fn save(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Form>,
) -> Result<Response, PageError> {
    let setting: LiveSetting =
        form.setting.parse().map_err(|unknown| PageError::Invalid(format!("{unknown}.")))?;
    let value = (!form.unset).then(|| written(setting, &form.value));
    match change(&shared, &visitor, setting, value).await {
        Ok(done) => {
            let page = shared.notices.keep(&visitor, HERE, done.text, done.undo);
            Ok(Redirect::to(&page).into_response())
        }
        Err(Refused::Failed(error)) => Err(error),
        Err(Refused::Wrong(problems)) => {
            let attempt = Attempt { setting, typed: form.value, problems };
            let page = settings(&visitor, &shared, &standing(&shared).await?, &html! {}, Some(&attempt));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
    }
}

/// What was typed into a field, as the file would write it.
fn written(setting: LiveSetting, typed: &str) -> String {
    let lines = || typed.lines().map(str::trim).filter(|line| !line.is_empty());
    match setting {
        LiveSetting::SensitivePaths | LiveSetting::LoginPaths => setting_list(lines()),
        LiveSetting::BlockFor => {
            let steps: Vec<&str> =
                typed.split([',', '\n']).map(str::trim).filter(|step| !step.is_empty()).collect();
            match steps[..] {
                [only] => setting_value(only),
                _ => setting_list(steps),
            }
        }
        LiveSetting::Enabled
        | LiveSetting::Live
        | LiveSetting::Interval
        | LiveSetting::Window
        | LiveSetting::RequestsPerHour
        | LiveSetting::ErrorRate
        | LiveSetting::ErrorMinRequests
        | LiveSetting::LoginFailures
        | LiveSetting::BlockSeverity
        | LiveSetting::BlockMemory
        | LiveSetting::Forest => setting_value(typed),
    }
}

fn settings(
    visitor: &Visitor,
    shared: &Shared,
    all: &[Standing],
    notice: &Markup,
    attempt: Option<&Attempt>,
) -> Html<String> {
    let overridden = all.iter().filter(|one| one.change.is_some()).count();
    settings_page(
        visitor,
        HERE,
        "Detection",
        html! {
            (notice)
            @if attempt.is_some() { (warning("Nothing was changed; the reason is beside the field.")) }
            p {
                "What is changed here is in force at once and after a restart, and wins over the configuration file \
                 until it is taken back. "
                @match overridden {
                    0 => "Everything is as the file has it now.",
                    1 => "One setting differs from the file now.",
                    n => { (n) " settings differ from the file now." }
                }
            }
            @for one in all {
                (row(visitor, shared, one, attempt.filter(|attempt| attempt.setting == one.setting)))
            }
        },
    )
}

fn row(visitor: &Visitor, shared: &Shared, one: &Standing, attempt: Option<&Attempt>) -> Markup {
    let name = one.setting.as_str();
    let id = name.replace('.', "-");
    let may = visitor.is_operator();
    html! {
        section.card.setting aria-labelledby=(format!("{id}-name")) {
            h2 id=(format!("{id}-name")) { label for=(id) { code { (name) } } }
            p.hint id=(format!("{id}-about")) { (one.setting.about()) }
            form action="/settings/detection" method="post" {
                (form_token(visitor))
                input type="hidden" name="setting" value=(name);
                div.fields {
                    div.grow { (field(one, shared, &id, attempt, may)) }
                    @if may { button { "Save" } }
                }
                @if let Some(attempt) = attempt { (problems(attempt, &id)) }
            }
            p.hint { (origin(one, shared)) }
            @if may && one.change.is_some() {
                form action="/settings/detection" method="post" {
                    (form_token(visitor))
                    input type="hidden" name="setting" value=(name);
                    input type="hidden" name="unset" value="true";
                    button.quiet { "Back to the file's " (short(&one.in_file)) }
                }
            }
        }
    }
}

/// Characters of a value on a button.
const MAX_SHORT: usize = 40;

fn short(value: &str) -> String {
    match value.char_indices().nth(MAX_SHORT) {
        Some((cut, _)) => format!("{}...", &value[..cut]),
        None => value.to_owned(),
    }
}

fn problems(attempt: &Attempt, id: &str) -> Markup {
    html! {
        div id=(format!("{id}-problem")) {
            @for problem in &attempt.problems {
                p.field-error {
                    @if problem.key != attempt.setting.as_str() { (problem.key) ": " }
                    (problem.message) "."
                }
            }
        }
    }
}

fn origin(one: &Standing, shared: &Shared) -> Markup {
    match &one.change {
        None => html! { "As the file says." },
        Some(Changed { by, at }) => html! {
            "Changed"
            @if let Some(by) = by { " " (actor_in_words(by)) }
            @if let Some(at) = at { ", " (relative(*at, shared.now())) }
            "; the file says " code { (one.in_file) } "."
        },
    }
}

fn field(one: &Standing, shared: &Shared, id: &str, attempt: Option<&Attempt>, may: bool) -> Markup {
    let value = attempt.map_or_else(|| typed(one.setting, shared), |attempt| attempt.typed.clone());
    let described = match attempt {
        Some(_) => format!("{id}-about {id}-problem"),
        None => format!("{id}-about"),
    };
    let invalid = attempt.map(|_| "true");
    match one.setting {
        LiveSetting::Enabled | LiveSetting::Live | LiveSetting::Forest => {
            choice(id, &value, &["true", "false"], &described, may)
        }
        LiveSetting::BlockSeverity => {
            let words: Vec<&str> = Severity::ALL.iter().map(|one| one.as_str()).chain(["never"]).collect();
            choice(id, &value, &words, &described, may)
        }
        LiveSetting::SensitivePaths | LiveSetting::LoginPaths => html! {
            textarea .mono id=(id) name="value" rows="8" spellcheck="false" disabled[!may] aria-invalid=[invalid]
                aria-describedby=(described) { "\n" (value) }
        },
        LiveSetting::Interval
        | LiveSetting::Window
        | LiveSetting::RequestsPerHour
        | LiveSetting::ErrorRate
        | LiveSetting::ErrorMinRequests
        | LiveSetting::LoginFailures
        | LiveSetting::BlockFor
        | LiveSetting::BlockMemory => html! {
            input id=(id) name="value" value=(value) required autocomplete="off" spellcheck="false" maxlength="500"
                disabled[!may] aria-invalid=[invalid] aria-describedby=(described);
        },
    }
}

fn choice(id: &str, value: &str, words: &[&str], described: &str, may: bool) -> Markup {
    html! {
        select id=(id) name="value" disabled[!may] aria-describedby=(described) {
            @for word in words { option value=(word) selected[*word == value] { (word) } }
        }
    }
}

/// The value in force as somebody would type it.
fn typed(setting: LiveSetting, shared: &Shared) -> String {
    let detection = &shared.config().detection;
    match setting {
        LiveSetting::SensitivePaths => detection.sensitive_paths.join("\n"),
        LiveSetting::LoginPaths => detection.login_paths.join("\n"),
        LiveSetting::BlockFor => {
            setting.written(detection).trim_matches(['[', ']', ' ']).replace('"', "").to_owned()
        }
        LiveSetting::Enabled
        | LiveSetting::Live
        | LiveSetting::Interval
        | LiveSetting::Window
        | LiveSetting::RequestsPerHour
        | LiveSetting::ErrorRate
        | LiveSetting::ErrorMinRequests
        | LiveSetting::LoginFailures
        | LiveSetting::BlockSeverity
        | LiveSetting::BlockMemory
        | LiveSetting::Forest => setting.written(detection).trim_matches('"').to_owned(),
    }
}
