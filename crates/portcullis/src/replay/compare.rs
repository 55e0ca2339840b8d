//! Two policies over the same past: what only one of them would have done. Must not say which is better.

use std::collections::BTreeMap;

use portcullis_model::{ClientIp, Severity};

use super::clients::{Looks, Refused, Tally};
use super::outcome::{Flagged, Outcome};

/// What a policy would have done to one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deed {
    pub(crate) severity: Option<Severity>,
    pub(crate) would_block: bool,
    /// Requests by [`Refused`].
    pub(crate) refused: [u32; Refused::ALL.len()],
}

/// A client that fares differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) client: ClientIp,
    pub(crate) looks: Looks,
    pub(crate) requests: u64,
    /// By `--policy`.
    pub(crate) now: Deed,
    /// By `--against`.
    pub(crate) before: Deed,
}

impl Deed {
    fn is_refused(&self) -> bool {
        self.would_block || self.refused.iter().any(|count| *count > 0)
    }

    /// In a few words.
    pub(crate) fn says(&self) -> String {
        let mut words = Vec::new();
        if self.would_block {
            words.push("blocked".to_owned());
        }
        for (why, count) in Refused::ALL.into_iter().zip(self.refused) {
            if count > 0 {
                let word = match why {
                    Refused::Detector => "refused by a block",
                    Refused::Listed => "refused by [[block]]",
                    Refused::Denied => "denied",
                    Refused::Limited => "limited",
                };
                words.push(format!("{count} {word}"));
            }
        }
        match (self.severity, words.is_empty()) {
            (Some(severity), true) => format!("flagged, {severity}"),
            (Some(severity), false) => format!("{severity}, {}", words.join(", ")),
            (None, true) => "served".to_owned(),
            (None, false) => words.join(", "),
        }
    }
}

impl Change {
    /// Whether it is served by the one and refused something by the other.
    pub(crate) fn is_newly_refused(&self) -> bool {
        self.now.is_refused() && !self.before.is_refused()
    }

    pub(crate) fn is_newly_served(&self) -> bool {
        self.before.is_refused() && !self.now.is_refused()
    }

    pub(crate) fn is_newly_blocked(&self) -> bool {
        self.now.would_block && !self.before.would_block
    }
}

/// The clients that fare differently: those that look innocent first, and of them the newly refused.
pub(crate) fn differences(now: &Outcome, before: &Outcome, least: Severity) -> Vec<Change> {
    let (ours, theirs) = (deeds(now, least), deeds(before, least));
    let mut changes: Vec<Change> = ours
        .iter()
        .chain(theirs.iter().filter(|(client, _)| !ours.contains_key(client)))
        .filter_map(|(&client, _)| {
            let deed = |of: &BTreeMap<ClientIp, Deed>| of.get(&client).copied().unwrap_or_default();
            let (now_deed, before_deed) = (deed(&ours), deed(&theirs));
            let tally = now.clients.get(client).or(before.clients.get(client));
            (now_deed != before_deed).then(|| Change {
                client,
                looks: tally.map_or(Looks::Unknown, Tally::looks),
                requests: tally.map_or(0, |tally| u64::from(tally.requests)),
                now: now_deed,
                before: before_deed,
            })
        })
        .collect();
    changes.sort_by_key(|change| {
        (change.looks, !change.is_newly_refused(), !change.is_newly_blocked(), change.client)
    });
    changes
}

/// By the address with which a client was seen first, which is the same for both.
fn deeds(outcome: &Outcome, least: Severity) -> BTreeMap<ClientIp, Deed> {
    let mut deeds: BTreeMap<ClientIp, Deed> = BTreeMap::new();
    let refused = outcome.clients.iter().filter(|tally| tally.refused_requests() > 0);
    for tally in refused {
        deeds.entry(tally.address).or_default().refused = tally.refused;
    }
    for Flagged { ip, severity, would_block, .. } in outcome.flagged(least) {
        let address = outcome.clients.get(ip).map_or(ip, |tally| tally.address);
        let deed = deeds.entry(address).or_default();
        deed.severity = deed.severity.max(Some(severity));
        deed.would_block |= would_block;
    }
    deeds
}
