//! `malformed_requests`: what is no HTTP request, in many different forms: other protocols tried at the door, or a
//! program that sends noise. Medium, never more: a proxy or an application may be broken too.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::Client;

const DISTINCT: u32 = 8;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let garbage = client.garbage.count();
    (garbage >= context.neighbours.raise(DISTINCT)).then(|| Hit {
        severity: Severity::Medium,
        says: format!("sent {garbage} different things that are no HTTP requests"),
        evidence: json!({ "distinct": garbage, "is_estimate": !client.garbage.is_exact() }),
        samples: None,
    })
}
