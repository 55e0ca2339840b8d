//! Who calls: the token of each call, and what it may do.
//! Must not let a call through that changes something with a token that may only read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::{Kind, Problem};
use crate::console::access;
use crate::console::shared::Shared;

/// What needs no token: how the API is used.
const OPEN: &str = "/api/v1/openapi.json";

/// Puts the caller into the request, as a visitor whose role is what the token's scope allows.
pub(super) async fn authenticate(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.uri().path() == OPEN {
        return next.run(request).await;
    }
    let from = access::peer(&request);
    let caller = match shared.program(request.headers(), from).await {
        Ok(Some(caller)) => caller,
        Ok(None) => return Problem::of(Kind::Unauthorized).into_response(),
        Err(error) => return Problem::from(error).into_response(),
    };
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
    if is_change && !caller.is_operator() {
        return Problem::of(Kind::Forbidden).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}
