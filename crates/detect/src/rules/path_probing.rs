//! `path_probing`: many different pages that are not there. Medium; high when nothing about the client looks
//! like a browser that follows broken links; low of a client that calls itself a crawler.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit, percent, rounded};
use crate::client::{Client, SampleKind};

const DISTINCT_FOR_MEDIUM: u32 = 5;
const DISTINCT_FOR_HIGH: u32 = 8;
const ERROR_SHARE: f64 = 0.5;
const NO_REFERER_SHARE: f64 = 0.7;
const ASSET_SHARE: f64 = 0.05;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let missing = client.missing.count();
    let share = client.error_share();
    if missing < context.neighbours.raise(DISTINCT_FOR_MEDIUM) || share <= ERROR_SHARE {
        return None;
    }
    let is_plain = missing >= context.neighbours.raise(DISTINCT_FOR_HIGH)
        && client.no_referer_share() > NO_REFERER_SHARE
        && client.asset_share() < ASSET_SHARE;
    let about = if client.missing.is_exact() { "" } else { "about " };
    Some(Hit {
        severity: match is_plain {
            // A crawler with an old list of links looks the same. A name can be a lie, but until it is known
            // for one (`false_bot`), or asks for what attacks ask for, the doubt is the client's.
            _ if client.declares_bot => Severity::Low,
            true => Severity::High,
            false => Severity::Medium,
        },
        says: format!(
            "asked for {about}{missing} distinct pages that are not there ({} of its answers were errors)",
            percent(share)
        ),
        evidence: json!({
            "distinct_missing_pages": missing,
            "is_estimate": !client.missing.is_exact(),
            "error_rate": rounded(share),
            "no_referer_share": rounded(client.no_referer_share()),
            "asset_share": rounded(client.asset_share()),
            "declares_itself_a_bot": client.declares_bot,
        }),
        samples: Some(SampleKind::Missing),
    })
}
