//! Everything that the checks look at, gathered once. Must not judge, and must not fail for what is
//! missing: a gateway that never ran has no log.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use portcullis_config::{Config, Feed};
use portcullis_geo::{DatabaseStatus, Geo, SourceKind, SourceState};
use portcullis_model::UnixMs;
use portcullis_policy::PrefixSet;
use portcullis_proxy::{CertificateStatus, inspect_certificates};
use portcullis_store::{AlertChannel, LogReader, LoggedRequest, State, StoreError, TaskRun};

use crate::alerts::channels;
use crate::cli::context::{Context, open_state};
use crate::counts;
use crate::detection;
use crate::feeds::{Files, Status};
use crate::geo::source_state;
use crate::machine::{DiskSpace, disk_space, own_addresses};
use crate::privacy::lasting;
use crate::status::GatewayStatus;
use crate::tasks::{TASKS, running_since};
use crate::upgrade::connect;

/// How far back the traffic is looked at.
pub(super) const WINDOW: Duration = Duration::from_secs(3_600);
/// Requests that are read at most: a second or two of work.
const MAX_ROWS: u64 = 1_000_000;
/// Addresses, programs and paths that are told apart at most.
const MAX_DISTINCT: usize = 100_000;
/// A database, its companions and how large they are together.
const LOG_FILES: [&str; 2] = ["log.db", "log.db-wal"];

pub(super) struct Facts<'a> {
    pub(super) now: UnixMs,
    pub(super) config: &'a Config,
    pub(super) source: Option<PathBuf>,
    /// Since when the configuration file is as it is.
    pub(super) config_changed: Option<UnixMs>,
    /// What the last gateway of the data folder said.
    pub(super) gateway: Option<GatewayStatus>,
    /// Nobody listens where that gateway did.
    pub(super) gateway_has_gone: bool,
    pub(super) traffic: Traffic,
    pub(super) log: Option<LogFacts>,
    /// Blocks in force, of the database and the file, with their number in the database or 0.
    pub(super) blocks: Vec<(IpNet, i64)>,
    pub(super) allows: Vec<IpNet>,
    /// People who have opted out by name.
    pub(super) opt_outs: u64,
    /// Why the key of hashed blocks and opt-outs cannot be used.
    pub(super) lasting_key: Option<String>,
    /// The newest run.
    pub(super) detector: Option<TaskRun>,
    /// The newest run of every task that has run, the detector's too.
    pub(super) task_runs: Vec<TaskRun>,
    /// The channels of alerts that the configuration has and that were used.
    pub(super) alerts: Vec<AlertChannel>,
    /// What is wrong with the isolation forest, and the site's stored knowledge, in words.
    pub(super) forest: Option<String>,
    pub(super) site: Option<String>,
    pub(super) feeds: Vec<FeedFacts>,
    /// Tasks that are being run, and since when.
    pub(super) running: Vec<(&'static str, UnixMs)>,
    pub(super) own: Vec<IpAddr>,
    pub(super) geo: Result<Vec<DatabaseStatus>, String>,
    /// Files that are to be downloaded and are not there yet.
    pub(super) geo_missing: Vec<PathBuf>,
    /// How it is with each source of locations.
    pub(super) geo_sources: Vec<(SourceKind, SourceState)>,
    pub(super) certificates: Vec<CertificateStatus>,
    /// Files and folders that should be private, with their permission bits.
    pub(super) private: Vec<(PathBuf, u32)>,
    pub(super) disk: Option<DiskSpace>,
    /// Databases that cannot be read, and why.
    pub(super) unreadable: Vec<String>,
}

/// How it is with one feed.
#[derive(Clone, Debug)]
pub(super) struct FeedFacts {
    pub(super) name: String,
    pub(super) interval: Duration,
    pub(super) status: Status,
    /// There is a copy, and it is not too old.
    pub(super) in_force: bool,
}

/// The requests of the last hour.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    pub(super) rows: u64,
    /// There were more than are read.
    pub(super) is_partial: bool,
    /// How long the rows are spread over.
    pub(super) span: Duration,
    pub(super) clients: HashMap<IpAddr, u64>,
    /// Different user agents.
    pub(super) agents: usize,
    /// Requests whose client is a trusted proxy itself, and their different paths.
    pub(super) of_proxies: u64,
    pub(super) paths_of_proxies: usize,
}

