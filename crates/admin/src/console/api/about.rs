//! The API about itself: the document that describes it.
//! Must not hold anything of this gateway: nobody needs a token for it.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::PREFIX;
use super::document::Api;
use super::openapi_json;
use super::problem::{Kind, Problem};

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
async fn document() -> Response {
    match openapi_json() {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => Problem::new(Kind::Internal, error.to_string()).into_response(),
    }
}
