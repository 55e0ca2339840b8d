//! What the detector found, to be reviewed.
//! Must not decide about requests, and must not find anything itself.

mod act;
mod evidence;
mod list;
mod nevers;
mod whole;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_model::{Finding, FindingStatus};

use crate::console::shared::Shared;

pub(super) use list::rows;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/findings", get(list::show).post(act::on_many))
        .route("/findings/never", get(nevers::show).post(nevers::remove))
        .route("/findings/{id}", get(whole::show))
        .route("/findings/{id}/dismiss", post(act::dismiss))
}

const STATUSES: [FindingStatus; 3] =
    [FindingStatus::Open, FindingStatus::Confirmed, FindingStatus::Dismissed];

/// The small coloured word of a status.
fn status(status: FindingStatus) -> Markup {
    let class = match status {
        FindingStatus::Open => "badge warn",
        FindingStatus::Confirmed => "badge bad",
        FindingStatus::Dismissed => "badge calm",
    };
    html! { span class=(class) { (status.as_str()) } }
}

/// What the detector says of the client, without naming it again.
fn says(finding: &Finding) -> &str {
    let summary = finding.details["summary"].as_str().unwrap_or(&finding.reason);
    let who = match &finding.user {
        Some(user) => format!("user {user} at {} ", finding.client),
        None => format!("{} ", finding.client),
    };
    summary.strip_prefix(who.as_str()).unwrap_or(summary)
}
