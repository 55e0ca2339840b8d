//! `false_bot`: the user agent is a well-known crawler's and the address is certainly not. Medium: people test
//! their sites like that; with another kind of evidence it becomes high, as any does.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::{Client, SampleKind};

pub(super) fn check(client: &Client, _: &Context<'_>) -> Option<Hit> {
    let claim = client.false_bot.as_deref()?;
    Some(Hit {
        severity: Severity::Medium,
        says: format!("came as {:?}, which its address does not belong to", claim.user_agent),
        evidence: json!({ "user_agent": claim.user_agent, "requests": claim.requests }),
        samples: Some(SampleKind::Agent),
    })
}
