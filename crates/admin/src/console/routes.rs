//! Which address leads to which page, and what all of them pass through.
//! Must not know what the pages show.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;

use super::shared::Shared;
use super::{api, assets, guard, layout, pages};

/// Bytes of a form: a list of addresses to import is the largest.
const MAX_BODY: usize = 16 << 20;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let signed_in = || from_fn_with_state(Arc::clone(&shared), guard::session);
    let pages = pages::routes().layer(from_fn(guard::operators_change)).layer(signed_in());
    Router::new()
        .merge(pages)
        .merge(api::routes(&shared))
        .merge(pages::own_routes().layer(signed_in()))
        .merge(pages::open_routes())
        .route("/assets/{version}/{name}", get(assets::serve))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&shared), guard::own_site))
        .layer(from_fn(guard::safe_headers))
        .with_state(shared)
}

async fn nothing_here(uri: Uri) -> Response {
    refusal(uri.path(), StatusCode::NOT_FOUND, "There is nothing under this address.")
}

/// A refusal before any page was asked, in the form that belongs to the address.
pub(super) fn refusal(path: &str, status: StatusCode, sentence: &str) -> Response {
    match api::owns(path) {
        true => api::refusal(status, sentence),
        false => layout::failure(status, sentence),
    }
}
