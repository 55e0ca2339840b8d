//! Allows: listed, added, taken back.
//! Must not touch blocks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use portcullis_store::Listing;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::caller::Caller;
use super::document::Api;
use super::entries::Allow;
use super::input::{Body, Params, Part, parsed};
use super::problem::Problem;
use super::words::{Done, Limit, Network, Note, Page, Source, Text};
use crate::console::actions;
use crate::console::error::PageError;
use crate::console::shared::Shared;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_list, list).add(__path_add, add).add(__path_show, show).add(__path_remove, remove)
}

/// Which allows. Everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// In the reason; an address or prefix finds what covers it and what is inside of it.
    #[param(inline)]
    q: Option<Text<200>>,
    source: Option<Source>,
    /// `next` of the page before.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,18}$")]
    cursor: Option<i64>,
    #[serde(default)]
    limit: Limit,
}

/// Allows in force, newest first
#[utoipa::path(get, path = "/allows", tag = "allows", params(Asked), responses((status = 200, body = Page<Allow>)))]
async fn list(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Page<Allow>>, Problem> {
    let limit = asked.limit;
    let listing = Listing {
        text: asked.q.map_or_else(String::new, |text| text.0),
        source: asked.source.map(|source| source.0),
        before: asked.cursor,
        // To know whether there is another page.
        limit: limit.get() + 1,
        ..Listing::default()
    };
    let found = shared.state(move |state| state.list_allows(&listing)).await?;
    Ok(Json(Page::of(found, limit, |allow| allow.id, Allow::from)))
}

/// An allow to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAllow {
    network: Network,
    #[serde(default)]
    reason: Note,
}

/// An allow that was added.
#[derive(Debug, Serialize, ToSchema)]
struct AddedAllow {
    allow: Allow,
    /// What was done, and which block it overrules.
    text: String,
}

/// Let an address or a prefix in, whatever blocks and limits say
///
/// In force at once. An allow of the same network is replaced.
#[utoipa::path(post, path = "/allows", tag = "allows", request_body = NewAllow,
    responses((status = 201, body = AddedAllow)))]
async fn add(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Body(asked): Body<NewAllow>,
) -> Result<(StatusCode, Json<AddedAllow>), Problem> {
    let added = shared.act(&caller, move |state, author| {
        let (id, done) = actions::allow(state, asked.network.0, &asked.reason.0, author)?;
        let stored = state.allow(id)?.ok_or_else(|| {
            PageError::Conflict(format!("Allow {id} was added, and removed by somebody else at once."))
        })?;
        Ok(AddedAllow { allow: Allow::from(stored), text: done.text })
    });
    Ok((StatusCode::CREATED, Json(added.await?)))
}

/// One allow, also one that was taken back
#[utoipa::path(get, path = "/allows/{id}", tag = "allows", params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = Allow)))]
async fn show(State(shared): State<Arc<Shared>>, Part(id): Part<i64>) -> Result<Json<Allow>, Problem> {
    let found = shared.state(move |state| state.allow(id)).await?;
    found.map(|stored| Json(Allow::from(stored))).ok_or_else(|| {
        Problem::not_found(format!(
            "There is no allow {id}. Allows that were taken back are kept for 90 days."
        ))
    })
}

/// Take an allow back
#[utoipa::path(delete, path = "/allows/{id}", tag = "allows", params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = Done)))]
async fn remove(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Part(id): Part<i64>,
) -> Result<Json<Done>, Problem> {
    let done = shared.act(&caller, move |state, author| actions::disallow(state, &[id], author));
    Done::of(Some(done.await?))
        .ok_or_else(|| Problem::not_found(format!("No allow {id} is in force, so nothing was taken back.")))
}
