//! Many events in one piece: how many of which kind, whom they are about, and the worst of them in full.
//! Its size is bounded however many events go in; no event is left out of the counts.

use std::collections::BTreeMap;

use portcullis_model::{Severity, UnixMs};
use serde::{Deserialize, Serialize};

use crate::{Event, EventKind};

/// Events that are told in full.
pub const MAX_SAMPLES: usize = 10;
/// Clients that are counted by name. Beyond twice as many the rarer ones are put together.
pub const MAX_CLIENTS: usize = 100;

/// Events that were put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    pub events: u64,
    pub kinds: BTreeMap<EventKind, u64>,
    pub worst: Severity,
    pub first_at: UnixMs,
    pub last_at: UnixMs,
    /// Events by the client that they are about.
    clients: BTreeMap<String, u64>,
    /// Events of clients that are not counted by name any more.
    pub of_others: u64,
    /// The most severe events, the earliest of them first.
    pub samples: Vec<Sample>,
}

/// One event of a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub at: UnixMs,
    pub kind: EventKind,
    pub severity: Severity,
    pub client: Option<String>,
    pub title: String,
    pub text: String,
}

impl Digest {
    /// Of one event.
    pub fn of(event: &Event, at: UnixMs) -> Self {
        let sample = Sample {
            at,
            kind: event.kind(),
            severity: event.severity(),
            client: event.client(),
            title: event.title(),
            text: event.text(),
        };
        Self {
            events: 1,
            kinds: BTreeMap::from([(sample.kind, 1)]),
            worst: sample.severity,
            first_at: at,
            last_at: at,
            clients: sample.client.iter().map(|client| (client.clone(), 1)).collect(),
            of_others: 0,
            samples: vec![sample],
        }
    }

    /// Of several; `None` without any.
    pub fn of_all<'e>(events: impl IntoIterator<Item = &'e Event>, at: UnixMs) -> Option<Self> {
        let mut events = events.into_iter();
        let mut digest = Self::of(events.next()?, at);
        for event in events {
            digest.add(Self::of(event, at));
        }
        Some(digest)
    }

    /// Adds what another one holds.
    pub fn add(&mut self, other: Self) {
        self.events = self.events.saturating_add(other.events);
        for (kind, count) in other.kinds {
            let sum = self.kinds.entry(kind).or_default();
            *sum = sum.saturating_add(count);
        }
        self.worst = self.worst.max(other.worst);
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        self.of_others = self.of_others.saturating_add(other.of_others);
        for (client, count) in other.clients {
            let sum = self.clients.entry(client).or_default();
            *sum = sum.saturating_add(count);
        }
        if self.clients.len() > 2 * MAX_CLIENTS {
            self.forget_rare_clients();
        }
        self.samples.extend(other.samples);
        self.samples.sort_by_key(|sample| (std::cmp::Reverse(sample.severity), sample.at));
        self.samples.truncate(MAX_SAMPLES);
    }

    /// The clients with the most events first, and their number of events.
    pub fn top_clients(&self, limit: usize) -> Vec<(&str, u64)> {
        let mut clients: Vec<(&str, u64)> =
            self.clients.iter().map(|(client, n)| (client.as_str(), *n)).collect();
        clients.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        clients.truncate(limit);
        clients
    }

    /// How many clients are counted by name.
    pub fn named_clients(&self) -> usize {
        self.clients.len()
    }

    fn forget_rare_clients(&mut self) {
        let kept: BTreeMap<String, u64> =
            self.top_clients(MAX_CLIENTS).into_iter().map(|(client, n)| (client.to_owned(), n)).collect();
        let all: u64 = self.clients.values().sum();
        let of_kept: u64 = kept.values().sum();
        self.of_others = self.of_others.saturating_add(all - of_kept);
        self.clients = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(n: u32, severity: Severity) -> Event {
        Event::Finding {
            id: i64::from(n),
            client: std::net::IpAddr::from(n.to_be_bytes()).to_string().parse().unwrap(),
            user: None,
            severity,
            rule: "scan".to_owned(),
            says: "it scans".to_owned(),
            requests: 9,
        }
    }

    #[test]
    fn a_hundred_thousand_events_stay_small_and_every_one_is_counted() {
        let mut digest = Digest::of(&Event::Test, UnixMs(0));
        for n in 0..100_000_u32 {
            // One client comes again and again among all the others.
            let n = if n % 10 == 0 { 5 } else { n };
            let severity = if n == 99_999 { Severity::Critical } else { Severity::High };
            digest.add(Digest::of(&finding(n, severity), UnixMs(i64::from(n))));
        }
        assert_eq!(digest.events, 100_001);
        assert_eq!(digest.kinds, BTreeMap::from([(EventKind::Finding, 100_000), (EventKind::Test, 1)]));
        assert_eq!(digest.worst, Severity::Critical);
        assert!(digest.named_clients() <= 2 * MAX_CLIENTS);
        let named: u64 = digest.top_clients(usize::MAX).iter().map(|(_, n)| n).sum();
        assert_eq!(named + digest.of_others, 100_000);
        assert_eq!(digest.top_clients(1), [("0.0.0.5", 10_001)]);
        assert_eq!(digest.samples.len(), MAX_SAMPLES);
        assert_eq!(digest.samples[0].severity, Severity::Critical, "the worst comes first");
        let stored = serde_json::to_string(&digest).unwrap();
        assert!(stored.len() < 20_000, "{}", stored.len());
        assert_eq!(serde_json::from_str::<Digest>(&stored).unwrap(), digest);
    }
}
