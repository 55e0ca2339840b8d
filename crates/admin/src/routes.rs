//! What the operations listener answers.
//!
//! Owns paths, statuses and content types. Must not do I/O.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// What the listener asks of the gateway. Both are called on the listener's own thread, so they may
/// block for a moment, and a second caller waits meanwhile.
pub struct Probes {
    /// The metrics in the OpenMetrics text format, with its final `# EOF` line.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether the gateway can serve; the error is the reason, for people.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const INDEX: &str = "Portcullis operations: /metrics, /healthz, /readyz\n";

pub(crate) fn router(probes: Probes) -> Router {
    Router::new()
        .route("/", get(async || answer(StatusCode::OK, TEXT, INDEX.to_owned())))
        .route("/healthz", get(async || answer(StatusCode::OK, TEXT, "ok\n".to_owned())))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || answer(StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()))
        .method_not_allowed_fallback(async || {
            answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned())
        })
        .with_state(Arc::new(probes))
}

async fn metrics(State(probes): State<Arc<Probes>>) -> Response {
    answer(StatusCode::OK, OPENMETRICS, (probes.metrics)())
}

async fn ready(State(probes): State<Arc<Probes>>) -> Response {
    match (probes.ready)() {
        Ok(()) => answer(StatusCode::OK, TEXT, "ready\n".to_owned()),
        Err(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}
