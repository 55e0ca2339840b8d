//! Who may use the console.
//! Must not show anything about passwords but whether there is one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_model::{Role, UnixMs};
use portcullis_store::{AccessRefusal, ConsoleUser, NewUser};
use serde::Deserialize;

use super::settings::settings_page;
use crate::console::access::{LINK_LASTS, check_name, digest_of, new_token};
use crate::console::error::PageError;
use crate::console::forms::Change;
use crate::console::layout::{done, form_token, problem, table};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/settings/users", get(show).post(add))
        .route("/settings/users/role", post(change_role))
        .route("/settings/users/access", post(change_access))
        .route("/settings/users/unlock", post(unlock))
        .route("/settings/users/link", post(link))
}

#[derive(Deserialize)]
struct Asked {
    done: Option<Done>,
    #[serde(default)]
    name: String,
}

/// What has just happened to a user.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Done {
    Role,
    Disabled,
    Enabled,
    Unlocked,
}

impl Done {
    fn as_sentence(self, name: &str) -> String {
        match self {
            Self::Role => format!("The role of {name} is changed; their sessions have ended."),
            Self::Disabled => format!("{name} is disabled; their sessions have ended."),
            Self::Enabled => format!("{name} may sign in again."),
            Self::Unlocked => format!("The wrong passwords for {name} are forgotten."),
        }
    }
}

async fn show(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, PageError> {
    // A name in the address may be anything; only one that can be is said again.
    let has_name = check_name(&asked.name).is_ok();
    let notice = asked.done.filter(|_| has_name).map(|what| done(&what.as_sentence(&asked.name), None));
    list(&shared, &visitor, notice).await
}

async fn list(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    notice: Option<Markup>,
) -> Result<Html<String>, PageError> {
    let users = shared.state(|state| state.console_users()).await?;
    let now = shared.now();
    let body = html! {
        @if let Some(notice) = notice { (notice) }
        p {
            "Viewers look; operators also change. A new user gets a link, valid for a day and once, to choose a password. "
            "The same can be done on the server: " code { "portcullis console" } "."
        }
        (table("Users", html! {
            thead { tr {
                th scope="col" { "Name" } th scope="col" { "Role" } th scope="col" { "State" }
                th scope="col" { "Last signed in" } th scope="col" { "Added" }
                @if visitor.is_operator() { th scope="col" { "Change" } }
            } }
            tbody { @for user in &users { (row(user, visitor, now)) } }
        }))
        @if visitor.is_operator() { (add_form(visitor)) }
    };
    Ok(settings_page(visitor, "/settings/users", "Users", body))
}

fn row(user: &ConsoleUser, visitor: &Visitor, now: UnixMs) -> Markup {
    html! { tr {
        th scope="row" { (user.name) }
        td.keep { (user.role) }
        td {
            @if user.disabled_at.is_some() { span.badge.bad { "disabled" } }
            @else if user.has_password { span.badge.good { "may sign in" } }
            @else { span.badge.warn { "waits for their link" } }
        }
        td.keep { @match user.last_login { Some(at) => (words::relative(at, now)), None => "never" } }
        td.keep { (words::time(user.created_at)) }
        @if visitor.is_operator() { td.wide { div.actions {
            (button(visitor, user, "role", "role", other(user.role).as_str(), &format!("Make {}", other(user.role)), None))
            @if user.disabled_at.is_some() {
                (button(visitor, user, "access", "disabled", "false", "Enable", None))
            } @else {
                (button(visitor, user, "access", "disabled", "true", "Disable", Some("End the sessions of this user and keep them out?")))
                (button(visitor, user, "link", "keep", "false", "Reset", Some("Remove the password, end all sessions and make a link to choose a new one?")))
            }
            (button(visitor, user, "unlock", "keep", "true", "Unlock", None))
        } } }
    } }
}

fn button(
    visitor: &Visitor,
    user: &ConsoleUser,
    what: &str,
    field: &str,
    value: &str,
    text: &str,
    question: Option<&str>,
) -> Markup {
    html! {
        form method="post" action={ "/settings/users/" (what) } data-confirm=[question] {
            (form_token(visitor))
            input type="hidden" name="name" value=(user.name);
            input type="hidden" name=(field) value=(value);
            button.quiet type="submit" { (text) span.hidden { " " (user.name) } }
        }
    }
}

fn other(role: Role) -> Role {
    match role {
        Role::Viewer => Role::Operator,
        Role::Operator => Role::Viewer,
    }
}

fn add_form(visitor: &Visitor) -> Markup {
    html! {
        h2 { "Add a user" }
        form method="post" action="/settings/users" {
            (form_token(visitor))
            div.fields {
                div {
                    label for="name" { "Name" }
                    input #name name="name" required maxlength="64" autocomplete="off" aria-describedby="name-hint";
                }
                div {
                    label for="role" { "Role" }
                    select #role name="role" {
                        @for role in Role::ALL { option value=(role) { (role) } }
                    }
                }
                button type="submit" { "Add" }
            }
            p.hint #name-hint { "Letters, digits and . _ @ + -" }
        }
    }
}

