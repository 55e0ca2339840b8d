//! `script_guessing`: several programs (`.php` and the like) that are not there. No page links to so many, and
//! nobody types them. Medium; high from more of them, when nothing about the client looks like a browser.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit, rounded};
use crate::client::{Client, SampleKind};

const DISTINCT_FOR_MEDIUM: u32 = 3;
const DISTINCT_FOR_HIGH: u32 = 6;
const NO_REFERER_SHARE: f64 = 0.7;
const ASSET_SHARE: f64 = 0.05;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let missing = client.missing_scripts.count();
    let is_bare = client.no_referer_share() > NO_REFERER_SHARE && client.asset_share() < ASSET_SHARE;
    // An old link or bookmark comes from a browser, which fetches style sheets and names where it comes from.
    if missing < context.neighbours.raise(DISTINCT_FOR_MEDIUM) || !is_bare {
        return None;
    }
    let severity = match missing {
        // A crawler with an old list of links looks the same.
        _ if client.declares_bot => Severity::Low,
        DISTINCT_FOR_HIGH.. => Severity::High,
        _ => Severity::Medium,
    };
    let about = if client.missing_scripts.is_exact() { "" } else { "about " };
    Some(Hit {
        severity,
        says: format!("asked for {about}{missing} distinct programs (.php and the like) that are not there"),
        evidence: json!({
            "distinct_missing_programs": missing,
            "is_estimate": !client.missing_scripts.is_exact(),
            "no_referer_share": rounded(client.no_referer_share()),
            "asset_share": rounded(client.asset_share()),
            "declares_itself_a_bot": client.declares_bot,
        }),
        samples: Some(SampleKind::Missing),
    })
}
