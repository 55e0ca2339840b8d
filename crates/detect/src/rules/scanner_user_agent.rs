//! `scanner_user_agent`: the client names itself as an attack tool. Plain HTTP libraries are none.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::{Client, SampleKind};
use crate::signatures::{Class, Strength};

const HIGH: u32 = 10;
const MEDIUM: u32 = 4;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let hits = client.signatures.as_deref()?;
    let all = context.signatures.all().iter().enumerate();
    let tools = all.filter(|(n, s)| s.class == Class::Scanner && hits.strength(*n) != Strength::None);
    let (_, tool) = tools.max_by_key(|(_, signature)| signature.weight)?;
    Some(Hit {
        severity: match tool.weight {
            HIGH.. => Severity::High,
            MEDIUM.. => Severity::Medium,
            _ => Severity::Low,
        },
        says: format!("named itself as the scanner {}", tool.name),
        evidence: json!({ "scanner": tool.name }),
        samples: Some(SampleKind::Agent),
    })
}
