//! Leaky buckets: so much of one thing within so little time. Owns the table of scenarios and the buckets of one
//! client; must not judge beyond saying which bucket has overflowed.

use portcullis_model::{Severity, UnixMs};
use serde_json::json;

use crate::client::{Client, SampleKind};
use crate::rules::{Evidence, Hit, Neighbours};

/// Distinct things that a bucket tells apart, the latest ones.
const REMEMBERED: usize = 16;
/// A fast scan is at least medium only if it names no page that led there: people follow broken links.
const MACHINE_NO_REFERER_SHARE: f64 = 0.7;

/// What a request may pour into buckets; each is a bit of a [`Feeds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// A page that is not there.
    Missing,
    /// Any page that the gateway did not refuse.
    Page,
    /// A path that scanners ask for and that is not the site's own.
    Scanned,
    Traversal,
    Backdoor,
    Injection,
    /// A login that failed, or was answered with the form again.
    Login,
    /// A call of XML-RPC.
    XmlRpc,
    /// A page for administrators that is not there, or not for this client.
    AdminDenied,
}

/// The feeds of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Feeds(u16);

impl Feeds {
    pub(crate) fn add(&mut self, feed: Feed) {
        self.0 |= 1 << feed as u16;
    }

    pub(crate) fn add_if(&mut self, feed: Feed, is: bool) {
        self.0 |= u16::from(is) << feed as u16;
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, feed: Feed) -> bool {
        self.0 & 1 << feed as u16 != 0
    }
}

/// One line of the table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    feed: Feed,
    /// Whether the same path counts once while the bucket remembers it.
    is_distinct: bool,
    /// The bucket holds so many; one more makes it overflow, and it begins anew.
    capacity: u8,
    /// One leaks away in so many milliseconds.
    leak_ms: u32,
    pub(crate) evidence: Evidence,
    severity: Severity,
    /// From so many overflows on it is high.
    high_from: Option<u32>,
    /// The clause of the finding, before how often it happened.
    says: &'static str,
    samples: Option<SampleKind>,
}

/// All scenarios; rules of these names appear in findings.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fast_probing",
        feed: Feed::Missing,
        is_distinct: true,
        capacity: 10,
        leak_ms: 10_000,
        evidence: Evidence::Errors,
        severity: Severity::Medium,
        high_from: None,
        says: "asked for more than 10 distinct missing pages in quick succession",
        samples: Some(SampleKind::Missing),
    },
    Scenario {
        name: "crawling",
        feed: Feed::Page,
        is_distinct: true,
        capacity: 40,
        leak_ms: 500,
        evidence: Evidence::Volume,
        severity: Severity::Low,
        high_from: None,
        says: "asked for more than 40 distinct pages faster than two a second",
        samples: None,
    },
    Scenario {
        name: "fast_scanning",
        feed: Feed::Scanned,
        is_distinct: true,
        capacity: 4,
        leak_ms: 5_000,
        evidence: Evidence::Signatures,
        severity: Severity::High,
        high_from: None,
        says: "asked for more than 4 different things that scanners ask for in quick succession",
        samples: Some(SampleKind::Signature),
    },
    Scenario {
        name: "traversal_attempts",
        feed: Feed::Traversal,
        is_distinct: false,
        capacity: 3,
        leak_ms: 10_000,
        evidence: Evidence::Signatures,
        severity: Severity::High,
        high_from: None,
        says: "tried more than 3 times to climb out of the site's folder",
        samples: Some(SampleKind::Signature),
    },
    Scenario {
        name: "backdoor_names",
        feed: Feed::Backdoor,
        is_distinct: true,
        capacity: 1,
        leak_ms: 5_000,
        evidence: Evidence::Signatures,
        severity: Severity::High,
        high_from: None,
        says: "asked for two back doors by name in quick succession",
        samples: Some(SampleKind::Signature),
    },
    Scenario {
        name: "injection_attempts",
        feed: Feed::Injection,
        is_distinct: false,
        capacity: 5,
        leak_ms: 1_000,
        evidence: Evidence::Signatures,
        severity: Severity::High,
        high_from: None,
        says: "sent more than 5 queries with SQL or scripts in them in quick succession",
        samples: Some(SampleKind::Signature),
    },
    Scenario {
        name: "login_burst",
        feed: Feed::Login,
        is_distinct: false,
        capacity: 5,
        leak_ms: 10_000,
        evidence: Evidence::Logins,
        severity: Severity::Medium,
        high_from: Some(4),
        says: "sent more than 5 logins that did not get in, in quick succession",
        samples: Some(SampleKind::Login),
    },
    Scenario {
        name: "xmlrpc_burst",
        feed: Feed::XmlRpc,
        is_distinct: false,
        capacity: 5,
        leak_ms: 120_000,
        evidence: Evidence::Logins,
        severity: Severity::Medium,
        high_from: Some(4),
        says: "called XML-RPC more than 5 times within minutes",
        samples: Some(SampleKind::Login),
    },
    Scenario {
        name: "admin_probing",
        feed: Feed::AdminDenied,
        is_distinct: true,
        capacity: 2,
        leak_ms: 10_000,
        evidence: Evidence::Paths,
        severity: Severity::Medium,
        high_from: None,
        says: "asked for 3 pages for administrators in quick succession, none of which is there for it",
        samples: Some(SampleKind::Sensitive),
    },
];

