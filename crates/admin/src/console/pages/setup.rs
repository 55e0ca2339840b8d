//! What one-time links lead to: the first account, or a way in for somebody who has one.
//! Must not end a link by showing it: mail programs and browsers open links beforehand.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, Form, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use portcullis_model::Secret;
use portcullis_store::{AccessRefusal, ConsoleLink, ConsoleUser, State as Store, TokenDigest};
use serde::Deserialize;

use super::login::MAX_FORM;
use crate::console::access::{MIN_PASSWORD_CHARS, check_name, check_password, digest_of};
use crate::console::error::PageError;
use crate::console::layout::{bare_page, problem};
use crate::console::shared::Shared;
use crate::console::visitor::Peer;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/setup", get(show).post(finish)).layer(DefaultBodyLimit::max(MAX_FORM))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    token: String,
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    again: String,
}

async fn show(State(shared): State<Arc<Shared>>, Query(asked): Query<Asked>) -> Result<Response, PageError> {
    let link = find(&shared, &asked.token).await?;
    Ok(bare_page(title(&link), form(&link, &asked.token, "", None)).into_response())
}

async fn finish(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Form(given): Form<Given>,
) -> Result<Response, PageError> {
    let link = find(&shared, &given.token).await?;
    if let Err(wrong) = check(&link, &given) {
        let body = form(&link, &given.token, &given.name, Some(&wrong));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, bare_page(title(&link), body)).into_response());
    }
    let Given { token, name, password, .. } = given;
    let password = match password.is_empty() {
        true => None,
        false => Some(shared.hash(password).await?),
    };
    let digest = digest_of(&Secret::new(&token));
    let user = use_up(&shared, digest, name, password, peer).await?;
    shared.end_session_of(&headers, peer.ip()).await?;
    let cookie = shared.begin_session(&user, peer.ip(), &headers).await?;
    Ok(([(SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

async fn find(shared: &Arc<Shared>, token: &str) -> Result<ConsoleLink, PageError> {
    let digest = digest_of(&Secret::new(token));
    let now = shared.now();
    let link = shared.look_up(move |shared| Store::open_read_only(shared.data())?.link(&digest, now)).await?;
    link.ok_or_else(ended)
}

fn ended() -> PageError {
    PageError::Forbidden(format!("{}.", super::sentence(&AccessRefusal::LinkEnded)))
}

/// What a person typed, against the kind of link that they have.
fn check(link: &ConsoleLink, given: &Given) -> Result<(), String> {
    let name = match link {
        ConsoleLink::Setup => {
            check_name(&given.name).map_err(|wrong| format!("Name: {wrong}."))?;
            &given.name
        }
        ConsoleLink::User(user) if user.has_password && given.password.is_empty() => return Ok(()),
        ConsoleLink::User(user) => &user.name,
    };
    check_password(&given.password, name).map_err(|wrong| format!("Password: {wrong}."))?;
    if given.password != given.again {
        return Err("The two passwords are not the same; type them again.".to_owned());
    }
    Ok(())
}

async fn use_up(
    shared: &Arc<Shared>,
    digest: TokenDigest,
    name: String,
    password: Option<Secret>,
    peer: Peer,
) -> Result<ConsoleUser, PageError> {
    let now = shared.now();
    let used = shared
        .look_up(move |shared| {
            let mut state = Store::open_existing(shared.data())?.acting_from(peer.ip());
            match (state.link(&digest, now)?, password) {
                (Some(ConsoleLink::Setup), Some(password)) => {
                    state.add_first_user(&digest, &name, &password, now)
                }
                (Some(ConsoleLink::User(_)), password) => state.use_link(&digest, password.as_ref(), now),
                (Some(ConsoleLink::Setup) | None, _) => Ok(Err(AccessRefusal::LinkEnded)),
            }
        })
        .await?;
    used.map_err(super::refused)
}

fn title(link: &ConsoleLink) -> &'static str {
    match link {
        ConsoleLink::Setup => "Make the first account",
        ConsoleLink::User(user) if user.has_password => "Sign in by link",
        ConsoleLink::User(_) => "Choose a password",
    }
}

fn form(link: &ConsoleLink, token: &str, name: &str, wrong: Option<&str>) -> Markup {
    let is_optional = matches!(link, ConsoleLink::User(user) if user.has_password);
    html! {
        @if let Some(wrong) = wrong { (problem(wrong)) }
        form.card method="post" action="/setup" {
            input type="hidden" name="token" value=(token);
            @match link {
                ConsoleLink::Setup => div.field {
                    label for="name" { "Name" }
                    input #name name="name" value=(name) autocomplete="username" required maxlength="64" autofocus;
                    p.hint { "Letters, digits and . _ @ + -" }
                },
                ConsoleLink::User(user) => {
                    p { "You are " strong { (user.name) } ", " (user.role) "." }
                    input type="hidden" autocomplete="username" value=(user.name);
                    @if is_optional { p { "Leave the fields empty to keep the password that you have." } }
                },
            }
            div.field {
                label for="password" { "New password" }
                input #password name="password" type="password" autocomplete="new-password" required[!is_optional]
                    minlength=(MIN_PASSWORD_CHARS) maxlength="1024" aria-describedby="rules";
                p.hint #rules { "At least " (MIN_PASSWORD_CHARS) " characters; a few words in a row are easy to remember." }
            }
            div.field {
                label for="again" { "The same again" }
                input #again name="again" type="password" autocomplete="new-password" required[!is_optional] maxlength="1024";
            }
            div.actions { button type="submit" {
                @match link {
                    ConsoleLink::Setup => "Make the account",
                    ConsoleLink::User(_) => "Sign in",
                }
            } }
        }
    }
}
