//! `high_frequency`: more requests in an hour than the setting. Low, never more: volume alone hurts offices, browsers
//! with many tabs, synchronising applications, and the programs of a site's own people.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit, percent, rounded};
use crate::client::Client;

/// A monitor asks for one page at even gaps (standard deviation over mean below this) of at least so long.
const MONITOR_UNEVENNESS: f64 = 0.35;
const MONITOR_LEAST_GAP_SECONDS: f64 = 5.0;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let threshold = context.neighbours.raise(context.settings.requests_per_hour);
    let busiest = client.requests_in_busiest_hour();
    if busiest <= threshold || is_monitor(client) {
        return None;
    }
    Some(Hit {
        severity: Severity::Low,
        says: format!(
            "made {busiest} requests within an hour (more than {threshold}), {} of them for assets",
            percent(client.asset_share())
        ),
        evidence: json!({
            "requests_in_busiest_hour": busiest,
            "threshold": threshold,
            "asset_share": rounded(client.asset_share()),
            "no_referer_share": rounded(client.no_referer_share()),
        }),
        samples: None,
    })
}

fn is_monitor(client: &Client) -> bool {
    let Some(shape) = &client.shape else { return false };
    shape.paths.is_exact()
        && shape.paths.count() == 1
        && client.served == client.requests
        && shape.gaps.median_seconds() >= MONITOR_LEAST_GAP_SECONDS
        && shape.gaps.unevenness() < MONITOR_UNEVENNESS
}