/// The buckets of one client that hold something, or did so lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buckets(Vec<Bucket>);

#[derive(Clone, Debug)]
struct Bucket {
    scenario: u8,
    level: f32,
    /// Of the latest request that it was fed with.
    at: UnixMs,
    /// Hashes of what it holds.
    seen: Vec<u32>,
    oldest: u8,
}

impl Buckets {
    /// Pours what a request brings into the buckets; calls `overflow` with the number of each scenario whose bucket
    /// runs over.
    pub(crate) fn pour(
        &mut self,
        feeds: Feeds,
        (path, at): (u32, UnixMs),
        is_silent: impl Fn(&str) -> bool,
        mut overflow: impl FnMut(u8),
    ) {
        for (n, scenario) in SCENARIOS.iter().enumerate() {
            if feeds.has(scenario.feed)
                && !is_silent(scenario.name)
                && self.bucket(n as u8, at).add(scenario, path, at)
            {
                overflow(n as u8);
            }
        }
    }

    fn bucket(&mut self, scenario: u8, at: UnixMs) -> &mut Bucket {
        let place = self.0.iter().position(|bucket| bucket.scenario == scenario).unwrap_or_else(|| {
            self.0.push(Bucket { scenario, level: 0.0, at, seen: Vec::new(), oldest: 0 });
            self.0.len() - 1
        });
        &mut self.0[place]
    }
}

impl Bucket {
    /// True if it overflows.
    fn add(&mut self, scenario: &Scenario, path: u32, at: UnixMs) -> bool {
        let passed = at.0.saturating_sub(self.at.0);
        if passed > 0 {
            self.at = at;
            self.level = (self.level - passed as f32 / scenario.leak_ms as f32).max(0.0);
            if self.level == 0.0 {
                self.empty();
            }
        }
        if scenario.is_distinct && !self.is_new(path, usize::from(scenario.capacity) + 1) {
            return false;
        }
        self.level += 1.0;
        let overflows = self.level > f32::from(scenario.capacity);
        if overflows {
            self.empty();
        }
        overflows
    }

    fn is_new(&mut self, path: u32, capacity: usize) -> bool {
        if self.seen.contains(&path) {
            return false;
        }
        if self.seen.len() < capacity.min(REMEMBERED) {
            self.seen.push(path);
        } else if let Some(place) = self.seen.get_mut(usize::from(self.oldest)) {
            *place = path;
            self.oldest = (self.oldest + 1) % REMEMBERED.min(capacity) as u8;
        }
        true
    }

    fn empty(&mut self) {
        self.level = 0.0;
        self.seen.clear();
        self.oldest = 0;
    }
}

/// How often each scenario's bucket has overflowed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overflows(Vec<(u8, u32)>);

impl Overflows {
    /// Counts one; how many there are now.
    pub(crate) fn count(&mut self, scenario: u8) -> u32 {
        self.add(scenario, 1)
    }

    pub(crate) fn join(&mut self, other: &Self) {
        for &(scenario, count) in &other.0 {
            self.add(scenario, count);
        }
    }

    fn add(&mut self, scenario: u8, more: u32) -> u32 {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| *known == scenario) {
            *count = count.saturating_add(more);
            return *count;
        }
        self.0.push((scenario, more));
        more
    }
}

