//! `error_rate`: a large share of 4xx answers. Low, never more: a broken link does it too.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit, percent, rounded};
use crate::client::{Client, SampleKind};

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let share = client.error_share();
    let settings = context.settings;
    if client.judged < context.neighbours.raise(settings.error_min_requests) || share <= settings.error_rate {
        return None;
    }
    Some(Hit {
        severity: Severity::Low,
        says: format!("got {} errors in {} answers ({})", client.errors, client.judged, percent(share)),
        evidence: json!({
            "errors": client.errors,
            "judged_requests": client.judged,
            "error_rate": rounded(share),
            "threshold": settings.error_rate,
        }),
        samples: Some(SampleKind::Error),
    })
}
