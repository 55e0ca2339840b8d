//! Settings that are changed while running, tasks, alerts.
//! Must not decide about requests.

use std::sync::Arc;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use maud::html;

use crate::console::layout::{Tab, page};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/settings", get(show))
}

async fn show(visitor: Visitor) -> Html<String> {
    page(&visitor, Tab::Settings, "Settings", html! {})
}