/// What the overflows of a client say, in the table's order.
pub(crate) fn hits(
    client: &Client,
    neighbours: Neighbours,
) -> impl Iterator<Item = (&'static str, Evidence, Hit)> {
    SCENARIOS.iter().enumerate().filter_map(move |(n, scenario)| {
        let (_, count) = client.overflows.0.iter().find(|(known, _)| usize::from(*known) == n)?;
        let least = match scenario.evidence {
            Evidence::Signatures | Evidence::Agent | Evidence::Identity | Evidence::Company => 1,
            Evidence::Logins => neighbours.raise_for_logins(1),
            Evidence::Volume | Evidence::Errors | Evidence::Paths | Evidence::Statistics => {
                neighbours.raise(1)
            }
        };
        if *count < least {
            return None;
        }
        let severity = match scenario.evidence {
            Evidence::Errors if client.no_referer_share() <= MACHINE_NO_REFERER_SHARE => Severity::Low,
            // Crawlers with an old list of links; a name may be a lie, but the doubt is the client's.
            Evidence::Errors if client.declares_bot => Severity::Low,
            _ if scenario.high_from.is_some_and(|high| *count >= least.saturating_mul(high)) => {
                Severity::High
            }
            _ => scenario.severity,
        };
        let often = if *count > 1 { format!(", {count} times") } else { String::new() };
        let hit = Hit {
            severity,
            says: format!("{}{often}", scenario.says),
            evidence: json!({
                "times": count,
                "capacity": scenario.capacity,
                "leak_seconds": f64::from(scenario.leak_ms) / 1_000.0,
            }),
            samples: scenario.samples,
        };
        Some((scenario.name, scenario.evidence, hit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feeds(feed: Feed) -> Feeds {
        let mut feeds = Feeds::default();
        feeds.add(feed);
        feeds
    }

    /// Overflows of one scenario when fed with so many paths, one each so many milliseconds.
    fn overflows(feed: Feed, paths: impl Iterator<Item = u32>, every_ms: i64) -> usize {
        let (mut buckets, mut count) = (Buckets::default(), 0);
        for (n, path) in paths.enumerate() {
            buckets.pour(feeds(feed), (path, UnixMs(n as i64 * every_ms)), |_| false, |_| count += 1);
        }
        count
    }

    #[test]
    fn a_bucket_overflows_with_one_more_than_it_holds_and_begins_anew() {
        assert_eq!(overflows(Feed::Missing, 0..10, 10), 0);
        assert_eq!(overflows(Feed::Missing, 0..11, 10), 1);
        assert_eq!(overflows(Feed::Missing, 0..22, 10), 2);
    }

    #[test]
    fn a_bucket_that_leaks_as_fast_as_it_fills_never_overflows() {
        assert_eq!(overflows(Feed::Missing, 0..1_000, 10_000), 0);
        assert_eq!(overflows(Feed::XmlRpc, (0..1_000).map(|_| 0), 120_000), 0);
        assert!(overflows(Feed::Missing, 0..1_000, 5_000) > 0);
    }

    #[test]
    fn the_same_path_counts_once_where_distinct_ones_are_asked_for() {
        assert_eq!(overflows(Feed::Missing, (0..1_000).map(|n| n % 10), 1), 0);
        assert_eq!(overflows(Feed::Injection, (0..6).map(|_| 7), 1), 1);
    }

    #[test]
    fn times_that_jump_neither_fill_nor_break_a_bucket() {
        let (mut buckets, mut count) = (Buckets::default(), 0);
        for (n, at) in [0, i64::MAX, i64::MIN, 5, -5, i64::MAX, 0, 1, 2, 3].into_iter().enumerate() {
            buckets.pour(feeds(Feed::Missing), (n as u32, UnixMs(at)), |_| false, |_| count += 1);
        }
        assert_eq!(count, 0);
    }

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_remembers_enough() {
        for (n, scenario) in SCENARIOS.iter().enumerate() {
            assert!(SCENARIOS[..n].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
            let is_volume = scenario.evidence == Evidence::Volume;
            assert!(is_volume || usize::from(scenario.capacity) < REMEMBERED, "{}", scenario.name);
            assert!(!is_volume || scenario.severity <= Severity::Medium);
        }
    }
}
