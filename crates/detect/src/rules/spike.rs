//! `spike`: a burst of pages within ten seconds that no person clicks. Low, as volume alone proves nothing.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::Client;

const PAGES_IN_TEN_SECONDS: u32 = 50;

pub(super) fn check(client: &Client, _: &Context<'_>) -> Option<Hit> {
    let burst = client.page_burst.largest();
    (burst > PAGES_IN_TEN_SECONDS).then(|| Hit {
        severity: Severity::Low,
        says: format!("asked for {burst} pages within ten seconds (more than {PAGES_IN_TEN_SECONDS})"),
        evidence: json!({ "pages_in_10s": burst, "threshold": PAGES_IN_TEN_SECONDS }),
        samples: None,
    })
}
