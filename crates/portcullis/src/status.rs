//! What a running gateway tells the commands: `gateway.json` in the data folder, written every few seconds.
//!
//! Owns the file and the counts of the last hour in it. Must not hold what the databases have already, nor
//! anything that a client sent.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portcullis_identity::TokenFault;
use portcullis_model::{LoginOutcome, UnixMs, VerdictKind};
use portcullis_proxy::{CLASSES, EdgeMetrics, FORWARDING_HEADERS, Identities};
use portcullis_store::LogStats;
use serde::{Deserialize, Serialize};

use crate::identity::KeySetState;

const FILE: &str = "gateway.json";
/// From one writing to the next.
pub(crate) const WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// A gateway whose file is older than this does not run.
pub(crate) const STALE: Duration = Duration::from_secs(60);
/// The counts of the last hour are taken from one snapshot per minute.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);
const MAX_SNAPSHOTS: usize = 61;
/// More than that is not this file.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The state of a gateway at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GatewayStatus {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) started_at: i64,
    pub(crate) written_at: i64,
    /// How long the counts of `requests` and `forwarding_ignored` go back: an hour at most.
    pub(crate) counted_seconds: u64,
    pub(crate) requests: u64,
    /// Requests from peers that are not trusted, by the forwarding header that they had.
    pub(crate) forwarding_ignored: BTreeMap<String, u64>,
    /// Since the start.
    pub(crate) rows_lost: u64,
    /// Alarms of the detector at request time. Since the start.
    #[serde(default)]
    pub(crate) alarms_lost: u64,
    /// Since the start.
    pub(crate) log_write_errors: u64,
    pub(crate) log_is_failing: bool,
    pub(crate) connections: u64,
    /// The soft limit; `None` is no limit.
    pub(crate) open_files_limit: Option<u64>,
    /// `None` when nobody can be known.
    #[serde(default)]
    pub(crate) identity: Option<IdentityStatus>,
}

/// What is known of who requests are from; counts are since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct IdentityStatus {
    pub(crate) sessions: u64,
    pub(crate) ambiguous_cookies: u64,
    pub(crate) tokens_accepted: u64,
    /// By what was wrong with them.
    pub(crate) tokens_refused: BTreeMap<String, u64>,
    /// By how they ended.
    pub(crate) logins: BTreeMap<String, u64>,
    pub(crate) key_set: Option<KeySetState>,
}

impl IdentityStatus {
    pub(crate) fn of(live: &Identities, key_set: KeySetState) -> Self {
        let refused = TokenFault::ALL.into_iter().map(|f| (f.as_str().to_owned(), live.tokens.refused(f)));
        let logins = LoginOutcome::ALL.iter().map(|o| (o.as_str().to_owned(), live.logins(*o)));
        Self {
            sessions: live.sessions().map_or(0, |sessions| sessions.len() as u64),
            ambiguous_cookies: live.ambiguous_cookies(),
            tokens_accepted: live.tokens.accepted(),
            tokens_refused: refused.filter(|(_, count)| *count > 0).collect(),
            logins: logins.collect(),
            key_set: (!key_set.source.is_empty()).then_some(key_set),
        }
    }
}

