//! Everything that the log says about a span of time, in one walk.
//!
//! Owns the sums of the daily report. Must not hold more than its bounds, whatever clients send.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;

use serde::Serialize;

use portcullis_model::{UnixMs, VerdictKind};

use super::filter::SliceFilter;
use super::report::StatusCounts;
use super::row::Decoded;
use super::top::{Ranking, TopBy, TopRow};
use super::{LogReader, Order, Window};
use crate::error::StoreError;

/// Clients that are told apart; the figure stops there.
const MAX_CLIENTS: usize = 1 << 20;
/// Different reasons why the upstream failed: a closed set of a dozen.
const MAX_FAILURES: usize = 64;
const UPSTREAM: &str = "upstream:";

/// Sums over a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogTotals {
    pub requests: u64,
    /// Different addresses, up to a million.
    pub clients: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub blocked: u64,
    pub limited: u64,
    pub malformed: u64,
    /// Admitted in a dry run, and blocked or limited otherwise.
    pub would_refuse: u64,
    /// Answers by their status, those of the gateway itself included.
    pub statuses: StatusCounts,
    /// 4xx that the gateway did not send itself.
    pub client_errors: u64,
    /// 5xx, those for which the upstream did not answer included.
    pub server_errors: u64,
    /// Requests that the upstream gave no proper answer to.
    pub upstream_failures: u64,
    /// To sensitive paths, or refused.
    pub suspicious: u64,
}

/// Totals, and what came most often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogSummary {
    pub totals: LogTotals,
    pub clients: Vec<TopRow>,
    pub paths: Vec<TopRow>,
    pub countries: Vec<TopRow>,
    pub networks: Vec<TopRow>,
    pub user_agents: Vec<TopRow>,
    /// Why the upstream failed, most often first.
    pub failures: Vec<(String, u64)>,
}

impl LogReader {
    /// The totals of the requests that started at `from` or later and before `to`.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn totals(&self, from: UnixMs, to: UnixMs) -> Result<LogTotals, StoreError> {
        let mut sums = Sums::default();
        self.each_between(from, to, &mut |row| sums.add(row))?;
        Ok(sums.finish())
    }

    /// The same with what came most often, `limit` of each.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn summary(&self, from: UnixMs, to: UnixMs, limit: usize) -> Result<LogSummary, StoreError> {
        let mut sums = Sums::default();
        let mut rankings =
            [TopBy::Ip, TopBy::Path, TopBy::Country, TopBy::Asn, TopBy::UserAgent].map(Ranking::new);
        let mut failures: BTreeMap<String, u64> = BTreeMap::new();
        self.each_between(from, to, &mut |row| {
            sums.add(row);
            rankings.iter_mut().for_each(|ranking| ranking.add(row));
            if let Some(failure) = row.shape.reason.strip_prefix(UPSTREAM)
                && (failures.len() < MAX_FAILURES || failures.contains_key(failure))
            {
                *failures.entry(failure.to_owned()).or_default() += 1;
            }
        })?;
        let [clients, paths, countries, networks, user_agents] =
            rankings.map(|ranking| ranking.finish(limit));
        let mut failures: Vec<(String, u64)> = failures.into_iter().collect();
        failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        failures.truncate(limit);
        Ok(LogSummary { totals: sums.finish(), clients, paths, countries, networks, user_agents, failures })
    }

    fn each_between(
        &self,
        from: UnixMs,
        to: UnixMs,
        each: &mut dyn FnMut(&Decoded<'_>),
    ) -> Result<(), StoreError> {
        let window = Window { from: from.0, to: to.0 };
        let filter = SliceFilter::window_only(window);
        for slice in self.slices_in(window)? {
            self.walk(&slice, &filter, 1..=i64::MAX, Order::OldestFirst, &mut |_, row| {
                each(row);
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Sums {
    totals: LogTotals,
    clients: HashSet<u64>,
    hasher: RandomState,
}

impl Sums {
    fn add(&mut self, row: &Decoded<'_>) {
        let status = row.shape.status;
        let totals = &mut self.totals;
        totals.requests += 1;
        totals.bytes_in = totals.bytes_in.saturating_add(row.bytes_in);
        totals.bytes_out = totals.bytes_out.saturating_add(row.bytes_out);
        totals.statuses.add(status);
        totals.suspicious += u64::from(row.shape.is_suspicious);
        match row.shape.verdict {
            VerdictKind::Blocked => totals.blocked += 1,
            VerdictKind::Limited => totals.limited += 1,
            VerdictKind::Malformed => totals.malformed += 1,
            VerdictKind::WouldBlock | VerdictKind::WouldLimit => totals.would_refuse += 1,
            VerdictKind::Admitted | VerdictKind::Allowed => {}
        }
        if !row.shape.verdict.is_refusal() {
            totals.client_errors += u64::from((400..500).contains(&status));
            totals.server_errors += u64::from(status >= 500);
        }
        totals.upstream_failures += u64::from(row.shape.reason.starts_with(UPSTREAM));
        if self.clients.len() < MAX_CLIENTS {
            self.clients.insert(self.hasher.hash_one(row.client));
        }
    }

    fn finish(self) -> LogTotals {
        LogTotals { clients: self.clients.len() as u64, ..self.totals }
    }
}
