//! Gathers limited requests into one event per client, rule, what of it was used up, endpoint and minute.
//!
//! Owns the bounded table between the log writer and the state database. Must never make the log wait
//! or fail: what cannot be written is counted and dropped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use portcullis_model::{ClientIp, RequestRecord, UnixMs, VerdictKind};

use super::Enrich;
use super::stats::LogStats;
use crate::error::StoreError;
use crate::state::{LimitEvent, State};

/// Beyond this many different events in a minute, endpoints are folded into [`OTHER_ENDPOINTS`].
const MAX_WITH_ENDPOINT: usize = 512;
/// Beyond this many in a minute, events are dropped and counted. So a flood leaves at most 1.5 million
/// rows in the state database until the daily clean-up.
const MAX_EVENTS: usize = 1_024;
/// The longest endpoint that is kept, in bytes.
const MAX_ENDPOINT: usize = 256;
/// What stands for endpoints that did not fit.
const OTHER_ENDPOINTS: &str = "*";
/// The state database commits with a sync to disk; a flood of limited requests must not mean a sync
/// for each batch of the log.
pub(crate) const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// The log does not wait longer than this for a locked state database.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    client: ClientIp,
    rule: Arc<str>,
    bound: String,
    endpoint: Box<str>,
    minute: i64,
    verdict: VerdictKind,
}

/// Events that are not in the state database yet, and the minute's that are.
pub(crate) struct LimitEvents {
    dir: PathBuf,
    /// What has not been written of each. Written events stay until their minute is over, because the
    /// bounds are those of a minute.
    counts: HashMap<Key, u64>,
    /// The minute of the event that came last.
    minute: i64,
    /// Whether every count has been written.
    is_written: bool,
    state: Option<State>,
    has_warned: bool,
}

impl LimitEvents {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            counts: HashMap::new(),
            minute: 0,
            is_written: true,
            state: None,
            has_warned: false,
        }
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_written
    }

    /// Takes note of the limited requests of a committed batch.
    pub(crate) fn gather(&mut self, batch: &[RequestRecord], enrich: &mut dyn Enrich, stats: &LogStats) {
        for record in batch {
            let is_limited = matches!(record.verdict, VerdictKind::Limited | VerdictKind::WouldLimit);
            if is_limited && let Some(rule) = record.reason.limit() {
                self.add(record, rule, enrich.bound(&record.reason), stats);
            }
        }
    }

    fn add(&mut self, record: &RequestRecord, rule: &Arc<str>, bound: String, stats: &LogStats) {
        let path = record.text.path();
        self.minute = record.id.time().0.div_euclid(60_000) * 60_000;
        let mut key = Key {
            client: ClientIp::new(record.client.limit_key()),
            rule: Arc::clone(rule),
            bound,
            endpoint: path[..path.floor_char_boundary(MAX_ENDPOINT)].into(),
            minute: self.minute,
            verdict: record.verdict,
        };
        if self.counts.len() >= MAX_WITH_ENDPOINT && !self.counts.contains_key(&key) {
            key.endpoint = OTHER_ENDPOINTS.into();
        }
        if self.counts.len() >= MAX_EVENTS && !self.counts.contains_key(&key) {
            stats.limit_events_dropped.fetch_add(1, Relaxed);
            return;
        }
        *self.counts.entry(key).or_default() += 1;
        self.is_written = false;
    }

    /// Writes what has gathered; on failure it stays, within the bounds, for the next time.
    pub(crate) fn write(&mut self) {
        if self.is_written {
            return;
        }
        let new = self.counts.iter().filter(|(_, count)| **count > 0);
        let events: Vec<LimitEvent> = new.map(|(key, count)| event_of(key, *count)).collect();
        match self.try_write(&events) {
            Ok(()) => {
                self.forget_written();
                self.has_warned = false;
            }
            Err(error) => {
                self.state = None;
                if !self.has_warned {
                    tracing::warn!(%error, "limit events are not being recorded; trying again");
                    self.has_warned = true;
                }
            }
        }
    }

    /// Everything has been written: of the running minute the events are kept, without their counts.
    fn forget_written(&mut self) {
        let running = self.minute;
        self.counts.retain(|key, count| {
            *count = 0;
            key.minute == running
        });
        self.is_written = true;
    }

    fn try_write(&mut self, events: &[LimitEvent]) -> Result<(), StoreError> {
        let state = match &mut self.state {
            Some(state) => state,
            empty => empty.insert(State::open_with_timeout(&self.dir, BUSY_TIMEOUT)?),
        };
        state.record_limit_events(events)
    }
}

fn event_of(key: &Key, count: u64) -> LimitEvent {
    LimitEvent {
        client: key.client,
        rule: key.rule.to_string(),
        bound: key.bound.clone(),
        endpoint: key.endpoint.to_string(),
        minute: UnixMs(key.minute),
        count,
        action: key.verdict,
    }
}
