//! The API about itself: the document that describes it.
//! Must not hold anything of this gateway: nobody needs a token for it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::PREFIX;
use super::document::Api;
use super::problem::{Kind, Problem};
use crate::console::shared::Shared;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_document, document)
}

const PATH: &str = "/openapi.json";

/// Whether an address needs no token.
pub(super) fn is_open(path: &str) -> bool {
    path.strip_prefix(PREFIX) == Some(PATH)
}

/// This document
#[utoipa::path(get, path = PATH, tag = "about", security(()),
    responses((status = 200, body = Object, content_type = "application/json", description = "OpenAPI 3.1")))]
async fn document(State(shared): State<Arc<Shared>>) -> Response {
    match shared.api_texts.document() {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => Problem::new(Kind::Internal, error).into_response(),
    }
}
