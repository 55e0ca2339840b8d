//! `swarm`: a client that did a little, in a network most of whose addresses attack. Medium: what its neighbours do
//! makes its own evidence worth more, and is none by itself.

use portcullis_model::Severity;
use serde_json::json;

use super::{Context, Hit};
use crate::client::{Client, SampleKind};

/// Other addresses of the /24 (IPv6: /64 of the /48) that are bad by themselves.
const BAD_NEIGHBOURS: u32 = 4;

pub(super) fn check(client: &Client, context: &Context<'_>) -> Option<Hit> {
    let around = context.around?;
    let others = around.neighbours.saturating_sub(1);
    // Half of who came: at a carrier or a large hoster the others are strangers to each other.
    let is_swarm = around.bad_neighbours >= BAD_NEIGHBOURS && around.bad_neighbours * 2 >= others;
    let own = client.missing.count() + client.signatures.as_deref().map_or(0, |hits| hits.requests);
    if !is_swarm || own == 0 || client.assets > 0 {
        return None;
    }
    Some(Hit {
        severity: Severity::Medium,
        says: format!(
            "asked for what is not there or what scanners ask for, as {} of the {others} other addresses of its \
             network do",
            around.bad_neighbours
        ),
        evidence: json!({
            "bad_neighbours": around.bad_neighbours,
            "neighbours": others,
            "own_requests": own,
        }),
        samples: Some(match client.signatures {
            Some(_) => SampleKind::Signature,
            None => SampleKind::Missing,
        }),
    })
}
