//! Who calls: the token of each call, and what it may do.
//! Must not let a call through that changes something with a token that may only read.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::about;
use super::problem::{Kind, Problem};
use crate::console::access::peer;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;

/// Whose token it is.
pub(super) struct Caller(pub(super) Visitor);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Visitor>().cloned();
        caller.map(Self).ok_or_else(|| Problem::of(Kind::Unauthorized))
    }
}

/// Puts the program of the token into the request. Every operation passes through here, so that none can forget it.
pub(super) async fn authenticate(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    if about::is_open(request.uri().path()) {
        return next.run(request).await;
    }
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
    let from = peer(&request);
    match admit(&shared, request.headers(), from, only_looks).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn admit(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    from: IpAddr,
    only_looks: bool,
) -> Result<Visitor, Problem> {
    let program = shared.program(headers, from).await?;
    let caller = program.ok_or_else(|| Problem::of(Kind::Unauthorized))?;
    match only_looks || caller.is_operator() {
        true => Ok(caller),
        false => Err(Problem::new(
            Kind::Forbidden,
            "This token may only read, so nothing was changed. Use one with the scope \"write\".",
        )),
    }
}
