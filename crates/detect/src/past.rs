//! What clients did over days that was odd, but in no single hour enough: the memory behind slow and low patterns.
//! Owns how long and how much is remembered; must not judge.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_model::UnixMs;
use serde::{Deserialize, Serialize};

/// The most clients that are remembered.
pub const MAX_REMEMBERED: usize = 20_000;
/// Distinct odd things of one client that are told apart.
const MAX_THINGS: usize = 32;
/// After so many days without anything odd a client is forgotten.
const FORGET_MS: i64 = 7 * 24 * 3_600_000;
const HOUR_MS: i64 = 3_600_000;

/// What was odd about one client in one window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeakEvidence {
    /// Hashes of missing pages and numbers of signatures.
    pub(crate) things: Vec<u32>,
    /// Logins that did not get in.
    pub(crate) logins: u32,
    pub(crate) requests: u32,
    pub(crate) errors: u32,
    /// When the last request came.
    pub(crate) last: UnixMs,
}

/// The same over days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    things: Vec<u32>,
    pub(crate) logins: u32,
    pub(crate) requests: u32,
    pub(crate) errors: u32,
    /// Different hours with something odd.
    pub(crate) hours: u32,
    pub(crate) first: UnixMs,
    pub(crate) last: UnixMs,
}

impl Remembered {
    pub(crate) fn distinct(&self) -> usize {
        self.things.len()
    }

    /// Adds an hour; one that was added before brings nothing.
    fn add(&mut self, weak: &WeakEvidence) {
        let hour = |at: UnixMs| at.0.div_euclid(HOUR_MS);
        if self.hours > 0 && hour(weak.last) <= hour(self.last) {
            return;
        }
        if self.hours == 0 {
            self.first = weak.last;
        }
        self.last = weak.last;
        self.hours += 1;
        self.logins = self.logins.saturating_add(weak.logins);
        self.requests = self.requests.saturating_add(weak.requests);
        self.errors = self.errors.saturating_add(weak.errors);
        for thing in &weak.things {
            if self.things.len() < MAX_THINGS && !self.things.contains(thing) {
                self.things.push(*thing);
            }
        }
    }
}

/// All clients that did something odd in the last days; about 4 MB at most.
#[derive(Clone, Debug, Default)]
pub struct Past {
    clients: BTreeMap<IpAddr, Remembered>,
}

impl Past {
    /// Adds what a window handed out ([`crate::Report::weak`]), and forgets what is too old at `now`. When there are
    /// too many clients, those go that were odd in the fewest hours, the longest ago. Returns who changed.
    pub fn remember(&mut self, weak: &[(IpAddr, WeakEvidence)], now: UnixMs) -> Vec<IpAddr> {
        for (client, evidence) in weak {
            self.clients.entry(*client).or_default().add(evidence);
        }
        self.clients.retain(|_, known| now.0.saturating_sub(known.last.0) < FORGET_MS);
        if self.clients.len() > MAX_REMEMBERED {
            let mut worth: Vec<(u32, UnixMs, IpAddr)> =
                self.clients.iter().map(|(client, known)| (known.hours, known.last, *client)).collect();
            worth.sort_unstable();
            for (_, _, client) in worth.iter().take(self.clients.len() - MAX_REMEMBERED * 9 / 10) {
                self.clients.remove(client);
            }
        }
        weak.iter().map(|(client, _)| *client).filter(|client| self.clients.contains_key(client)).collect()
    }

    /// What the client did with what it does now.
    pub(crate) fn with(&self, client: IpAddr, weak: &WeakEvidence) -> Option<Remembered> {
        let known = self.clients.get(&client)?;
        let is_recent = weak.last.0.saturating_sub(known.last.0) < FORGET_MS;
        is_recent.then(|| {
            let mut known = known.clone();
            known.add(weak);
            known
        })
    }

    /// How many clients are remembered.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// A client's memory as text, to be stored; `None`: there is none.
    pub fn to_text(&self, client: IpAddr) -> Option<String> {
        // Numbers and arrays of them always serialise.
        self.clients.get(&client).and_then(|known| serde_json::to_string(known).ok())
    }

    /// Takes a client's memory back from its text; one that cannot be read is forgotten.
    pub fn restore(&mut self, client: IpAddr, text: &str) {
        if self.clients.len() < MAX_REMEMBERED
            && let Ok(known) = serde_json::from_str::<Remembered>(text)
            && known.things.len() <= MAX_THINGS
        {
            self.clients.insert(client, known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weak(hour: i64, things: &[u32]) -> WeakEvidence {
        WeakEvidence {
            things: things.to_vec(),
            logins: 1,
            requests: 3,
            errors: 2,
            last: UnixMs(hour * HOUR_MS + 5),
        }
    }

    fn client(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0A00_0000 + n).into()
    }

    #[test]
    fn hours_add_up_and_the_same_hour_does_not_count_twice() {
        let mut past = Past::default();
        past.remember(&[(client(1), weak(1, &[7]))], UnixMs(2 * HOUR_MS));
        past.remember(&[(client(1), weak(1, &[8]))], UnixMs(2 * HOUR_MS));
        past.remember(&[(client(1), weak(9, &[7, 9]))], UnixMs(10 * HOUR_MS));
        let known = past.with(client(1), &weak(30, &[1])).unwrap();
        assert_eq!((known.distinct(), known.hours, known.logins, known.errors), (3, 3, 3, 6));
        assert_eq!(past.with(client(2), &weak(30, &[])), None);
    }

    #[test]
    fn what_is_a_week_old_is_forgotten_and_the_rest_survives_as_text() {
        let mut past = Past::default();
        past.remember(&[(client(1), weak(1, &[7])), (client(2), weak(100, &[7]))], UnixMs(101 * HOUR_MS));
        let changed = past.remember(&[(client(3), weak(170, &[7]))], UnixMs(170 * HOUR_MS));
        assert_eq!((past.len(), changed), (2, vec![client(3)]));
        let mut again = Past::default();
        again.restore(client(2), &past.to_text(client(2)).unwrap());
        again.restore(client(3), "{}");
        assert_eq!(again.with(client(2), &weak(1, &[])), past.with(client(2), &weak(1, &[])));
        assert!(again.len() == 1 && past.to_text(client(1)).is_none());
    }

    #[test]
    fn a_flood_of_clients_leaves_those_that_came_back() {
        let mut past = Past::default();
        for hour in 0..3 {
            past.remember(&[(client(0), weak(hour, &[hour as u32]))], UnixMs(3 * HOUR_MS));
        }
        let flood: Vec<_> = (1..MAX_REMEMBERED as u32 + 100).map(|n| (client(n), weak(9, &[1]))).collect();
        past.remember(&flood, UnixMs(10 * HOUR_MS));
        assert!(past.len() <= MAX_REMEMBERED && past.to_text(client(0)).is_some());
    }
}
