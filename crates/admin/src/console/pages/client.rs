//! One client: what it did, what was found, and what can be done about it.
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
    Router::new().route("/clients/{address}", get(show))
}

async fn show(visitor: Visitor) -> Html<String> {
    page(&visitor, Tab::None, "Client", html! {})
}
