//! `sensitive_paths`: touches of the configured paths. Low, since most are by the site's own people;
//! medium when several different ones are not there or not for this client.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::{Client, SampleKind};

const DENIED_FOR_MEDIUM: usize = 3;
const NAMED: usize = 10;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let seen = &client.sensitive;
    if seen.hits == 0 {
        return None;
    }
    let denied = seen.denied.count_ones() as usize;
    let touched: Vec<&str> = named(context, seen.touched).take(NAMED).collect();
    let plural = if seen.hits == 1 { "" } else { "s" };
    let mut says = format!("touched {} {} time{plural}", touched.join(", "), seen.hits);
    if denied > 0 {
        let (was, is) = if denied == 1 { ("was", "is") } else { ("were", "are") };
        says.push_str(&format!("; {denied} of these {was} refused or {is} not there"));
    }
    Some(Hit {
        severity: if denied >= DENIED_FOR_MEDIUM { Severity::Medium } else { Severity::Low },
        says,
        evidence: json!({
            "hits": seen.hits,
            "paths": touched,
            "denied": named(context, seen.denied).take(NAMED).collect::<Vec<_>>(),
        }),
        samples: Some(SampleKind::Sensitive),
    })
}

fn named<'a>(context: &Context<'a>, bits: u64) -> impl Iterator<Item = &'a str> {
    let paths = context.settings.sensitive_paths.iter();
    paths.enumerate().filter(move |(n, _)| bits >> (*n).min(63) & 1 == 1).map(|(_, path)| path.as_str())
}
