//! One client: what it did, what was found, and what can be done about it.
//! Must not decide about requests.

mod act;
mod personal;
mod read;
mod shown;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use maud::html;
use portcullis_model::ClientIp;
use serde::Deserialize;

use crate::console::error::PageError;
use crate::console::layout::{Tab, page};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::encoded;

use read::Range;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/clients/{address}", get(show))
        .route("/clients/{address}/export", get(personal::export))
        .route("/clients/{address}/erase", post(personal::erase))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    range: Range,
    #[serde(default)]
    done: String,
}

/// The client that an address of a page names.
fn client_of(text: &str) -> Result<ClientIp, PageError> {
    text.trim().parse().map_err(|_| {
        PageError::NotFound(format!("Expected an IPv4 or IPv6 address behind /clients/, got {text:?}."))
    })
}

/// The page of a client.
fn path(client: ClientIp) -> String {
    format!("/clients/{}", encoded(&client.to_string()))
}

async fn show(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Path(text): Path<String>,
    Query(Asked { range, done }): Query<Asked>,
) -> Result<Response, PageError> {
    let client = client_of(&text)?;
    if text != client.to_string() {
        // One address for one client, whatever way it was written.
        return Ok(Redirect::to(&path(client)).into_response());
    }
    let known = read::read(&shared, client, range).await?;
    let body = html! {
        (shared.notices.show(&visitor, &done))
        (shown::standing(&known))
        @if visitor.is_operator() { (act::card(&visitor, &known)) }
        (shown::activity(&known))
        (shown::findings(&known, shared.now()))
        (shown::limits(&known))
        (shown::newest(&known))
        (shown::similar(&known))
        @if visitor.is_operator() { (personal::card(&visitor, client)) }
    };
    Ok(page_of(&visitor, client, body).into_response())
}

fn page_of(visitor: &Visitor, client: ClientIp, body: maud::Markup) -> Html<String> {
    page(visitor, Tab::None, &format!("Client {client}"), body)
}