/// The log as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogFacts {
    pub(super) rows: u64,
    pub(super) last: UnixMs,
    pub(super) bytes: u64,
}

impl<'a> Facts<'a> {
    pub(super) fn gather(context: &Context, config: &'a Config) -> Self {
        let data = &config.data;
        let mut unreadable = Vec::new();
        let source = context.config_file();
        let changed = source.as_ref().and_then(|file| std::fs::metadata(file).ok()?.modified().ok());
        let log = of_log(config, |log| log_facts(log, data)).unwrap_or_else(|error| {
            unreadable.push(error.to_string());
            None
        });
        let (lists, task_runs, alerts) = of_state(config, context.now).unwrap_or_else(|error| {
            unreadable.push(error.to_string());
            Default::default()
        });
        let geo = Geo::open(&config.geo);
        Self {
            now: context.now,
            config,
            source,
            config_changed: changed.map(UnixMs::from_system),
            gateway: GatewayStatus::read(data),
            gateway_has_gone: has_gone(data),
            traffic: Traffic::default(),
            log: log.flatten(),
            blocks: lists.blocks,
            allows: lists.allows,
            opt_outs: lists.opt_outs,
            lasting_key: lasting::problem(data),
            detector: task_runs.iter().find(|run| run.task == detection::TASK).cloned(),
            task_runs,
            alerts,
            forest: detection::forest_state(data).problem(),
            site: detection::read_site(data).err().map(|error| format!("{error:#}")),
            feeds: config.feeds.iter().map(|feed| of_feed(feed, config, context.now)).collect(),
            running: TASKS
                .iter()
                .filter_map(|task| Some((task.name, running_since(data, task.name)?)))
                .collect(),
            own: own_addresses(),
            geo_missing: geo.as_ref().map(Geo::not_there_yet).unwrap_or_default(),
            geo: geo.map(|geo| geo.status()).map_err(|error| error.to_string()),
            geo_sources: geo_sources(config).unwrap_or_default(),
            certificates: inspect_certificates(&config.server),
            private: private(config),
            disk: disk_space(data),
            unreadable,
        }
    }

    /// Reads the requests of the last hour too.
    pub(super) fn with_traffic(mut self) -> Self {
        let (config, now) = (self.config, self.now);
        match of_log(config, |log| traffic(log, config, now)) {
            Ok(traffic) => self.traffic = traffic.unwrap_or_default(),
            // Already said.
            Err(_) if !self.unreadable.is_empty() => {}
            Err(error) => self.unreadable.push(error.to_string()),
        }
        self
    }

    /// The client with the most requests.
    pub(super) fn busiest(&self) -> Option<(IpAddr, u64)> {
        self.traffic.clients.iter().map(|(ip, count)| (*ip, *count)).max_by_key(|(_, count)| *count)
    }

    /// The gateway, if it runs now.
    pub(super) fn running(&self) -> Option<&GatewayStatus> {
        self.gateway.as_ref().filter(|status| status.is_running(self.now) && !self.gateway_has_gone)
    }

    pub(super) fn is_trusted(&self, ip: IpAddr) -> bool {
        self.config.server.trusted_proxies.iter().any(|proxy| proxy.contains(&ip))
    }
}

