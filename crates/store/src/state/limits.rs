//! Limit events: which limit met which client, counted per minute.
//!
//! Owns the table `limit_events`. Must not grow with the number of refused requests.

use std::fmt;
use std::str::FromStr;

use rusqlite::{Row, params};
use serde::Serialize;

use portcullis_model::{ClientIp, UnixMs, VerdictKind};

use super::{State, parsed, row_limit};
use crate::error::StoreError;
use crate::read::BadCursor;

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

/// Which events. Everything that is set must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitEventFilter {
    /// Of that minute or later.
    pub since: UnixMs,
    pub rule: Option<String>,
    /// Of IPv6, its /64.
    pub client: Option<ClientIp>,
}

/// A place among the events: so many of the minute have been seen, and all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitEventCursor {
    minute: UnixMs,
    seen: u32,
}

impl LimitEventCursor {
    /// The place after `last`, the last of a page that began here.
    fn after(self, last: &LimitEvent, page: &[LimitEvent]) -> Self {
        let of_page = page.iter().rev().take_while(|event| event.minute == last.minute).count();
        let before = if last.minute == self.minute { self.seen } else { 0 };
        Self { minute: last.minute, seen: before.saturating_add(u32::try_from(of_page).unwrap_or(u32::MAX)) }
    }
}

impl fmt::Display for LimitEventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.minute.0, self.seen)
    }
}

impl FromStr for LimitEventCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (minute, seen) = text.split_once('-').ok_or(BadCursor)?;
        if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return Err(BadCursor);
        }
        let minute = minute.parse().map_err(|_| BadCursor)?;
        Ok(Self { minute: UnixMs(minute), seen: seen.parse().map_err(|_| BadCursor)? })
    }
}

const COLUMNS: &str = "minute, client, rule, endpoint, action, count, bound";

fn from_row(row: &Row<'_>) -> rusqlite::Result<LimitEvent> {
    Ok(LimitEvent {
        minute: UnixMs(row.get(0)?),
        client: parsed(row, 1)?,
        rule: row.get(2)?,
        endpoint: row.get(3)?,
        action: parsed(row, 4)?,
        count: u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0),
        bound: row.get(6)?,
    })
}

/// Events that are looked through for one client.
const MAX_LOOKED_AT: usize = 100_000;

impl State {
    /// The limits that a client met since then, newest first. An IPv6 client is its /64.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn limit_events_about(&self, client: ClientIp, since: UnixMs) -> Result<Vec<LimitEvent>, StoreError> {
        let mut events = self.limit_events(since, MAX_LOOKED_AT)?;
        events.retain(|event| event.client.limit_key() == client.limit_key());
        Ok(events)
    }

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
        let sql = format!(
            "SELECT {COLUMNS} FROM limit_events WHERE minute >= ?1 ORDER BY minute DESC, count DESC LIMIT ?2"
        );
        self.read("reading the limit events", || {
            let parameters = params![since.0, row_limit(limit)];
            self.connection.prepare_cached(&sql)?.query_map(parameters, from_row)?.collect()
        })
    }

    /// A page of the events that pass the filter, newest first, and where the next page begins. Of the minute that is
    /// still under way, an event can come twice.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn limit_events_page(
        &self,
        filter: &LimitEventFilter,
        before: Option<LimitEventCursor>,
        limit: usize,
    ) -> Result<(Vec<LimitEvent>, Option<LimitEventCursor>), StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM limit_events WHERE minute >= ?1 AND minute <= ?2 \
             AND (?3 IS NULL OR rule = ?3) AND (?4 IS NULL OR client = ?4) \
             ORDER BY minute DESC, client, rule, endpoint, action, bound LIMIT ?5 OFFSET ?6"
        );
        let from = before.unwrap_or(LimitEventCursor { minute: UnixMs(i64::MAX), seen: 0 });
        let parameters = params![
            filter.since.0,
            from.minute.0,
            filter.rule,
            filter.client.map(|client| client.limit_key().to_string()),
            row_limit(limit.saturating_add(1)),
            // Within one minute alone, which is bounded.
            from.seen
        ];
        let mut events: Vec<LimitEvent> = self.read("reading the limit events", || {
            self.connection.prepare_cached(&sql)?.query_map(parameters, from_row)?.collect()
        })?;
        let has_more = events.len() > limit;
        events.truncate(limit);
        Ok((events.clone(), events.last().filter(|_| has_more).map(|last| from.after(last, &events))))
    }

    /// The clients that met limits most since then, most first, with how often.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn limited_clients(&self, since: UnixMs, limit: usize) -> Result<Vec<(ClientIp, u64)>, StoreError> {
        let sql = "SELECT client, SUM(count) FROM limit_events WHERE minute >= ?1 \
                   GROUP BY client ORDER BY 2 DESC, 1 LIMIT ?2";
        self.read("adding the limit events up by client", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![since.0, row_limit(limit)], |row| {
                Ok((parsed(row, 0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
            })?;
            rows.collect()
        })
    }

    /// The same of the paths, each with its rule.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn limited_endpoints(
        &self,
        since: UnixMs,
        limit: usize,
    ) -> Result<Vec<(String, String, u64)>, StoreError> {
        let sql = "SELECT rule, endpoint, SUM(count) FROM limit_events WHERE minute >= ?1 \
                   GROUP BY rule, endpoint ORDER BY 3 DESC, 2, 1 LIMIT ?2";
        self.read("adding the limit events up by path", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![since.0, row_limit(limit)], |row| {
                Ok((row.get(0)?, row.get(1)?, u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0)))
            })?;
            rows.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_show_each_event_once_also_within_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open_or_create(dir.path()).unwrap();
        let event = |n: u8| LimitEvent {
            client: format!("192.0.2.{n}").parse().unwrap(),
            rule: if n.is_multiple_of(5) { "login" } else { "all" }.to_owned(),
            bound: String::new(),
            endpoint: "/".to_owned(),
            minute: UnixMs(i64::from(n / 10) * 60_000),
            count: u64::from(n % 3),
            action: VerdictKind::Limited,
        };
        let events: Vec<_> = (0..40).map(event).collect();
        state.record_limit_events(&events).unwrap();
        let walk = |filter: &LimitEventFilter, limit| {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let (page, next) = state.limit_events_page(filter, cursor, limit).unwrap();
                assert!(page.len() <= limit);
                seen.extend(page);
                match next {
                    Some(next) => cursor = Some(next.to_string().parse().unwrap()),
                    None => return seen,
                }
            }
        };
        let mut filter = LimitEventFilter { since: UnixMs(0), rule: None, client: None };
        let all = walk(&filter, 1_000);
        assert_eq!(all.len(), events.len());
        for limit in [1, 3, 10, 39, 40] {
            assert_eq!(walk(&filter, limit), all, "{limit}");
        }
        filter.rule = Some("login".to_owned());
        assert_eq!(walk(&filter, 3).len(), 8);
        filter.client = Some("192.0.2.35".parse().unwrap());
        assert_eq!(walk(&filter, 3), [event(35)]);
        for text in ["", "-1", "1", "1-", "1-2-3", "x-1"] {
            assert_eq!(text.parse::<LimitEventCursor>(), Err(BadCursor), "{text}");
        }
    }
}
