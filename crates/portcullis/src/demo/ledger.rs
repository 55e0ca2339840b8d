//! What every client of the demo sent and got: one row per client, bounded in number.
//! Owns the tallies and what counts as a refusal; must not send anything or know what the detector said.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::{ClientIp, RequestId};

/// Attackers of one role that are kept. When one more arrives the oldest that has left is forgotten,
/// but never the first one, so that what the demo has shown once stays shown.
const MAX_ATTACKERS_PER_ROLE: usize = 4;

/// What a client of the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Visitor,
    SearchBot,
    Monitor,
    Scanner,
    BruteForcer,
    Scraper,
    InjectionTester,
}

impl Role {
    /// Attackers are to be refused, everybody else is not.
    pub(crate) fn is_attacker(self) -> bool {
        match self {
            Self::Visitor | Self::SearchBot | Self::Monitor => false,
            Self::Scanner | Self::BruteForcer | Self::Scraper | Self::InjectionTester => true,
        }
    }

    /// The word of the table and the summary.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Visitor => "visitor",
            Self::SearchBot => "search bot",
            Self::Monitor => "monitor",
            Self::Scanner => "scanner",
            Self::BruteForcer => "brute-forcer",
            Self::Scraper => "scraper",
            Self::InjectionTester => "injection tester",
        }
    }
}

/// Names a row for as long as the demo runs.
pub(crate) type RowId = u64;

/// Finished requests by what came back. Every request is in exactly one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// 2xx and 3xx.
    pub(crate) ok: u64,
    /// The site's 404.
    pub(crate) not_found: u64,
    /// The site's other answers: 401, its own 403, 405, 500.
    pub(crate) other: u64,
    /// The gateway's 429.
    pub(crate) limited: u64,
    /// The gateway's 403.
    pub(crate) blocked: u64,
    /// The gateway's other 4xx, for requests that it takes for malformed.
    pub(crate) malformed: u64,
    /// No answer at all, or 502 to 504.
    pub(crate) failed: u64,
}

impl Tally {
    pub(crate) fn requests(&self) -> u64 {
        self.ok + self.not_found + self.other + self.refused() + self.failed
    }

    /// The gateway said no.
    pub(crate) fn refused(&self) -> u64 {
        self.limited + self.blocked + self.malformed
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.ok += more.ok;
        self.not_found += more.not_found;
        self.other += more.other;
        self.limited += more.limited;
        self.blocked += more.blocked;
        self.malformed += more.malformed;
        self.failed += more.failed;
    }
}

/// The first refusal of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Since the start of the demo.
    pub(crate) at: Duration,
    /// Requests that the client had finished before.
    pub(crate) after_requests: u64,
    pub(crate) decision: RequestId,
}

/// One client. Times are since the start of the demo.
#[derive(Clone, Debug)]
pub(crate) struct ClientRow {
    pub(crate) id: RowId,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) address: ClientIp,
    pub(crate) doing: &'static str,
    pub(crate) arrived: Duration,
    pub(crate) has_left: bool,
    pub(crate) tally: Tally,
    pub(crate) first_limited: Option<Refusal>,
    pub(crate) first_blocked: Option<Refusal>,
    pub(crate) first_malformed: Option<Refusal>,
    pub(crate) first_failure: Option<String>,
}

impl ClientRow {
    /// The first refusal of any kind.
    pub(crate) fn first_refusal(&self) -> Option<Refusal> {
        [self.first_limited, self.first_blocked, self.first_malformed]
            .into_iter()
            .flatten()
            .min_by_key(|refusal| refusal.at)
    }

    /// Whether the gateway refused somebody that it should have served.
    pub(crate) fn is_hurt(&self) -> bool {
        !self.role.is_attacker() && self.tally.refused() > 0
    }
}

/// Everything that the ledger holds, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// In the order of arrival.
    pub(crate) rows: Vec<ClientRow>,
    /// Attackers that have left and been forgotten, and what they got.
    pub(crate) forgotten: u64,
    pub(crate) forgotten_tally: Tally,
    /// Since the start of the demo.
    pub(crate) elapsed: Duration,
}

impl Snapshot {
    /// Everything that everybody got, the forgotten ones too.
    pub(crate) fn total(&self) -> Tally {
        let mut total = self.forgotten_tally;
        for row in &self.rows {
            total.add(&row.tally);
        }
        total
    }
}

/// What a request came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered {
        status: u16,
        /// The gateway's decision, when it was the gateway that answered.
        decision: Option<RequestId>,
    },
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Ledger {
    started: Instant,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    rows: BTreeMap<RowId, ClientRow>,
    next: RowId,
    forgotten: u64,
    forgotten_tally: Tally,
}

impl Ledger {
    pub(super) fn new(started: Instant) -> Self {
        Self { started, book: Mutex::default() }
    }

    pub(super) fn arrive(&self, name: String, role: Role, address: ClientIp, doing: &'static str) -> RowId {
        let arrived = self.started.elapsed();
        self.with(|book| {
            book.make_room_for(role);
            let id = book.next;
            book.next += 1;
            let row = ClientRow {
                id,
                name,
                role,
                address,
                doing,
                arrived,
                has_left: false,
                tally: Tally::default(),
                first_limited: None,
                first_blocked: None,
                first_malformed: None,
                first_failure: None,
            };
            book.rows.insert(id, row);
            id
        })
    }

