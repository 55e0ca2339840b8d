//! Everything that the log says about one client.
//!
//! Owns the sums of `analyze`. Must not judge: rules and severities are the detector's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;

use serde::Serialize;

use portcullis_model::{ClientIp, Location, UnixMs, VerdictKind};

use super::row::Decoded;
use super::{LogFilter, LogReader, Order};
use crate::error::StoreError;

const TOP_PATHS: usize = 10;
const TOP_USER_AGENTS: usize = 5;
const TOP_METHODS: usize = 10;
const TOP_USERS: usize = 10;
const SENSITIVE_SAMPLES: usize = 10;
/// Paths, user agents, methods and users that are counted by name; later ones count as distinct only.
const MAX_NAMED: usize = 65_536;
/// Distinct paths that are told apart; the figure stops there.
const MAX_DISTINCT: usize = 1 << 20;
/// Hours in the series: more than a year.
const MAX_HOURS: usize = 10_000;
const HOUR_MS: i64 = 3_600_000;

/// Requests to sensitive paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SensitiveHits {
    pub count: u64,
    /// The first ten different paths.
    pub samples: Vec<String>,
}

/// Answers by the first digit of the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatusCounts {
    /// 1xx, or nothing could be sent.
    pub other: u64,
    pub success: u64,
    pub redirect: u64,
    pub client_error: u64,
    pub server_error: u64,
}

/// One client's requests in a span of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientReport {
    pub client: ClientIp,
    pub since: UnixMs,
    pub until: UnixMs,
    pub requests: u64,
    /// Requests that the upstream answered: all but those that the gateway refused.
    pub answered: u64,
    /// The upstream's 4xx over `answered`; 0 without any.
    pub error_rate: f64,
    /// The upstream's 4xx.
    pub client_errors: u64,
    /// 5xx, which are not the client's doing.
    pub server_errors: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub distinct_paths: u64,
    pub sensitive: SensitiveHits,
    /// By verdict, those that occurred.
    pub verdicts: BTreeMap<&'static str, u64>,
    pub statuses: StatusCounts,
    /// The start of each hour that has requests, and how many.
    pub per_hour: Vec<(UnixMs, u64)>,
    pub top_paths: Vec<(String, u64)>,
    pub user_agents: Vec<(String, u64)>,
    /// By name, those that occurred.
    pub methods: Vec<(String, u64)>,
    /// Verified users, and what the site named, as the log has them.
    pub users: Vec<(String, u64)>,
    pub first_seen: Option<UnixMs>,
    pub last_seen: Option<UnixMs>,
    pub location: Location,
}

impl LogReader {
    /// Sums up a client's requests that started at `since` or later and before `until`.
    /// `is_sensitive` judges a path as it was sent.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn client_report(
        &self,
        client: ClientIp,
        since: UnixMs,
        until: UnixMs,
        is_sensitive: &dyn Fn(&str) -> bool,
    ) -> Result<ClientReport, StoreError> {
        let mut sums = Sums::new(client, since, until);
        let filter = LogFilter {
            network: Some(client.ip().into()),
            since: Some(since),
            until: Some(until),
            ..LogFilter::default()
        };
        for slice in self.slices_in(filter.window())? {
            self.search(&slice, &filter, 1..=i64::MAX, Order::OldestFirst, None, &mut |_, row| {
                sums.add(row, is_sensitive);
                ControlFlow::Continue(())
            })?;
        }
        Ok(sums.finish())
    }
}

struct Sums {
    report: ClientReport,
    verdicts: [u64; VerdictKind::ALL.len()],
    hours: BTreeMap<i64, u64>,
    paths: HashMap<String, u64>,
    user_agents: HashMap<String, u64>,
    methods: HashMap<String, u64>,
    users: HashMap<String, u64>,
    distinct: HashSet<u64>,
    hasher: RandomState,
}

