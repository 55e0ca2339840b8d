//! `spike`: a burst of pages within ten seconds that no person clicks. Low, as volume alone proves nothing.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::Client;

const PAGES_IN_TEN_SECONDS: u32 = 50;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let burst = client.page_burst.largest();
    let threshold = context.neighbours.raise(PAGES_IN_TEN_SECONDS);
    (burst > threshold).then(|| Hit {
        severity: Severity::Low,
        says: format!("asked for {burst} pages within ten seconds (more than {threshold})"),
        evidence: json!({ "pages_in_10s": burst, "threshold": threshold }),
        samples: None,
    })
}