#[derive(Deserialize)]
struct Add {
    name: String,
    role: Role,
}

async fn add(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Add>,
) -> Result<Response, PageError> {
    let Add { name, role } = form;
    if let Err(wrong) = check_name(&name) {
        let page = list(&shared, &visitor, Some(problem(&format!("Name: {wrong}.")))).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let (actor, now) = (visitor.actor(), shared.now());
    let added = shared
        .change(&visitor, move |state| {
            state.add_console_user(&NewUser { name: &name, role, password: None }, &actor, now)
        })
        .await?;
    match added {
        Ok(user) => show_link(&shared, &visitor, user).await,
        Err(refusal) => {
            let page =
                list(&shared, &visitor, Some(problem(&format!("{}.", super::sentence(&refusal))))).await?;
            Ok((StatusCode::CONFLICT, page).into_response())
        }
    }
}

/// Makes a link for a user, and shows it this once.
async fn show_link(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    user: ConsoleUser,
) -> Result<Response, PageError> {
    let token = new_token();
    let digest = digest_of(&token);
    let (actor, now) = (visitor.actor(), shared.now());
    shared
        .change(visitor, move |state| {
            state.make_link(&digest, Some(user.id), now.plus(LINK_LASTS), &actor, now)
        })
        .await?
        .map_err(super::refused)?;
    let address = shared.url(&words::address("/setup", &[("token", token.expose())]));
    let notice = html! {
        div.notice role="status" {
            p { "Give " strong { (user.name) } " this link. It works once, until tomorrow, and is shown only now: " }
            p { code.copy { (address) } }
        }
    };
    Ok(list(shared, visitor, Some(notice)).await?.into_response())
}

#[derive(Deserialize)]
struct ChangeRole {
    name: String,
    role: Role,
}

async fn change_role(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<ChangeRole>,
) -> Result<Redirect, PageError> {
    let (actor, now, role) = (visitor.actor(), shared.now(), form.role);
    let changed = on_user(&shared, &visitor, form.name.clone(), move |state, user| {
        state.set_console_role(user.id, role, &actor, now)
    });
    changed.await?;
    Ok(back("role", &form.name))
}

#[derive(Deserialize)]
struct ChangeAccess {
    name: String,
    disabled: bool,
}

async fn change_access(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<ChangeAccess>,
) -> Result<Redirect, PageError> {
    let (actor, now, disabled) = (visitor.actor(), shared.now(), form.disabled);
    let changed = on_user(&shared, &visitor, form.name.clone(), move |state, user| {
        state.set_console_user_disabled(user.id, disabled, &actor, now)
    });
    changed.await?;
    Ok(back(if disabled { "disabled" } else { "enabled" }, &form.name))
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

async fn unlock(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Name>,
) -> Result<Redirect, PageError> {
    let (actor, now) = (visitor.actor(), shared.now());
    let changed = on_user(&shared, &visitor, form.name.clone(), move |state, user| {
        state.unlock_console_user(user.id, &actor, now)
    });
    changed.await?;
    Ok(back("unlocked", &form.name))
}

async fn link(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form }: Change<Name>,
) -> Result<Response, PageError> {
    let (actor, now) = (visitor.actor(), shared.now());
    let user = on_user(&shared, &visitor, form.name, move |state, user| {
        state.set_console_password(user.id, None, &actor, now)
    });
    let user = user.await?;
    if visitor.name.eq_ignore_ascii_case(&user.name) {
        return Ok(Redirect::to("/login").into_response());
    }
    show_link(&shared, &visitor, user).await
}

/// Does something to a user of this name.
async fn on_user(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    name: String,
    work: impl FnOnce(
        &mut portcullis_store::State,
        &ConsoleUser,
    ) -> Result<Result<(), AccessRefusal>, portcullis_store::StoreError>
    + Send
    + 'static,
) -> Result<ConsoleUser, PageError> {
    let done = shared.change(visitor, move |state| {
        let Some(found) = state.credentials(&name)? else { return Ok(Err(AccessRefusal::NoSuchUser)) };
        Ok(work(state, &found.user)?.map(|()| found.user))
    });
    done.await?.map_err(super::refused)
}

fn back(done: &str, name: &str) -> Redirect {
    Redirect::to(&words::address("/settings/users", &[("done", done), ("name", name)]))
}