impl Sums {
    fn new(client: ClientIp, since: UnixMs, until: UnixMs) -> Self {
        Self {
            report: ClientReport {
                client,
                since,
                until,
                requests: 0,
                answered: 0,
                error_rate: 0.0,
                client_errors: 0,
                server_errors: 0,
                bytes_in: 0,
                bytes_out: 0,
                distinct_paths: 0,
                sensitive: SensitiveHits::default(),
                verdicts: BTreeMap::new(),
                statuses: StatusCounts::default(),
                per_hour: Vec::new(),
                top_paths: Vec::new(),
                user_agents: Vec::new(),
                methods: Vec::new(),
                users: Vec::new(),
                first_seen: None,
                last_seen: None,
                location: Location::default(),
            },
            verdicts: [0; VerdictKind::ALL.len()],
            hours: BTreeMap::new(),
            paths: HashMap::new(),
            user_agents: HashMap::new(),
            methods: HashMap::new(),
            users: HashMap::new(),
            distinct: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    fn add(&mut self, row: &Decoded<'_>, is_sensitive: &dyn Fn(&str) -> bool) {
        let [path, _, user_agent, _, user] = row.texts;
        let status = row.shape.status;
        let time = row.id.time();
        let report = &mut self.report;

        report.requests += 1;
        report.bytes_in = report.bytes_in.saturating_add(row.bytes_in);
        report.bytes_out = report.bytes_out.saturating_add(row.bytes_out);
        report.first_seen = Some(report.first_seen.map_or(time, |first| first.min(time)));
        report.last_seen = Some(report.last_seen.map_or(time, |last| last.max(time)));
        if !row.location.is_unknown() {
            report.location.clone_from(row.location);
        }
        report.statuses.add(status);
        if !row.shape.verdict.is_refusal() {
            report.answered += 1;
            report.client_errors += u64::from((400..500).contains(&status));
            report.server_errors += u64::from(status >= 500);
        }
        if is_sensitive(path) {
            report.sensitive.add(path);
        }
        self.verdicts[row.shape.verdict.index()] += 1;
        if self.distinct.len() < MAX_DISTINCT {
            self.distinct.insert(self.hasher.hash_one(path));
        }
        count(&mut self.paths, path);
        count(&mut self.user_agents, user_agent);
        count(&mut self.methods, &row.shape.method);
        if !user.is_empty() {
            count(&mut self.users, user);
        }
        let hour = time.0.div_euclid(HOUR_MS) * HOUR_MS;
        if self.hours.len() < MAX_HOURS || self.hours.contains_key(&hour) {
            *self.hours.entry(hour).or_default() += 1;
        }
    }

    fn finish(self) -> ClientReport {
        let mut report = self.report;
        if report.answered > 0 {
            report.error_rate = report.client_errors as f64 / report.answered as f64;
        }
        report.distinct_paths = self.distinct.len() as u64;
        report.verdicts = VerdictKind::ALL
            .into_iter()
            .map(|verdict| (verdict.as_str(), self.verdicts[verdict.index()]))
            .filter(|(_, count)| *count > 0)
            .collect();
        report.per_hour = self.hours.into_iter().map(|(hour, count)| (UnixMs(hour), count)).collect();
        report.top_paths = most_frequent(self.paths, TOP_PATHS);
        report.user_agents = most_frequent(self.user_agents, TOP_USER_AGENTS);
        report.methods = most_frequent(self.methods, TOP_METHODS);
        report.users = most_frequent(self.users, TOP_USERS);
        report
    }
}

impl SensitiveHits {
    fn add(&mut self, path: &str) {
        self.count += 1;
        if self.samples.len() < SENSITIVE_SAMPLES && !self.samples.iter().any(|sample| sample == path) {
            self.samples.push(path.to_owned());
        }
    }
}

impl StatusCounts {
    pub(super) fn add(&mut self, status: u16) {
        self.add_many(status, 1);
    }

    pub(super) fn add_many(&mut self, status: u16, requests: u64) {
        let counter = match status / 100 {
            2 => &mut self.success,
            3 => &mut self.redirect,
            4 => &mut self.client_error,
            5.. => &mut self.server_error,
            0 | 1 => &mut self.other,
        };
        *counter += requests;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.other += other.other;
        self.success += other.success;
        self.redirect += other.redirect;
        self.client_error += other.client_error;
        self.server_error += other.server_error;
    }
}

fn count(counts: &mut HashMap<String, u64>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count += 1;
    } else if counts.len() < MAX_NAMED {
        counts.insert(key.to_owned(), 1);
    }
}

fn most_frequent(counts: HashMap<String, u64>, limit: usize) -> Vec<(String, u64)> {
    let mut rows: Vec<_> = counts.into_iter().collect();
    rows.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    rows.truncate(limit);
    rows
}
