//! What every request must pass before a page sees it: the name it was sent to, the site that it was sent from, the
//! session; and the headers that every answer gets.
//! Must not know the pages.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::access;
use super::layout;
use super::routes::refusal;
use super::shared::Shared;
use super::visitor::Visitor;
use super::words;

/// Everything from here, nothing in line, no frames. Forms go here only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const SAFE_HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    // Not "no-referrer": browsers would then send `Origin: null` with forms.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// Adds what keeps a browser from being used against the visitor.
pub(super) async fn safe_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in SAFE_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refuses names that are not the console's: a site of a stranger whose name leads here (DNS rebinding) is sent away.
/// Whoever changes something must come from the console's own pages.
pub(super) async fn own_site(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (path, headers) = (request.uri().path(), request.headers());
    let Some(host) = text(headers, &HOST).filter(|host| shared.answers_to(host)) else {
        return refusal(
            path,
            StatusCode::MISDIRECTED_REQUEST,
            "The console does not answer to this name. Use the address that it listens on, or set console.url \
             in the configuration to the address that you typed.",
        );
    };
    if is_change(&request) && !comes_from_here(headers, host, shared.is_secure(headers)) {
        return refusal(
            path,
            StatusCode::FORBIDDEN,
            "This came from another site, so nothing was changed. Open the console itself and do it there.",
        );
    }
    next.run(request).await
}

fn is_change(request: &Request) -> bool {
    !matches!(*request.method(), Method::GET | Method::HEAD)
}

/// Programs that are no browsers name neither; they have no session that somebody else could use either.
fn comes_from_here(headers: &HeaderMap, host: &str, is_secure: bool) -> bool {
    let scheme = if is_secure { "https" } else { "http" };
    let is_own = |origin: &str| {
        origin
            .split_once("://")
            .is_some_and(|(given, name)| given == scheme && name.eq_ignore_ascii_case(host))
    };
    let site = text(headers, &HeaderName::from_static("sec-fetch-site"));
    headers.get(ORIGIN).is_none_or(|origin| origin.to_str().is_ok_and(is_own))
        && site.is_none_or(|site| matches!(site, "same-origin" | "none"))
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Puts the visitor of the session into the request; whoever has none sees no page.
pub(super) async fn session(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let from = access::peer(&request);
    match shared.visitor(request.headers(), from).await {
        Ok(Some(visitor)) => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Ok(None) => signed_out(&request),
        Err(error) => error.into_response(),
    }
}

/// Holds back changes of whoever only looks, whatever the page behind does.
pub(super) async fn operators_change(visitor: Visitor, request: Request, next: Next) -> Response {
    match is_change(&request).then(|| visitor.require_operator()) {
        None | Some(Ok(())) => next.run(request).await,
        Some(Err(error)) => error.into_response(),
    }
}

/// To the sign-in and back; scripts are told so, since they would take its page for their answer.
fn signed_out(request: &Request) -> Response {
    let mode = text(request.headers(), &HeaderName::from_static("sec-fetch-mode"));
    if mode.is_some_and(|mode| mode != "navigate") {
        return layout::failure(StatusCode::UNAUTHORIZED, "You are not signed in.");
    }
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let next = if is_change(request) || target == "/" { "" } else { target };
    Redirect::to(&words::address("/login", &[("next", next)])).into_response()
}

impl Shared {
    /// Whether the console has this name: the one of its address, its loopback names, or console.url.
    fn answers_to(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if self.settings.url.as_ref().is_some_and(|url| url.authority == host)
            || host == self.address.to_string()
        {
            return true;
        }
        let port = self.address.port();
        let ip = self.address.ip();
        let is_local = ip.is_loopback() || ip.is_unspecified();
        is_local && ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| host == format!("{name}:{port}"))
    }
}
