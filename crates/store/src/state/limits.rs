//! Limit events: which limit met which client, counted per minute.
//!
//! Owns the table `limit_events`. Must not grow with the number of refused requests.

use rusqlite::params;
use serde::Serialize;

use portcullis_model::{ClientIp, UnixMs, VerdictKind};

use super::{State, parsed, row_limit};
use crate::error::StoreError;

/// A client met a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitEvent {
    /// The address that the limit counts by: an IPv6 client's /64.
    pub client: ClientIp,
    pub rule: String,
    /// What of the limit was used up, as the configuration had it: `3/5m`, `burst 10/1s` or `4 at once`. Empty when
    /// it is not known.
    pub bound: String,
    /// The path, or `*` for those beyond the bound.
    pub endpoint: String,
    /// The beginning of the minute.
    pub minute: UnixMs,
    /// Requests in that minute.
    pub count: u64,
    /// `Limited`, or `WouldLimit` in a dry run.
    pub action: VerdictKind,
}

impl State {
    /// Adds counts to the events of their minutes.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn record_limit_events(&mut self, events: &[LimitEvent]) -> Result<(), StoreError> {
        self.write("recording limit events", |transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO limit_events (minute, client, rule, endpoint, action, bound, count) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
                 ON CONFLICT (minute, client, rule, endpoint, action, bound) \
                 DO UPDATE SET count = count + excluded.count",
            )?;
            for event in events {
                statement.execute(params![
                    event.minute.0,
                    event.client.to_string(),
                    event.rule,
                    event.endpoint,
                    event.action.as_str(),
                    event.bound,
                    i64::try_from(event.count).unwrap_or(i64::MAX)
                ])?;
            }
            Ok(())
        })
    }

    /// The events of `since` and later, newest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn limit_events(&self, since: UnixMs, limit: usize) -> Result<Vec<LimitEvent>, StoreError> {
        let sql = "SELECT minute, client, rule, endpoint, action, count, bound FROM limit_events \
                   WHERE minute >= ?1 ORDER BY minute DESC, count DESC LIMIT ?2";
        self.read("reading the limit events", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let events = statement.query_map(params![since.0, row_limit(limit)], |row| {
                Ok(LimitEvent {
                    minute: UnixMs(row.get(0)?),
                    client: parsed(row, 1)?,
                    rule: row.get(2)?,
                    endpoint: row.get(3)?,
                    action: parsed(row, 4)?,
                    count: u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0),
                    bound: row.get(6)?,
                })
            })?;
            events.collect()
        })
    }

    /// How often each rule was met since then.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn limit_totals(&self, since: UnixMs) -> Result<Vec<LimitTotal>, StoreError> {
        let sql = "SELECT rule, action, SUM(count), MAX(minute) FROM limit_events \
                   WHERE minute >= ?1 GROUP BY rule, action ORDER BY rule, action";
        self.read("adding the limit events up", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let totals = statement.query_map([since.0], |row| {
                Ok(LimitTotal {
                    rule: row.get(0)?,
                    action: parsed(row, 1)?,
                    count: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                    last: UnixMs(row.get(3)?),
                })
            })?;
            totals.collect()
        })
    }
}

/// What a rule did in a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitTotal {
    pub rule: String,
    /// `Limited`, or `WouldLimit` in a dry run.
    pub action: VerdictKind,
    pub count: u64,
    /// The beginning of the last minute with one.
    pub last: UnixMs,
}
