//! A person who asks for their data, or wants it gone.
//! Must not erase anything that was not confirmed after it was told what goes.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use portcullis_model::ClientIp;
use serde::Deserialize;

use super::{client_of, page_of, path};
use crate::console::data_export::data_export;
use crate::console::error::PageError;
use crate::console::forms::Change;
use crate::console::layout::form_token;
use crate::console::running::clients::Erased;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{count, visible};

pub(super) fn card(visitor: &Visitor, client: ClientIp) -> Markup {
    html! {
        section.card aria-labelledby="personal" {
            h2 #personal { "Its data" }
            div.actions {
                a.button.quiet href=(format!("{}/export", path(client))) download { "Export all that is kept about it" }
                form action=(format!("{}/erase", path(client))) method="post" {
                    (form_token(visitor))
                    button.quiet { "Erase all that is kept about it" }
                }
            }
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Sure {
    /// `yes` when what goes was read and confirmed.
    #[serde(default)]
    sure: String,
}

pub(super) async fn export(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Path(text): Path<String>,
) -> Result<Response, PageError> {
    if !visitor.is_operator() {
        return Err(PageError::Forbidden("Only operators hand out all data of a person.".to_owned()));
    }
    data_export(shared, client_of(&text)?)
}

pub(super) async fn erase(
    State(shared): State<Arc<Shared>>,
    Path(text): Path<String>,
    Change { visitor, form: Sure { sure } }: Change<Sure>,
) -> Result<Response, PageError> {
    let client = client_of(&text)?;
    if sure != "yes" {
        let (requests, others) = shared
            .blocking(move |shared| shared.running.kept_about(client).map_err(PageError::Failed))
            .await?;
        return Ok(page_of(&visitor, client, question(&visitor, client, requests, others)).into_response());
    }
    let actor = visitor.actor();
    let erased = shared
        .blocking(move |shared| shared.running.erase(client, &actor).map_err(PageError::Failed))
        .await?;
    Ok(page_of(&visitor, client, receipt(&erased)).into_response())
}

fn question(visitor: &Visitor, client: ClientIp, requests: u64, others: usize) -> Markup {
    html! {
        div.notice.warning role="alert" {
            p {
                "There are " strong { (count(requests, "request")) " and " (count(others as u64, "other entry")) }
                " about " code { (client.to_string()) } ": findings, blocks and allows of it, limits that it met, where it \
                is, what people did about it. All of that goes, from both databases, and cannot be brought back. A block of \
                the address is lifted. What others did stays; mentions of the address in it are taken out."
            }
        }
        form action=(format!("{}/erase", path(client))) method="post" {
            (form_token(visitor))
            p {
                label.choice {
                    input type="checkbox" name="sure" value="yes" required; " I have read this, and want it gone for ever"
                }
            }
            div.actions {
                button.danger { "Erase" }
                a.button.quiet href=(path(client)) { "Keep it" }
            }
        }
    }
}

fn receipt(erased: &Erased) -> Markup {
    html! {
        div.notice role="status" {
            p {
                "Erased: " (count(erased.requests, "request")) " of the log and " (count(erased.entries, "entry"))
                " of the state."
                @if erased.blocks_lifted > 0 {
                    " " (count(erased.blocks_lifted as u64, "block")) " lifted: the address is let in again."
                }
            }
        }
        dl.facts {
            dt { "Receipt" } dd.mono { (erased.receipt) }
            dt { "Left" }
            dd {
                @if erased.left_in.is_empty() { "No file of the data folder holds the address." } @else {
                    "The address still stands in " (visible(&erased.left_in.join(", ")))
                    ": delete what is an old copy, or erase again."
                }
            }
        }
    }
}