/// Whether the gateway has ended since it last wrote its state. One that is not heard may still run: it belongs
/// to another user, or has no control socket.
fn has_gone(data: &Path) -> bool {
    connect(data).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// What the log says; `None` where there is no log.
fn of_log<T>(
    config: &Config,
    look: impl FnOnce(&LogReader) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match LogReader::open(&config.data) {
        Ok(log) => look(&log).map(Some),
        Err(StoreError::NoLog(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Default)]
struct Lists {
    blocks: Vec<(IpNet, i64)>,
    allows: Vec<IpNet>,
    opt_outs: u64,
}

/// What of the state cannot be read is told of elsewhere.
fn geo_sources(config: &Config) -> Result<Vec<(SourceKind, SourceState)>, StoreError> {
    let Some(state) = open_state(&config.data)? else { return Ok(Vec::new()) };
    let kinds = config.geo.sources.iter().map(|source| source.kind);
    kinds.map(|kind| Ok((kind, source_state(&state, kind)?))).collect()
}

/// Blocks, allows, the newest run of each task, and how it is with the channels of alerts.
fn of_state(config: &Config, now: UnixMs) -> Result<(Lists, Vec<TaskRun>, Vec<AlertChannel>), StoreError> {
    let state = open_state(&config.data)?;
    let mut newest = Vec::new();
    for (state, task) in state.iter().flat_map(|state| TASKS.iter().map(move |task| (state, task))) {
        newest.extend(state.task_runs(Some(task.name), 1)?);
    }
    let mut alerts = state.as_ref().map(State::alert_channels).transpose()?.unwrap_or_default();
    let used = channels(&config.alerts);
    alerts.retain(|known| used.iter().any(|channel| channel.name() == known.channel));
    let opt_outs = state.as_ref().map(State::opt_outs).transpose()?.unwrap_or_default();
    let lists = Lists {
        blocks: blocks(state.as_ref(), config, now)?,
        allows: allows(state.as_ref(), config)?,
        opt_outs: opt_outs.len() as u64,
    };
    Ok((lists, newest, alerts))
}

fn of_feed(feed: &Feed, config: &Config, now: UnixMs) -> FeedFacts {
    let files = Files::of(&config.data, feed);
    let status = files.status().unwrap_or_default();
    let in_force = files.list.exists() && !status.is_too_old(feed, now);
    FeedFacts { name: feed.name.to_string(), interval: feed.interval, status, in_force }
}

fn traffic(log: &LogReader, config: &Config, now: UnixMs) -> Result<Traffic, StoreError> {
    let trusted: PrefixSet<()> = config.server.trusted_proxies.iter().map(|&proxy| (proxy, ())).collect();
    let mut traffic = Traffic::default();
    let (mut agents, mut paths) = (HashSet::new(), HashSet::new());
    let mut spread: Option<(UnixMs, UnixMs)> = None;
    let mut each = |request: &LoggedRequest<'_>| {
        traffic.rows += 1;
        let (at, ip) = (request.id.time(), request.client.ip());
        let (first, last) = spread.unwrap_or((at, at));
        spread = Some((first.min(at), last.max(at)));
        if traffic.clients.len() < MAX_DISTINCT || traffic.clients.contains_key(&ip) {
            *traffic.clients.entry(ip).or_default() += 1;
        }
        note(&mut agents, request.user_agent);
        if trusted.lookup(ip).is_some() {
            traffic.of_proxies += 1;
            note(&mut paths, request.path);
        }
        traffic.is_partial = traffic.rows >= MAX_ROWS;
        if traffic.is_partial { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    log.visit(now.minus(WINDOW), now, &mut each)?;
    traffic.agents = agents.len();
    traffic.paths_of_proxies = paths.len();
    traffic.span = spread.map_or(Duration::ZERO, |(first, last)| last.since(first));
    Ok(traffic)
}

/// Counts different texts by their hash: what clients send is not kept.
fn note(seen: &mut HashSet<u64>, text: &str) {
    if seen.len() < MAX_DISTINCT {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        seen.insert(hasher.finish());
    }
}

fn log_facts(log: &LogReader, data: &Path) -> Result<Option<LogFacts>, StoreError> {
    let Some((_, last)) = log.span()? else { return Ok(None) };
    let size = |name: &str| std::fs::metadata(data.join(name)).map_or(0, |file| file.len());
    let bytes = LOG_FILES.iter().map(|name| size(name)).sum();
    Ok(Some(LogFacts { rows: log.count()?, last, bytes }))
}

fn blocks(state: Option<&State>, config: &Config, now: UnixMs) -> Result<Vec<(IpNet, i64)>, StoreError> {
    let stored = state.map(|state| state.active_blocks(now)).transpose()?.unwrap_or_default();
    let mut blocks: Vec<(IpNet, i64)> = stored.iter().map(|block| (block.network, block.id)).collect();
    let known: HashSet<IpNet> = blocks.iter().map(|(network, _)| *network).collect();
    let of_the_file = config.blocks.iter().map(|(network, _)| *network);
    blocks.extend(of_the_file.filter(|network| !known.contains(network)).map(|network| (network, 0)));
    Ok(blocks)
}

fn allows(state: Option<&State>, config: &Config) -> Result<Vec<IpNet>, StoreError> {
    let stored = state.map(State::allows).transpose()?.unwrap_or_default();
    let mut allows: Vec<IpNet> = stored.iter().map(|allow| allow.network).collect();
    let of_the_file = config.allows.iter().map(|(network, _)| *network);
    let new: Vec<IpNet> = of_the_file.filter(|network| !allows.contains(network)).collect();
    allows.extend(new);
    Ok(allows)
}

/// The data folder, its databases and the private keys, as far as they are there.
fn private(config: &Config) -> Vec<(PathBuf, u32)> {
    let mut paths = vec![config.data.clone()];
    paths.extend(["log.db", "state.db", counts::FILE].map(|name| config.data.join(name)));
    let keys = config.server.tls.iter().flat_map(|listener| &listener.certificates);
    paths.extend(keys.map(|files| files.key.clone()));
    let with_mode = |path: PathBuf| std::fs::metadata(&path).ok().map(|file| (path, file.mode() & 0o777));
    paths.into_iter().filter_map(with_mode).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::doctor) const NOW_MS: i64 = 1_800_000_000_000;

    pub(in crate::cli::doctor) fn config(more: &str) -> Config {
        let text = format!("{more}\n[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:8000\"]\n");
        let overrides = portcullis_config::Overrides::default();
        portcullis_config::parse(&text, "test", Path::new(""), &overrides).unwrap()
    }

    /// A gateway that runs, with a thousand requests of a hundred visitors in the last hour.
    pub(in crate::cli::doctor) fn healthy(config: &Config) -> Facts<'_> {
        let now = UnixMs(NOW_MS);
        let hour_ago = now.minus(WINDOW);
        let client = |n: u8| (IpAddr::from([198, 51, 100, n]), 10);
        Facts {
            now,
            config,
            source: Some("portcullis.toml".into()),
            config_changed: Some(hour_ago),
            gateway: Some(GatewayStatus {
                written_at: now.0 - 2_000,
                started_at: hour_ago.minus(WINDOW * 24).0,
                counted_seconds: 3_600,
                requests: 1_000,
                open_files_limit: Some(1_048_576),
                ..GatewayStatus::default()
            }),
            gateway_has_gone: false,
            traffic: Traffic {
                rows: 1_000,
                span: WINDOW,
                clients: (0..100).map(client).collect(),
                agents: 40,
                ..Traffic::default()
            },
            log: Some(LogFacts { rows: 24_000, last: now, bytes: 2 << 20 }),
            blocks: Vec::new(),
            allows: Vec::new(),
            opt_outs: 0,
            lasting_key: Some("d/privacy.key is not there".to_owned()),
            detector: Some(run(now.minus(WINDOW / 2), true)),
            task_runs: vec![run(now.minus(WINDOW / 2), true)],
            alerts: Vec::new(),
            forest: None,
            site: None,
            feeds: Vec::new(),
            running: Vec::new(),
            own: vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([192, 0, 2, 10])],
            geo: Ok(Vec::new()),
            geo_missing: Vec::new(),
            geo_sources: Vec::new(),
            certificates: Vec::new(),
            private: vec![("portcullis-data".into(), 0o700), ("portcullis-data/log.db".into(), 0o600)],
            disk: Some(DiskSpace { free: 50 << 30, total: 100 << 30 }),
            unreadable: Vec::new(),
        }
    }

    pub(in crate::cli::doctor) fn run(started_at: UnixMs, succeeded: bool) -> TaskRun {
        TaskRun {
            id: 1,
            task: detection::TASK.to_owned(),
            started_at,
            finished_at: started_at,
            succeeded,
            summary: "the disk is full".to_owned(),
        }
    }
}