    pub(super) fn leave(&self, id: RowId) {
        self.with(|book| {
            if let Some(row) = book.rows.get_mut(&id) {
                row.has_left = true;
            }
        });
    }

    pub(super) fn record(&self, id: RowId, outcome: Outcome) {
        let at = self.started.elapsed();
        self.with(|book| {
            if let Some(row) = book.rows.get_mut(&id) {
                row.record(at, outcome);
            }
        });
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let elapsed = self.started.elapsed();
        self.with(|book| Snapshot {
            rows: book.rows.values().cloned().collect(),
            forgotten: book.forgotten,
            forgotten_tally: book.forgotten_tally,
            elapsed,
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Book) -> T) -> T {
        work(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Book {
    fn make_room_for(&mut self, role: Role) {
        let same = || self.rows.values().filter(|row| role.is_attacker() && row.role == role);
        if same().count() < MAX_ATTACKERS_PER_ROLE {
            return;
        }
        let oldest = same().skip(1).find(|row| row.has_left).map(|row| row.id);
        if let Some(row) = oldest.and_then(|id| self.rows.remove(&id)) {
            self.forgotten += 1;
            self.forgotten_tally.add(&row.tally);
        }
    }
}

impl ClientRow {
    fn record(&mut self, at: Duration, outcome: Outcome) {
        let after_requests = self.tally.requests();
        let tally = &mut self.tally;
        let (status, decision) = match outcome {
            Outcome::Answered { status, decision } => (status, decision),
            Outcome::Failed(why) => {
                tally.failed += 1;
                self.first_failure.get_or_insert(why);
                return;
            }
        };
        let refusal = decision.map(|decision| Refusal { at, after_requests, decision });
        match (status, refusal) {
            (429, Some(refusal)) => {
                tally.limited += 1;
                self.first_limited.get_or_insert(refusal);
            }
            (403, Some(refusal)) => {
                tally.blocked += 1;
                self.first_blocked.get_or_insert(refusal);
            }
            (400..500, Some(refusal)) => {
                tally.malformed += 1;
                self.first_malformed.get_or_insert(refusal);
            }
            (502..=504, _) => {
                tally.failed += 1;
                self.first_failure.get_or_insert(format!("the gateway answered {status}"));
            }
            (404, None) => tally.not_found += 1,
            (200..400, _) => tally.ok += 1,
            _ => tally.other += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_model::UnixMs;

    use super::*;

    fn row_after(role: Role, answers: &[(u16, bool)]) -> ClientRow {
        let ledger = Ledger::new(Instant::now());
        let id = ledger.arrive("x".into(), role, "192.0.2.1".parse().unwrap(), "tests");
        for (n, &(status, by_gateway)) in answers.iter().enumerate() {
            let decision = by_gateway.then(|| RequestId::new(UnixMs(1_000), n as u32));
            ledger.record(id, Outcome::Answered { status, decision });
        }
        ledger.snapshot().rows.remove(0)
    }

    #[test]
    fn only_the_gateways_own_403_and_429_are_refusals() {
        let by_site = row_after(Role::Visitor, &[(200, false), (403, false), (429, false), (404, false)]);
        assert_eq!((by_site.tally.refused(), by_site.is_hurt()), (0, false));
        for status in [400, 403, 429, 431] {
            let row = row_after(Role::Visitor, &[(200, false), (303, false), (status, true)]);
            assert!(row.is_hurt(), "{status}");
            assert_eq!(row.first_refusal().unwrap().after_requests, 2);
        }
        assert!(!row_after(Role::Scanner, &[(403, true)]).is_hurt());
    }

    #[test]
    fn the_first_refusal_of_each_kind_is_kept() {
        let row = row_after(Role::BruteForcer, &[(401, false), (429, true), (429, true), (403, true)]);
        assert_eq!(row.first_limited.unwrap().after_requests, 1);
        assert_eq!(row.first_blocked.unwrap().after_requests, 3);
        assert_eq!(row.first_refusal(), row.first_limited);
        assert_eq!((row.tally.limited, row.tally.blocked, row.tally.other), (2, 1, 1));
        assert_eq!(row.tally.requests(), 4);
    }

    #[test]
    fn a_bad_gateway_is_a_failure_and_the_sites_own_500_is_not() {
        let row = row_after(Role::Visitor, &[(500, false), (502, true), (504, false)]);
        assert_eq!((row.tally.failed, row.tally.other), (2, 1));
        assert_eq!(row.first_failure.as_deref(), Some("the gateway answered 502"));
        assert!(!row.is_hurt());
    }

    #[test]
    fn attackers_that_left_are_forgotten_when_too_many_came_but_never_the_first() {
        let ledger = Ledger::new(Instant::now());
        let came = 3 * MAX_ATTACKERS_PER_ROLE as u64;
        for _ in 0..came {
            let id = ledger.arrive("x".into(), Role::Scanner, "192.0.2.1".parse().unwrap(), "tests");
            ledger.record(id, Outcome::Answered { status: 404, decision: None });
            ledger.leave(id);
        }
        let snapshot = ledger.snapshot();
        assert_eq!(snapshot.rows.len(), MAX_ATTACKERS_PER_ROLE);
        assert_eq!(snapshot.rows[0].id, 0);
        assert_eq!(snapshot.forgotten + snapshot.rows.len() as u64, came);
        assert_eq!(snapshot.total().requests(), came);
    }
}
