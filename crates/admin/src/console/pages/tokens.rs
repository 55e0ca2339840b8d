//! Tokens of programs that use the API.
//! Must not show a token but once.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_model::{Scope, UnixMs};
use portcullis_store::{ApiToken, NewApiToken};
use serde::Deserialize;

use super::settings::settings_page;
use crate::console::access::{check_name, digest_of, new_api_token};
use crate::console::error::PageError;
use crate::console::forms::Change;
use crate::console::layout::{empty, form_token, problem, table};
use crate::console::shared::Shared;
use crate::console::visitor::{Proof, Visitor};
use crate::console::words;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/settings/tokens", get(show).post(add))
        .route("/settings/tokens/revoke", post(revoke))
}

/// How long a token may be used, as the form offers it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasts {
    Week,
    Month,
    Quarter,
    Year,
}

impl Lasts {
    const ALL: [Self; 4] = [Self::Week, Self::Month, Self::Quarter, Self::Year];

    fn days(self) -> u32 {
        match self {
            Self::Week => 7,
            Self::Month => 30,
            Self::Quarter => 90,
            Self::Year => 365,
        }
    }

    fn of_days(days: &str) -> Option<Self> {
        let days = u32::from_str(days).ok()?;
        Self::ALL.into_iter().find(|lasts| lasts.days() == days)
    }
}

async fn show(State(shared): State<Arc<Shared>>, visitor: Visitor) -> Result<Html<String>, PageError> {
    list(&shared, &visitor, None).await
}

async fn list(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    notice: Option<Markup>,
) -> Result<Html<String>, PageError> {
    let tokens = shared.state(|state| state.api_tokens()).await?;
    let body = html! {
        @if let Some(notice) = notice { (notice) }
        p {
            "Programs send them to " code { "/api/v1" } " as " code { "Authorization: Bearer pk_…" }
            ". A token may not do more than whoever made it, and ends with them."
        }
        @if tokens.is_empty() { (empty("There are no tokens.")) } @else { (token_table(&tokens, visitor, shared.now())) }
        @if visitor.is_operator() { (add_form(visitor)) }
    };
    Ok(settings_page(visitor, "/settings/tokens", "API tokens", body))
}

fn token_table(tokens: &[ApiToken], visitor: &Visitor, now: UnixMs) -> Markup {
    table(
        "API tokens",
        html! {
            thead { tr {
                th scope="col" { "Name" } th scope="col" { "Scope" } th scope="col" { "Made by" }
                th scope="col" { "Made" } th scope="col" { "Ends" } th scope="col" { "Last used" }
                @if visitor.is_operator() { th scope="col" { "Change" } }
            } }
            tbody { @for token in tokens { tr {
                th scope="row" { (token.name) }
                td { (token.scope) }
                td { (token.created_by) }
                td.keep { (words::time(token.created_at)) }
                td.keep {
                    @if token.expires_at <= now { span.badge.bad { "ended" } " " }
                    (words::relative(token.expires_at, now))
                }
                td.keep { @match token.last_used { Some(at) => (words::relative(at, now)), None => "never" } }
                @if visitor.is_operator() { td {
                    form method="post" action="/settings/tokens/revoke" data-confirm="Revoke this token for ever?" {
                        (form_token(visitor))
                        input type="hidden" name="name" value=(token.name);
                        button.quiet type="submit" { "Revoke" span.hidden { " " (token.name) } }
                    }
                } }
            } } }
        },
    )
}

fn add_form(visitor: &Visitor) -> Markup {
    html! {
        h2 { "Make a token" }
        form method="post" action="/settings/tokens" {
            (form_token(visitor))
            div.fields {
                div {
                    label for="name" { "Name" }
                    input #name name="name" required maxlength="64" autocomplete="off" aria-describedby="name-hint";
                }
                div {
                    label for="scope" { "Scope" }
                    select #scope name="scope" { @for scope in Scope::ALL { option value=(scope) { (scope) } } }
                }
                div {
                    label for="days" { "Lasts" }
                    select #days name="days" {
                        @for lasts in Lasts::ALL {
                            option value=(lasts.days()) selected[lasts == Lasts::Quarter] { (lasts.days()) " days" }
                        }
                    }
                }
                button type="submit" { "Make" }
            }
            p.hint #name-hint { "What it is for, in letters, digits and . _ @ + -" }
        }
    }
}

#[derive(Deserialize)]
struct Add {
    name: String,
    scope: Scope,
    days: String,
}

async fn add(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Add>,
) -> Result<Response, PageError> {
    let Add { name, scope, days } = form;
    let lasts = Lasts::of_days(&days);
    let wrong = match (check_name(&name), lasts) {
        (Err(wrong), _) => Some(format!("Name: {wrong}.")),
        (Ok(()), None) => Some("Lasts: choose one of the list.".to_owned()),
        (Ok(()), Some(_)) => None,
    };
    if let Some(wrong) = wrong {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, list(&shared, &visitor, Some(problem(&wrong))).await?)
            .into_response());
    }
    let days = lasts.map_or(0, Lasts::days);
    let token = new_api_token();
    let digest = digest_of(&token);
    let (actor, now, owner) = (visitor.actor(), shared.now(), user_id(&visitor));
    let expires_at = now.plus(Duration::from_secs(u64::from(days) * 86_400));
    let kept = name.clone();
    let added = shared.change(&visitor, move |state| {
        let new = NewApiToken { digest, name: &kept, scope, user_id: owner, expires_at };
        state.add_api_token(&new, &actor, now)
    });
    if let Err(refusal) = added.await? {
        let notice = problem(&format!("{}.", super::sentence(&refusal)));
        return Ok((StatusCode::CONFLICT, list(&shared, &visitor, Some(notice)).await?).into_response());
    }
    let notice = html! {
        div.notice role="status" {
            p { "This is the token " strong { (name) } ". It is shown only now: " }
            p { code.copy { (token.expose()) } }
        }
    };
    Ok(list(&shared, &visitor, Some(notice)).await?.into_response())
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

async fn revoke(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Name>,
) -> Result<Redirect, PageError> {
    let (actor, now) = (visitor.actor(), shared.now());
    let has_ended =
        shared.change(&visitor, move |state| state.revoke_api_token(&form.name, &actor, now)).await?;
    match has_ended {
        true => Ok(Redirect::to("/settings/tokens")),
        false => {
            Err(PageError::NotFound("There is no token of this name; it may be revoked already.".to_owned()))
        }
    }
}

fn user_id(visitor: &Visitor) -> Option<i64> {
    match visitor.proof {
        Proof::Session { user_id, .. } => Some(user_id),
        Proof::Token => None,
    }
}
