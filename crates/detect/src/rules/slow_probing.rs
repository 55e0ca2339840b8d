//! `slow_probing`: a little in each of many hours. Medium: over days every client that follows old links collects
//! some, so it takes many distinct things, mostly errors, and nothing that a browser would fetch.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit, percent, rounded};
use crate::client::{Client, SampleKind, share};

/// Different hours of the last seven days.
const HOURS: u32 = 3;
/// Distinct missing pages and signatures.
const DISTINCT: usize = 8;
const ERROR_SHARE: f64 = 0.5;
const NO_REFERER_SHARE: f64 = 0.7;
/// Of the threshold of failed logins, over days.
const LOGINS: u32 = 2;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let past = context.around?.past.as_deref()?;
    let errors = share(past.errors, past.requests);
    let probes = past.distinct() >= DISTINCT && errors > ERROR_SHARE;
    let guesses = past.logins >= context.settings.login_failures.saturating_mul(LOGINS);
    let looks_like_a_browser = client.assets > 0 || client.no_referer_share() <= NO_REFERER_SHARE;
    if past.hours < HOURS || !(probes || guesses) || looks_like_a_browser || client.declares_bot {
        return None;
    }
    let says = if probes {
        format!(
            "asked for {} distinct things that are not there or that scanners ask for, a few in each of {} hours ({} \
             of its requests were errors)",
            past.distinct(),
            past.hours,
            percent(errors)
        )
    } else {
        format!("sent {} logins that did not get in, a few in each of {} hours", past.logins, past.hours)
    };
    Some(Hit {
        severity: Severity::Medium,
        says,
        evidence: json!({
            "hours": past.hours,
            "since": past.first,
            "distinct": past.distinct(),
            "logins": past.logins,
            "requests": past.requests,
            "error_share": rounded(errors),
        }),
        samples: Some(if probes { SampleKind::Missing } else { SampleKind::Login }),
    })
}
