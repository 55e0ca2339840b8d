//! Signing in.
//! Must not say whether there is a user of a name.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, Form, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;

use crate::console::access::SignIn;
use crate::console::error::PageError;
use crate::console::layout::{bare_page, problem};
use crate::console::shared::Shared;
use crate::console::visitor::Peer;

/// Bytes of its form.
pub(super) const MAX_FORM: usize = 16 << 10;
/// Characters of an address to go on to.
const MAX_NEXT: usize = 2_000;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/login", get(show).post(sign_in)).layer(DefaultBodyLimit::max(MAX_FORM))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
}

async fn show(State(shared): State<Arc<Shared>>, Query(asked): Query<Asked>) -> Result<Response, PageError> {
    let has_users = shared.state(|state| state.has_console_users()).await?;
    let body = if has_users { form("", &asked.next, None) } else { nobody_yet() };
    Ok(bare_page("Sign in", body).into_response())
}

async fn sign_in(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Form(given): Form<Given>,
) -> Result<Response, PageError> {
    let Given { name, password, next } = given;
    let from = peer.ip();
    match shared.sign_in(&name, password, from).await? {
        SignIn::Done(user) => {
            shared.end_session_of(&headers, from).await?;
            let cookie = shared.begin_session(&user, from, &headers).await?;
            Ok(([(SET_COOKIE, cookie)], Redirect::to(local(&next))).into_response())
        }
        SignIn::Wrong => {
            let body = form(&name, &next, Some("Name or password is wrong."));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, bare_page("Sign in", body)).into_response())
        }
        SignIn::Locked(error) => {
            let page = bare_page("Sign in", form(&name, &next, Some(&error.to_string())));
            let mut response = (error.status(), page).into_response();
            error.add_wait(response.headers_mut());
            Ok(response)
        }
    }
}

fn form(name: &str, next: &str, wrong: Option<&str>) -> Markup {
    html! {
        @if let Some(wrong) = wrong { (problem(wrong)) }
        form.card method="post" action="/login" {
            input type="hidden" name="next" value=(next);
            div.field {
                label for="name" { "Name" }
                input #name name="name" value=(name) autocomplete="username" required maxlength="64" autofocus[name.is_empty()];
            }
            div.field {
                label for="password" { "Password" }
                input #password name="password" type="password" autocomplete="current-password" required maxlength="1024" autofocus[!name.is_empty()];
            }
            div.actions { button type="submit" { "Sign in" } }
        }
        p.hint {
            "Forgotten? "
            code { "portcullis console link NAME" }
            " on the server prints a link that lets you in once."
        }
    }
}

fn nobody_yet() -> Markup {
    html! {
        p { "Nobody can sign in yet. The first account is made with the link that the gateway printed when it started." }
        p { "It lasts for a day; " code { "portcullis console link" } " on the server prints a new one." }
    }
}

/// Where to go on: only to the console's own pages, whatever a link to the sign-in says.
fn local(next: &str) -> &str {
    let is_own = next.len() <= MAX_NEXT
        && next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_own { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_in_leads_to_own_pages_only() {
        for own in ["/", "/requests?path=%2Fa&ip=::1", "/clients/192.0.2.1"] {
            assert_eq!(local(own), own);
        }
        let long = format!("/{}", "x".repeat(MAX_NEXT));
        for other in [
            "",
            "//evil.example/",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example/",
            "javascript:alert(1)",
            "requests",
            "/a\r\nSet-Cookie: x=y",
            "/\tx",
            "/ä",
            &long,
        ] {
            assert_eq!(local(other), "/", "{other:?}");
        }
    }
}
