//! What was decided in a span of time: findings, blocks, limits.
//!
//! Owns the sums of the daily report. Must not change anything.

use rusqlite::params;
use serde::Serialize;

use portcullis_model::{Severity, UnixMs, VerdictKind};

use super::{State, parsed, row_limit};
use crate::error::StoreError;

/// Sums over a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateSummary {
    /// By severity, the least severe first; a finding counts when it was last brought up to date.
    pub findings: [u64; Severity::ALL.len()],
    /// By who added them, such as `detector`.
    pub blocks_added: Vec<(String, u64)>,
    /// Lifted by a person, or run out.
    pub blocks_ended: u64,
    /// At the end of the span.
    pub blocks_in_force: u64,
    /// The limits that were met most often.
    pub limits: Vec<LimitSum>,
}

/// How often a limit was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitSum {
    pub rule: String,
    /// `Limited`, or `WouldLimit` in a dry run.
    pub action: VerdictKind,
    pub requests: u64,
    /// IPv6 clients by their /64.
    pub clients: u64,
}

/// The blocks of addresses, and those of users and of the anonymous clients of an address.
const ALL_BLOCKS: &str = "(SELECT source, created_at, expires_at, removed_at, removed_by FROM blocks \
     UNION ALL SELECT source, created_at, expires_at, removed_at, removed_by FROM party_blocks)";

impl State {
    /// What was decided at `from` or later and before `to`.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn summary(&self, from: UnixMs, to: UnixMs, limit: usize) -> Result<StateSummary, StoreError> {
        self.read("summing up a day", || {
            let mut summary = StateSummary::default();
            let span = params![from.0, to.0];
            let count = |n: i64| u64::try_from(n).unwrap_or(0);
            let mut found = self.connection.prepare_cached(
                "SELECT severity, count(*) FROM findings WHERE detected_at >= ?1 AND detected_at < ?2 GROUP BY severity",
            )?;
            for row in found.query_map(span, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))? {
                let (severity, n) = row?;
                let place = usize::try_from(severity).ok().and_then(|at| summary.findings.get_mut(at));
                *place.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, severity))? = count(n);
            }
            let mut added = self.connection.prepare_cached(&format!(
                "SELECT source, count(*) FROM {ALL_BLOCKS} WHERE created_at >= ?1 AND created_at < ?2 \
                 GROUP BY source ORDER BY 2 DESC",
            ))?;
            let added = added.query_map(span, |row| Ok((row.get(0)?, count(row.get(1)?))))?;
            summary.blocks_added = added.collect::<rusqlite::Result<_>>()?;
            summary.blocks_ended = self
                .connection
                .prepare_cached(&format!(
                    "SELECT count(*) FROM {ALL_BLOCKS} WHERE coalesce(removed_by, '') <> 'replaced' \
                     AND min(coalesce(removed_at, expires_at), coalesce(expires_at, removed_at)) >= ?1 \
                     AND min(coalesce(removed_at, expires_at), coalesce(expires_at, removed_at)) < ?2",
                ))?
                .query_row(span, |row| row.get(0).map(count))?;
            summary.blocks_in_force = self
                .connection
                .prepare_cached(&format!(
                    "SELECT count(*) FROM {ALL_BLOCKS} WHERE created_at < ?1 AND coalesce(removed_at, ?1) >= ?1 \
                     AND coalesce(expires_at, ?1 + 1) > ?1",
                ))?
                .query_row([to.0], |row| row.get(0).map(count))?;
            let mut limits = self.connection.prepare_cached(
                "SELECT rule, action, sum(count), count(DISTINCT client) FROM limit_events \
                 WHERE minute >= ?1 AND minute < ?2 GROUP BY rule, action ORDER BY 3 DESC LIMIT ?3",
            )?;
            let limits = limits.query_map(params![from.0, to.0, row_limit(limit)], |row| {
                Ok(LimitSum {
                    rule: row.get(0)?,
                    action: parsed(row, 1)?,
                    requests: count(row.get(2)?),
                    clients: count(row.get(3)?),
                })
            })?;
            summary.limits = limits.collect::<rusqlite::Result<_>>()?;
            Ok(summary)
        })
    }
}

#[cfg(test)]
mod tests {
    use portcullis_model::{BlockSource, Finding, Party};

    use super::*;
    use crate::{LimitEvent, NewBlock, NewPartyBlock};

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_day_is_summed_up_and_its_neighbours_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        let block = |network: &str, at: i64, expires: Option<i64>| NewBlock {
            network: network.parse().unwrap(),
            reason: "bad".to_owned(),
            source: if at % 2 == 0 { BlockSource::Detector } else { BlockSource::Cli },
            created_at: UnixMs(at),
            expires_at: expires.map(UnixMs),
            finding_id: None,
        };
        let (from, to) = (24 * HOUR, 48 * HOUR);
        for (network, at, expires) in [
            ("192.0.2.1/32", from - 2, Some(from + HOUR)),
            ("192.0.2.2/32", from, None),
            ("192.0.2.3/32", from + 2, Some(to)),
            ("192.0.2.4/32", to - 1, None),
            ("192.0.2.5/32", to, None),
        ] {
            state.add_block(block(network, at, expires), "test").unwrap();
        }
        let of_user = |user: &str, at: i64| NewPartyBlock {
            party: Party::User(user.into()),
            reason: "bad".to_owned(),
            source: BlockSource::Detector,
            created_at: UnixMs(at),
            expires_at: Some(UnixMs(at + HOUR)),
            finding_id: None,
        };
        // One that ends on the day, and one that is in force when it ends.
        state.add_party_block(of_user("alice", from + 4), "test").unwrap();
        state.add_party_block(of_user("bob", to - 2), "test").unwrap();
        for (at, severity) in
            [(from - 1, Severity::High), (from, Severity::High), (to - 1, Severity::Critical)]
        {
            let finding = Finding {
                client: format!("198.51.100.{}", at % 200).parse().unwrap(),
                user: None,
                reason: "scan".to_owned(),
                severity,
                request_count: 1,
                first_seen: UnixMs(at),
                last_seen: UnixMs(at),
                detected_at: UnixMs(at),
                details: serde_json::json!({}),
            };
            state.save_finding(&finding).unwrap();
        }
        let event = |minute: i64, client: &str, rule: &str, count| LimitEvent {
            client: client.parse().unwrap(),
            rule: rule.to_owned(),
            bound: "3/5m".to_owned(),
            endpoint: "/login".to_owned(),
            minute: UnixMs(minute),
            count,
            action: VerdictKind::Limited,
        };
        let events = [
            event(from, "192.0.2.1", "login", 5),
            event(from + 60_000, "192.0.2.2", "login", 2),
            event(from + 60_000, "192.0.2.2", "all", 1),
            event(to, "192.0.2.2", "login", 9),
        ];
        state.record_limit_events(&events).unwrap();
        let summary = state.summary(UnixMs(from), UnixMs(to), 10).unwrap();
        assert_eq!(summary.findings, [0, 0, 1, 1]);
        assert_eq!(summary.blocks_added, [("detector".to_owned(), 4), ("cli".to_owned(), 1)]);
        assert_eq!((summary.blocks_ended, summary.blocks_in_force), (2, 3));
        let limits: Vec<(&str, u64, u64)> =
            summary.limits.iter().map(|sum| (sum.rule.as_str(), sum.requests, sum.clients)).collect();
        assert_eq!(limits, [("login", 7, 2), ("all", 1, 1)]);
    }
}
