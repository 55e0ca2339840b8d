//! The limits, what they count and refuse, and what others would have refused.
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
    Router::new().route("/limits", get(show))
}

async fn show(visitor: Visitor) -> Html<String> {
    page(&visitor, Tab::Limits, "Limits", html! {})
}
