//! Who calls: the token of each call, and what it may do.
//! Must not let a call through that changes something with a token that may only read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::{Kind, Problem};
use crate::console::shared::Shared;

pub(super) async fn authenticate(
    State(_shared): State<Arc<Shared>>,
    _request: Request,
    _next: Next,
) -> Response {
    Problem::of(Kind::Unauthorized).into_response()
}
