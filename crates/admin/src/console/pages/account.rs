//! What everybody may see and change of themselves: their sessions, their password; and signing out.
//! Must not touch anybody else's.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_model::UnixMs;
use portcullis_store::{AccessRefusal, ConsoleSession, ConsoleUser};
use serde::Deserialize;

use super::login::MAX_FORM;
use crate::console::access::{MIN_PASSWORD_CHARS, check_password};
use crate::console::error::PageError;
use crate::console::forms::{Nothing, OwnChange};
use crate::console::layout::{Tab, done, form_token, page, problem, table};
use crate::console::shared::Shared;
use crate::console::visitor::{Proof, Visitor};
use crate::console::words;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/account", get(show))
        .route("/account/password", post(change_password))
        .route("/account/sessions/end", post(end_session))
        .route("/logout", post(sign_out))
        .layer(DefaultBodyLimit::max(MAX_FORM))
}

#[derive(Deserialize)]
struct Asked {
    done: Option<Done>,
}

/// What has just happened.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Done {
    Password,
    Session,
}

impl Done {
    fn as_sentence(self) -> &'static str {
        match self {
            Self::Password => "Your password is changed. All other sessions have ended.",
            Self::Session => "The session has ended.",
        }
    }
}

async fn show(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let notice = asked.done.map(|what| done(what.as_sentence(), None));
    Ok(account(&shared, &visitor, notice).await?.into_response())
}

async fn account(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    notice: Option<Markup>,
) -> Result<axum::response::Html<String>, PageError> {
    let (own, user_id) = session_of(visitor)?;
    let (idle, now) = (shared.settings.idle_timeout, shared.now());
    let sessions = shared.state(move |state| state.sessions_of(user_id, idle, now)).await?;
    let body = html! {
        @if let Some(notice) = notice { (notice) }
        p { "You are signed in as " strong { (visitor.name) } ", " (visitor.role) "." }
        h2 #sessions { "Your sessions" }
        (session_table(&sessions, own, visitor, now))
        h2 #password-heading { "Change the password" }
        (password_form(visitor))
    };
    Ok(page(visitor, Tab::None, "Your account", body))
}

fn session_table(sessions: &[ConsoleSession], own: i64, visitor: &Visitor, now: UnixMs) -> Markup {
    table(
        "Your sessions",
        html! {
            thead { tr {
                th scope="col" { "Signed in" } th scope="col" { "Last used" } th scope="col" { "Ends" }
                th scope="col" { "From" } th scope="col" { "With" } th scope="col" { span.hidden { "End it" } }
            } }
            tbody { @for session in sessions { tr {
                td.keep { (words::time(session.created_at)) }
                td.keep { (words::relative(session.last_used, now)) }
                td.keep { (words::relative(session.expires_at, now)) }
                td.mono { (session.address) }
                td.wide { (words::visible(&session.user_agent)) }
                td {
                    @if session.id == own { span.badge.good { "this one" } }
                    @else {
                        form method="post" action="/account/sessions/end" {
                            (form_token(visitor))
                            input type="hidden" name="session" value=(session.id);
                            button.quiet type="submit" { "End" }
                        }
                    }
                }
            } } }
        },
    )
}

fn password_form(visitor: &Visitor) -> Markup {
    html! {
        form.card.narrow method="post" action="/account/password" {
            (form_token(visitor))
            input type="hidden" autocomplete="username" value=(visitor.name);
            div.field {
                label for="old" { "The password that you have" }
                input #old name="old" type="password" autocomplete="current-password" required maxlength="1024";
            }
            div.field {
                label for="new" { "New password" }
                input #new name="new" type="password" autocomplete="new-password" required
                    minlength=(MIN_PASSWORD_CHARS) maxlength="1024" aria-describedby="rules";
                p.hint #rules { "At least " (MIN_PASSWORD_CHARS) " characters; a few words in a row are easy to remember." }
            }
            div.field {
                label for="again" { "The same again" }
                input #again name="again" type="password" autocomplete="new-password" required maxlength="1024";
            }
            div.actions { button type="submit" { "Change it" } }
        }
    }
}

#[derive(Deserialize)]
struct NewPassword {
    old: String,
    new: String,
    again: String,
}

async fn change_password(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    OwnChange { visitor, form }: OwnChange<NewPassword>,
) -> Result<Response, PageError> {
    let (_, user_id) = session_of(&visitor)?;
    let NewPassword { old, new, again } = form;
    let wrong = match check_password(&new, &visitor.name) {
        Err(problem) => Some(format!("Password: {problem}.")),
        Ok(()) if new != again => Some("The two passwords are not the same; type them again.".to_owned()),
        Ok(()) if shared.is_password_of(&visitor.name, old, visitor.from).await? => None,
        Ok(()) => Some("That is not the password that you have.".to_owned()),
    };
    if let Some(wrong) = wrong {
        let page = account(&shared, &visitor, Some(problem(&wrong))).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let hash = shared.hash(new).await?;
    let (actor, now) = (visitor.actor(), shared.now());
    let user = shared
        .change(&visitor, move |state| {
            match state.set_console_password(user_id, Some(&hash), &actor, now)? {
                Ok(()) => find(state.console_users()?, user_id),
                Err(refusal) => Ok(Err(refusal)),
            }
        })
        .await?
        .map_err(super::refused)?;
    let cookie = shared.begin_session(&user, visitor.from, &headers).await?;
    Ok(([(SET_COOKIE, cookie)], Redirect::to("/account?done=password")).into_response())
}

fn find(
    users: Vec<ConsoleUser>,
    id: i64,
) -> Result<Result<ConsoleUser, AccessRefusal>, portcullis_store::StoreError> {
    Ok(users.into_iter().find(|user| user.id == id).ok_or(AccessRefusal::NoSuchUser))
}

#[derive(Deserialize)]
struct Which {
    session: i64,
}

async fn end_session(
    State(shared): State<Arc<Shared>>,
    OwnChange { visitor, form }: OwnChange<Which>,
) -> Result<Redirect, PageError> {
    let (_, user_id) = session_of(&visitor)?;
    let (actor, now) = (visitor.actor(), shared.now());
    let has_ended =
        shared.change(&visitor, move |state| state.end_session(user_id, form.session, &actor, now)).await?;
    match has_ended {
        true => Ok(Redirect::to("/account?done=session")),
        false => Err(PageError::NotFound("You have no such session; it may have ended.".to_owned())),
    }
}

async fn sign_out(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    OwnChange { visitor, form: Nothing {} }: OwnChange<Nothing>,
) -> Result<Response, PageError> {
    shared.end_session_of(&headers, visitor.from).await?;
    Ok(([(SET_COOKIE, shared.forget_session(&headers))], Redirect::to("/login")).into_response())
}

fn session_of(visitor: &Visitor) -> Result<(i64, i64), PageError> {
    match visitor.proof {
        Proof::Session { id, user_id } => Ok((id, user_id)),
        Proof::Token => Err(PageError::SignedOut),
    }
}
