//! `site_spike`: the site had far more requests than is usual at that hour, and this client made most of what was too
//! many. Low: a campaign or a news site's link does the same.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::Client;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let flood = context.around?.spike?;
    let usual = flood.expected.requests.round();
    Some(Hit {
        severity: Severity::Low,
        says: format!(
            "made {} of the {} requests of an hour in which {usual} are usual",
            client.requests, flood.requests
        ),
        evidence: json!({
            "requests": client.requests,
            "requests_of_all": flood.requests,
            "usual": usual,
            "spread": flood.expected.spread.round(),
            "compared_hours": flood.expected.hours,
        }),
        samples: None,
    })
}
