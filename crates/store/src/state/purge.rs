//! Deletes what nobody needs any more.
//!
//! Owns how long each table keeps its rows. Must not touch anything that is in force.

use std::time::Duration;

use serde::Serialize;

use portcullis_model::UnixMs;

use super::State;
use crate::error::StoreError;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Blocks and allows that were removed or have run out: `why` explains decisions that old.
const REMOVED: u32 = 90;
const FINDINGS: u32 = 30;
const LIMIT_EVENTS: u32 = 30;
const TASK_RUNS: u32 = 90;
const GEO_CACHE: u32 = 1;
const AUDIT: u32 = 365;
const ALERTS: u32 = 30;
/// When messages were sent matters for an hour.
const ALERT_SENDS: u32 = 2;
/// Limit events that are kept at most, whatever their age.
const MAX_LIMIT_EVENTS: i64 = 1_000_000;

/// How many rows went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    pub blocks: usize,
    pub allows: usize,
    pub findings: usize,
    pub limit_events: usize,
    pub task_runs: usize,
    pub locations: usize,
    pub audit: usize,
    pub alerts: usize,
    /// Sessions, links and API tokens of the console that have ended.
    pub console: usize,
}

impl State {
    /// Deletes removed and expired blocks after 90 days, findings and limit events after 30, cached
    /// locations after one, task runs after 90, audit entries after a year, alerts after 30; of the
    /// console sessions and links when they have run out, API tokens 90 days later.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn purge(&mut self, now: UnixMs) -> Result<Purged, StoreError> {
        let before = |days: u32| now.minus(DAY * days).0;
        self.write("purging old rows", |transaction| {
            let delete = |sql: &str, bound: i64| transaction.execute(sql, [bound]);
            let events = delete("DELETE FROM limit_events WHERE minute < ?1", before(LIMIT_EVENTS))?
                + delete(
                    "DELETE FROM limit_events WHERE minute < \
                     (SELECT minute FROM limit_events ORDER BY minute DESC LIMIT 1 OFFSET ?1)",
                    MAX_LIMIT_EVENTS,
                )?;
            let alerts = delete("DELETE FROM alerts WHERE last_at < ?1", before(ALERTS))?;
            delete("DELETE FROM alert_sends WHERE at < ?1", before(ALERT_SENDS))?;
            Ok(Purged {
                alerts,
                blocks: delete(
                    "DELETE FROM blocks WHERE removed_at < ?1 OR expires_at < ?1",
                    before(REMOVED),
                )? + delete(
                    "DELETE FROM party_blocks WHERE removed_at < ?1 OR expires_at < ?1",
                    before(REMOVED),
                )?,
                allows: delete("DELETE FROM opt_outs WHERE removed_at < ?1", before(REMOVED))?
                    + delete("DELETE FROM allows WHERE removed_at < ?1", before(REMOVED))?,
                findings: delete("DELETE FROM findings WHERE last_seen < ?1", before(FINDINGS))?,
                limit_events: events,
                task_runs: delete(
                    // The last one of each tells what was missed since.
                    "DELETE FROM task_runs WHERE started_at < ?1 \
                     AND id NOT IN (SELECT max(id) FROM task_runs GROUP BY task)",
                    before(TASK_RUNS),
                )?,
                locations: delete("DELETE FROM geo_cache WHERE fetched_at < ?1", before(GEO_CACHE))?,
                console: delete("DELETE FROM console_sessions WHERE expires_at < ?1", now.0)?
                    + delete("DELETE FROM console_links WHERE expires_at < ?1", now.0)?
                    + delete(
                        "DELETE FROM api_tokens WHERE revoked_at < ?1 OR expires_at < ?1",
                        before(REMOVED),
                    )?,
                audit: delete("DELETE FROM audit WHERE at < ?1", before(AUDIT))?,
            })
        })
    }
}
