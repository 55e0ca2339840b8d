//! Settings: what is changed while running, what the configuration says, tasks, alerts, sources of knowledge.
//! Must not decide about requests.

mod alerts;
mod configuration;
mod detection;
mod sources;
mod tasks;

use std::sync::Arc;

use axum::Router;
use axum::response::Html;
use maud::{Markup, html};

use crate::console::layout::{Tab, page, page_with};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;

const TABS: [(&str, &str); 8] = [
    ("/settings", "Detection"),
    ("/settings/configuration", "Configuration"),
    ("/settings/tasks", "Tasks"),
    ("/settings/alerts", "Alerts"),
    ("/settings/sources", "Sources"),
    ("/settings/users", "Users"),
    ("/settings/tokens", "API tokens"),
    ("/settings/audit", "Audit log"),
];

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .merge(detection::routes())
        .merge(configuration::routes())
        .merge(tasks::routes())
        .merge(alerts::routes())
        .merge(sources::routes())
}

/// The navigation among the pages of settings.
fn tabs(current: &str) -> Markup {
    html! {
        nav aria-label="Settings" {
            ul.tabs {
                @for (address, name) in TABS {
                    li { a href=(address) aria-current=[(address == current).then_some("page")] { (name) } }
                }
            }
        }
    }
}

/// A page below the navigation of settings.
pub(super) fn settings_page(visitor: &Visitor, current: &str, title: &str, body: Markup) -> Html<String> {
    page(visitor, Tab::Settings, title, html! { (tabs(current)) (body) })
}

/// The same, which looks again while something is going on.
fn watching_page(visitor: &Visitor, current: &str, title: &str, body: Markup) -> Html<String> {
    page_with(visitor, Tab::Settings, title, &["refresh.js"], html! { (tabs(current)) (body) })
}
