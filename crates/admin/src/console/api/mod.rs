//! The JSON API under /api/v1: what the command line can do, for programs with a token.
//!
//! Owns the addresses, the OpenAPI document and the failures. Must not decide or do anything by itself: what changes
//! something goes through the same functions as the pages.

#![allow(unused_qualifications, reason = "utoipa's macros write whole paths")]

mod about;
mod allows;
mod audit;
mod blocks;
mod caller;
mod chores;
mod clients;
mod docs;
mod document;
mod entries;
mod findings;
mod gateway;
mod input;
mod knowledge;
mod limits;
mod overview;
mod problem;
mod requests;
mod settings;
mod words;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::openapi::OpenApi;

use super::shared::Shared;
use document::Api;
use problem::{Kind, Problem};

/// What all addresses of this version begin with.
const PREFIX: &str = "/api/v1";
/// Bytes of a body: a list of networks is the largest.
const MAX_BODY: usize = 2 << 20;

fn operations() -> Api {
    let api = Api::default();
    let api = requests::add_to(api);
    let api = overview::add_to(api);
    let api = clients::add_to(api);
    let api = knowledge::add_to(api);
    let api = limits::add_to(api);
    let api = blocks::add_to(api);
    let api = allows::add_to(api);
    let api = findings::add_to(api);
    let api = chores::add_to(api);
    let api = audit::add_to(api);
    let api = settings::add_to(api);
    let api = gateway::add_to(api);
    about::add_to(api)
}

pub(super) fn routes(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    let (routes, _) = operations().finish();
    routes
        .route_layer(from_fn_with_state(Arc::clone(shared), caller::authenticate))
        .method_not_allowed_fallback(async || Problem::of(Kind::MethodNotAllowed))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .route("/api", get(docs::show))
}

/// The document that describes the API (OpenAPI 3.1).
fn openapi() -> OpenApi {
    operations().finish().1
}

/// The same as JSON, as the repository has it.
///
/// # Errors
/// Never in practice: it is made of strings and numbers.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    openapi().to_pretty_json().map(|json| json + "\n")
}

/// What describes the API, made when somebody asks for the first time: nobody needs a token for it.
#[derive(Default)]
pub(super) struct Texts {
    document: OnceLock<Result<Bytes, String>>,
    page: OnceLock<Bytes>,
}

impl Texts {
    fn document(&self) -> Result<Bytes, String> {
        let make = || openapi_json().map(Bytes::from).map_err(|error| error.to_string());
        self.document.get_or_init(make).clone()
    }

    fn page(&self) -> Bytes {
        self.page.get_or_init(|| docs::page().into()).clone()
    }
}

/// Whether failures of this address are told as problems.
pub(super) fn owns(path: &str) -> bool {
    path.starts_with("/api/")
}

/// A refusal that no operation made, as the API tells it.
pub(super) fn refusal(status: StatusCode, sentence: &str) -> Response {
    let kind = Kind::ALL.into_iter().find(|kind| kind.status() == status).unwrap_or(Kind::Internal);
    Problem::new(kind, sentence).into_response()
}