impl GatewayStatus {
    /// What the last gateway of the data folder said; `None` when there is nothing that can be read.
    pub(crate) fn read(data: &Path) -> Option<Self> {
        let path = data.join(FILE);
        if std::fs::metadata(&path).ok()?.len() > MAX_FILE_BYTES {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Whether the gateway that wrote it is still running, as far as the file tells.
    pub(crate) fn is_running(&self, now: UnixMs) -> bool {
        now.since(UnixMs(self.written_at)) < STALE
    }
}

/// Writes the status of one gateway while that runs.
pub(crate) struct StatusWriter {
    started_at: UnixMs,
    next: Instant,
    /// The counters at the start, and then at each full minute of the last hour.
    snapshots: VecDeque<(Instant, Counted)>,
    has_warned: bool,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    requests: u64,
    forwarding_ignored: [u64; FORWARDING_HEADERS.len()],
}

impl Counted {
    fn of(metrics: &EdgeMetrics) -> Self {
        let classes = (0..CLASSES.len()).flat_map(|class| VerdictKind::ALL.map(|verdict| (verdict, class)));
        Self {
            requests: classes.map(|(verdict, class)| metrics.requests(verdict, class)).sum(),
            forwarding_ignored: std::array::from_fn(|n| metrics.ignored_forwarding(n)),
        }
    }
}

impl StatusWriter {
    pub(crate) fn new(started_at: UnixMs, now: Instant) -> Self {
        Self {
            started_at,
            next: now,
            snapshots: VecDeque::from([(now, Counted::default())]),
            has_warned: false,
        }
    }

    /// Writes the file when it is time; `more` is who is known, and how many alarms were lost. That it cannot be written is said once: nothing but advice is lost.
    pub(crate) fn tick(
        &mut self,
        data: &Path,
        metrics: &EdgeMetrics,
        log: &LogStats,
        more: impl FnOnce() -> (Option<IdentityStatus>, u64),
        (wall, now): (UnixMs, Instant),
    ) {
        if now < self.next {
            return;
        }
        self.next = now + WRITE_INTERVAL;
        let (identity, alarms_lost) = more();
        let status = GatewayStatus { identity, alarms_lost, ..self.status(metrics, log, wall, now) };
        if let Err(error) = write(data, &status)
            && !std::mem::replace(&mut self.has_warned, true)
        {
            tracing::warn!("\"portcullis doctor\" will know less: {error:#}");
        }
    }

    fn status(&mut self, metrics: &EdgeMetrics, log: &LogStats, wall: UnixMs, now: Instant) -> GatewayStatus {
        let counted = Counted::of(metrics);
        let (since, then) = self.snapshots.front().copied().unwrap_or((now, Counted::default()));
        if self.snapshots.back().is_none_or(|(at, _)| now.duration_since(*at) >= SNAPSHOT_INTERVAL) {
            self.snapshots.push_back((now, counted));
            while self.snapshots.len() > MAX_SNAPSHOTS {
                self.snapshots.pop_front();
            }
        }
        let ignored = FORWARDING_HEADERS.iter().enumerate().map(|(n, header)| {
            let count = counted.forwarding_ignored[n].saturating_sub(then.forwarding_ignored[n]);
            ((*header).to_owned(), count)
        });
        GatewayStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at.0,
            written_at: wall.0,
            counted_seconds: now.duration_since(since).as_secs(),
            requests: counted.requests.saturating_sub(then.requests),
            forwarding_ignored: ignored.filter(|(_, count)| *count > 0).collect(),
            rows_lost: log.dropped(),
            alarms_lost: 0,
            log_write_errors: log.write_errors(),
            log_is_failing: log.is_failing(),
            connections: metrics.connections(),
            identity: None,
            open_files_limit: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        }
    }
}

/// Writes beside and renames, so that nobody reads half a file.
fn write(data: &Path, status: &GatewayStatus) -> anyhow::Result<()> {
    let path = data.join(FILE);
    let new = path.with_extension("json.new");
    std::fs::write(&new, serde_json::to_vec_pretty(status)?)
        .and_then(|()| std::fs::rename(&new, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_survives_its_file_and_counts_an_hour_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let (metrics, log) = (EdgeMetrics::default(), LogStats::default());
        let start = Instant::now();
        let mut writer = StatusWriter::new(UnixMs(5), start);
        for minute in 0..200_u64 {
            let now = start + Duration::from_secs(minute * 60);
            writer.tick(folder.path(), &metrics, &log, || (None, 0), (UnixMs(minute as i64 * 60_000), now));
        }
        let status = GatewayStatus::read(folder.path()).unwrap();
        assert_eq!((status.started_at, status.counted_seconds, status.requests), (5, 3_660, 0));
        assert!(status.is_running(UnixMs(199 * 60_000 + 30_000)));
        assert!(!status.is_running(UnixMs(201 * 60_000)));
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(GatewayStatus::read(folder.path()), None);
    }
}
