//! `sensitive_files`: requests that match the signature table. Severity grows with the summed weights of
//! distinct signatures, so that asking for one thing a hundred times is one piece of evidence.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::{Client, SampleKind};
use crate::signatures::{Class, Strength};

const MEDIUM: u32 = 4;
const HIGH: u32 = 10;
const CRITICAL: u32 = 24;
const CRITICAL_DISTINCT: usize = 6;
const CRITICAL_CLASSES: usize = 3;
const NAMED: usize = 10;
/// So many things of so many kinds that a site may own are owned by none, though it answers all of them.
const OWNED_BY_NONE: usize = 6;
const OWNED_BY_NONE_CLASSES: usize = 3;
const OWNED_BY_NONE_FOR_HIGH: usize = 12;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let hits = client.signatures.as_deref()?;
    let mut matched = Vec::new();
    let mut classes: Vec<Class> = Vec::new();
    let mut weight = 0;
    for (n, signature) in context.signatures.all().iter().enumerate() {
        let counts = match hits.strength(n) {
            Strength::None => continue,
            Strength::Half => signature.weight / 2,
            Strength::Full => signature.weight,
        };
        if signature.class == Class::Scanner {
            continue;
        }
        weight += counts;
        matched.push((signature, counts));
        if !classes.contains(&signature.class) {
            classes.push(signature.class);
        }
    }
    let touched = context.signatures.all().iter().enumerate().filter(|(n, _)| hits.is_touched(*n));
    let touched: Vec<Class> =
        touched.map(|(_, s)| s.class).filter(|class| *class != Class::Scanner).collect();
    if matched.is_empty() {
        return answers_everything(&touched, hits.requests);
    }
    matched.sort_by_key(|(_, counts)| std::cmp::Reverse(*counts));
    let is_broad = matched.len() >= CRITICAL_DISTINCT || classes.len() >= CRITICAL_CLASSES;
    let severity = match weight {
        CRITICAL.. if is_broad => Severity::Critical,
        HIGH.. => Severity::High,
        MEDIUM.. => Severity::Medium,
        _ => Severity::Low,
    };
    let examples: Vec<&str> = matched.iter().take(3).map(|(signature, _)| signature.name.as_str()).collect();
    let (things, more) = match matched.len() {
        1 => ("thing", ""),
        2 | 3 => ("things", ""),
        _ => ("things", ", ..."),
    };
    Some(Hit {
        severity,
        says: format!(
            "asked for {} {things} that scanners ask for ({}{more})",
            matched.len(),
            examples.join(", ")
        ),
        evidence: json!({
            "distinct_signatures": matched.len(),
            "matching_requests": hits.requests,
            "weight": weight,
            "classes": classes.iter().map(|class| class.as_str()).collect::<Vec<_>>(),
            "signatures": matched.iter().take(NAMED).map(|(signature, counts)| json!({
                "name": signature.name, "class": signature.class.as_str(), "weight": counts,
            })).collect::<Vec<_>>(),
        }),
        samples: Some(SampleKind::Signature),
    })
}

/// A site that answers whatever is asked, with its start page: what it owns cannot be told from its answers, but how
/// much was tried can.
fn answers_everything(touched: &[Class], requests: u32) -> Option<Hit> {
    let mut classes: Vec<Class> = Vec::new();
    for class in touched {
        if !classes.contains(class) {
            classes.push(*class);
        }
    }
    if touched.len() < OWNED_BY_NONE || classes.len() < OWNED_BY_NONE_CLASSES {
        return None;
    }
    Some(Hit {
        severity: if touched.len() >= OWNED_BY_NONE_FOR_HIGH { Severity::High } else { Severity::Medium },
        says: format!("asked for {} things that scanners ask for, all of which were answered", touched.len()),
        evidence: json!({
            "distinct_signatures": touched.len(),
            "matching_requests": requests,
            "weight": 0,
            "classes": classes.iter().map(|class| class.as_str()).collect::<Vec<_>>(),
        }),
        samples: Some(SampleKind::Signature),
    })
}
