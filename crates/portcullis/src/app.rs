//! The wiring: makes every part, hands each what it needs of the others, and ends them in order.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use portcullis_admin::{Console, Operations, Parts, Probes};
use portcullis_config::{Config, Diff, FileStamp, LiveSetting, Loaded, Overrides, TlsListener, diff, load};
use portcullis_geo::{Geo, SourcesThread};
use portcullis_model::{ClientIp, Location, Reason, RequestRecord, UnixMs, VerdictKind};
use portcullis_policy::{BlockChange, Exhausted, LiveState, Place as Origin};
use portcullis_privacy::is_pseudonym;
use portcullis_proxy::{Bound, Callbacks, Clock, Gateway, Places, Seen, rehearse};
use portcullis_store::{Changes, Enrich, Log, LogStats, State, StateWatcher};

use crate::alerts::Alerts;
use crate::bots::Bots;
use crate::console::{Backend, first_link};
use crate::counts::{self, Counts};
use crate::detection::Live;
use crate::feeds::LiveFeeds;
use crate::geo;
use crate::identity;
use crate::metrics::{AppStats, ReloadOutcome, Sources, renderer};
use crate::parties;
use crate::privacy::{Erasure, KeptBlocks, Recording};
use crate::sentence::sentence;
use crate::settings;
use crate::tasks::{GatewayParts, OnDetection};
use crate::upgrade::Predecessor;

/// How often the state database is asked whether something has changed.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Locked by the gateway that uses a data folder.
pub(crate) const LOCK_FILE: &str = "gateway.lock";

/// A gateway that runs. Ends with [`App::shutdown`].
pub(crate) struct App {
    config: Arc<ArcSwap<Config>>,
    source: Option<PathBuf>,
    source_stamp: Option<FileStamp>,
    overrides: Overrides,
    listeners: Vec<(SocketAddr, bool)>,
    metrics_address: Option<SocketAddr>,
    gateway: Gateway,
    log: Arc<Log>,
    geo: Arc<ArcSwap<Geo>>,
    recording: Arc<Recording>,
    detector: Arc<Live>,
    kept_blocks: Arc<KeptBlocks>,
    /// Asks the sources of `geo`.
    geo_sources: Mutex<Option<SourcesThread>>,
    stats: Arc<AppStats>,
    alerts: Alerts,
    session_copies: Arc<identity::Copies>,
    feeds: LiveFeeds,
    bots: Arc<Bots>,
    operations: Mutex<Option<Operations>>,
    /// Bound at the start, so that a wrong address is an error; served on when everything else is there.
    console_socket: Mutex<Option<TcpListener>>,
    console: Mutex<Option<Console>>,
    watcher: StateWatcher,
    counts: Mutex<Option<Counts>>,
    /// Reloads come one after another.
    reload: Mutex<()>,
    last_reload: Mutex<Option<(UnixMs, Reload)>>,
    /// Somebody has changed settings, or may have.
    settings_changed: Arc<AtomicBool>,
    /// While another process is being put in the place of this one nothing is reloaded; it reads for itself.
    is_handing_over: AtomicBool,
    place: Mutex<Place>,
}

/// What only one gateway has at a time.
struct Place {
    /// Held as long as the gateway runs.
    lock: Option<File>,
    /// The listening sockets once more, each with the address that was asked for.
    sockets: Vec<(SocketAddr, TcpListener)>,
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    Unchanged,
    /// Settings, as the file names them, that have changed; `waiting` for the next start.
    Applied {
        changed: Vec<&'static str>,
        waiting: Vec<&'static str>,
    },
    /// Why the old configuration stays.
    Rejected(String),
}

impl Reload {
    fn kind(&self) -> ReloadOutcome {
        match self {
            Self::Unchanged => ReloadOutcome::Unchanged,
            Self::Applied { .. } => ReloadOutcome::Applied,
            Self::Rejected(_) => ReloadOutcome::Rejected,
        }
    }
}

impl App {
    /// Starts everything; then [`Gateway::accept`] makes it serve. With a `predecessor` log and state are touched
    /// only when everything else is there and that process has let go of them.
    ///
    /// # Errors
    /// One sentence about the first thing that cannot be had; nothing is left running.
    pub(crate) fn start(
        loaded: Loaded,
        overrides: Overrides,
        mut predecessor: Option<&mut Predecessor>,
    ) -> anyhow::Result<Self> {
        let Loaded { config, source, stamp, .. } = loaded;
        let clock = Clock::start();
        let own = if predecessor.is_none() { Some(claim(&config.data)?) } else { None };
        let mut inherited = predecessor.as_mut().map(|old| old.take_sockets()).unwrap_or_default();
        let bound = Bound::bind(&config.server, &mut inherited)?;
        let listeners = bound.addresses();
        let mut sockets = bound.sockets().context("cannot duplicate the listening sockets")?;
        let geo = Arc::new(ArcSwap::from_pointee(Geo::open(&config.geo)?));
        let operations = match config.metrics {
            Some(listen) => {
                let socket = inherited.take(listen).map_or_else(|| Operations::bind(listen), Ok)?;
                sockets.push((listen, socket.try_clone().context("cannot duplicate the metrics socket")?));
                Some(socket)
            }
            None => None,
        };
        let console_socket = match &config.console {
            Some(console) => {
                let listen = console.listen;
                let socket = inherited.take(listen).map_or_else(|| Console::bind(listen), Ok)?;
                sockets.push((listen, socket.try_clone().context("cannot duplicate the console's socket")?));
                Some(socket)
            }
            None => None,
        };
        let ((mut state, lock), live) = match (own, predecessor) {
            (None, Some(old)) => {
                rehearse(&config)?;
                let lock = old.wait_for_release(&config.data, clock)?;
                let live = LiveState { limiter: old.take_limiter(), ..LiveState::default() };
                ((State::open(&config.data)?, lock), live)
            }
            (own, _) => {
                let own = own.map_or_else(|| claim(&config.data), Ok)?;
                let limiter = counts::load(&config.data, clock);
                (own, LiveState { limiter, ..LiveState::default() })
            }
        };
        state.sync_config(&config.blocks, &config.allows, clock.now().wall)?;

        let shared = Arc::new(ArcSwap::from_pointee(config));
        let config = shared.load_full();
        let now = clock.now().wall;
        let recording = Arc::new(Recording::new(&config.data, Arc::clone(&shared), Arc::clone(&geo), now));
        let enricher = Enricher { recording: Arc::clone(&recording), config: Arc::clone(&shared) };
        let log = Log::start(&config.data, config.log.clone(), Box::new(enricher))?;
        let recorder = log.recorder();
        let kept_blocks = Arc::new(KeptBlocks::new(&config.data));
        let of_request = Arc::clone(&kept_blocks);
        live.blocks.set_stand_ins(is_kept_block, Box::new(move |client| of_request.stand_in(client)));
        live.parties.look_with(parties::look(&shared));
        let geo_sources = geo::start(&geo.load(), &config.data, log.locator())?;
        let live = Arc::new(live);
        // Returns when all blocks and allows are in force, before the first request is served.
        let settings_changed = Arc::new(AtomicBool::new(true));
        let watcher =
            watch(&config.data, &live, clock, &shared, (&recording, &kept_blocks), &settings_changed)?;
        let prepares = Arc::clone(&recording);
        let stats = Arc::new(AppStats::default());
        let bots = Arc::new(Bots::counting(&config, clock.now().wall, Arc::clone(&stats.bots)));
        let feeds = LiveFeeds::default();
        if let Some(in_force) = feeds.look(&config, clock.now().wall) {
            live.feeds.store(Arc::new(in_force));
        }
        let detector = Arc::new(Live::new(&shared, &live, (&recording, &bots), clock, &stats.live));
        let watches = Arc::clone(&detector);
        let observe = Box::new(move |seen: &Seen<'_>| watches.observe(seen));
        let record = Box::new(move |record: RequestRecord, asked: bool| {
            // A record that finds no room is counted by the log.
            recorder.offer(prepares.prepare(record, asked));
        });
        let place = places(Arc::clone(&geo));
        let callbacks = Callbacks { observe, record, place };
        let gateway = Gateway::start(&config, bound, Arc::clone(&live), clock, callbacks)?;
        identity::open(gateway.edge(), &config, &stats.key_set, clock.now().wall)?;
        let counts = Counts::start(&config.data, live, clock, Arc::clone(&stats.counts));
        let operations = match operations {
            Some(socket) => {
                let parts = (&geo, &stats, &kept_blocks);
                let probes = probes(&gateway, log.stats(), parts, clock.now().wall);
                Some(Operations::start_on(socket, probes)?)
            }
            None => None,
        };
        Ok(Self {
            config: shared,
            source,
            source_stamp: stamp,
            overrides,
            listeners,
            metrics_address: operations.as_ref().map(Operations::address),
            gateway,
            log: Arc::new(log),
            geo,
            recording,
            detector,
            kept_blocks,
            geo_sources: Mutex::new(geo_sources),
            stats,
            alerts: Alerts::default(),
            session_copies: Arc::default(),
            feeds,
            bots,
            operations: Mutex::new(operations),
            console_socket: Mutex::new(console_socket),
            console: Mutex::new(None),
            watcher,
            counts: Mutex::new(Some(counts)),
            reload: Mutex::new(()),
            last_reload: Mutex::new(None),
            settings_changed,
            is_handing_over: AtomicBool::new(false),
            place: Mutex::new(Place { lock: Some(lock), sockets }),
        })
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The configuration as it will be after every reload, for a thread of its own.
    pub(crate) fn shared_config(&self) -> Arc<ArcSwap<Config>> {
        Arc::clone(&self.config)
    }

    pub(crate) fn alerts(&self) -> &Alerts {
        &self.alerts
    }

    /// The file that a reload reads.
    pub(crate) fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    /// The data folder that the command line names.
    pub(crate) fn named_data(&self) -> Option<&Path> {
        self.overrides.data.as_deref()
    }

    /// Which state of that file the gateway started with.
    pub(crate) fn source_stamp(&self) -> Option<FileStamp> {
        self.source_stamp
    }

    /// The bound addresses, and whether each speaks TLS.
    pub(crate) fn listeners(&self) -> &[(SocketAddr, bool)] {
        &self.listeners
    }

    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Begins to serve the console, if it is on. Returns where it can be opened: while nobody can sign in that is the
    /// link that makes the first account.
    ///
    /// # Errors
    /// Its certificate cannot be used, its threads cannot be started, or the state cannot be read.
    pub(crate) fn start_console(self: &Arc<Self>) -> anyhow::Result<Option<String>> {
        let config = self.config();
        let (Some(socket), Some(settings)) = (self.console_socket.lock().take(), config.console.clone())
        else {
            return Ok(None);
        };
        let running = Arc::new(Backend::new(self));
        let address = settings.clone();
        let parts = Parts { settings, data: config.data.clone(), config: self.shared_config(), running };
        let console = Console::start_on(socket, parts)?;
        let url = address.base_url(console.address());
        *self.console.lock() = Some(console);
        let mut state = State::open_existing(&config.data)?;
        let link = first_link(&mut state, &url, "gateway", wall_now())?;
        Ok(Some(link.unwrap_or_else(|| format!("{url}/"))))
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    pub(crate) fn stats(&self) -> &AppStats {
        &self.stats
    }

    pub(crate) fn log_stats(&self) -> Arc<LogStats> {
        self.log.stats()
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// What tasks get of this gateway.
    pub(crate) fn parts(&self, on_detection: OnDetection) -> GatewayParts {
        GatewayParts { flusher: self.log.flusher(), stats: Arc::clone(&self.stats), on_detection }
    }

    /// What erases a person's data from the log and from memory.
    pub(crate) fn erasure(&self) -> Erasure {
        Erasure {
            edge: Arc::clone(self.gateway.edge()),
            eraser: self.log.eraser(),
            recording: Arc::clone(&self.recording),
            detector: Arc::clone(&self.detector),
            sessions: Arc::clone(&self.session_copies),
            data: self.config().data.clone(),
            noticed: self.watcher.noticed().clone(),
        }
    }

    /// Who may change the sessions' copies on disk.
    pub(crate) fn session_copies(&self) -> &Arc<identity::Copies> {
        &self.session_copies
    }

    /// The detector at request time.
    pub(crate) fn detector(&self) -> &Arc<Live> {
        &self.detector
    }

    pub(crate) fn recording(&self) -> &Arc<Recording> {
        &self.recording
    }

    /// Looks for the key of blocks that are kept under a hash, if it is wanted.
    pub(crate) fn look_after_kept_blocks(&self) {
        let edge = self.gateway.edge();
        self.kept_blocks.look(|| edge.state.blocks.count_stand_ins(edge.clock.now()));
    }

    pub(crate) fn geo(&self) -> Arc<Geo> {
        self.geo.load_full()
    }

    /// Puts the lists in force that were fetched or removed since the last time.
    pub(crate) fn refresh_feeds(&self) {
        if let Some(feeds) = self.feeds.look(&self.config(), wall_now()) {
            self.gateway.edge().state.feeds.store(Arc::new(feeds));
        }
        self.stats.set_feeds(self.feeds.states());
    }

    /// Takes over the networks of crawlers that were fetched since the last time, and new settings of theirs.
    pub(crate) fn refresh_bots(&self) {
        self.bots.refresh(&self.config(), wall_now());
    }

    /// Who of the clients is a well-known crawler.
    pub(crate) fn bots(&self) -> &Arc<Bots> {
        &self.bots
    }

    /// Reads the configuration again. A broken one changes nothing, and the log says why.
    pub(crate) fn reload(&self) -> Reload {
        if self.is_handing_over.load(Ordering::Relaxed) {
            let why = "not reloaded: another process is taking over, with the new configuration";
            tracing::info!("{why}");
            return Reload::Rejected(why.to_owned());
        }
        let _one = self.reload.lock();
        self.gateway.refresh_certificates();
        let outcome = self.try_reload().unwrap_or_else(|why| {
            let why = sentence(&why);
            tracing::error!("the configuration was not reloaded, the old one stays in force:\n{why}");
            Reload::Rejected(why)
        });
        self.stats.reloaded(outcome.kind());
        *self.last_reload.lock() = Some((wall_now(), outcome.clone()));
        outcome
    }

    /// When the configuration was read again for the last time, and what became of it.
    pub(crate) fn last_reload(&self) -> Option<(UnixMs, Reload)> {
        self.last_reload.lock().clone()
    }

    fn try_reload(&self) -> anyhow::Result<Reload> {
        let mut new = load(self.source.as_deref(), &self.overrides)?.config;
        let old = self.config();
        self.put_settings_over(&mut new, &old);
        let (changed, waiting) = match diff(&old, &new) {
            Diff::Unchanged => {
                tracing::info!("configuration reloaded: nothing has changed");
                return Ok(Reload::Unchanged);
            }
            Diff::Live { changed } => (changed, Vec::new()),
            Diff::RestartRequired { fields, live } => (live, fields),
        };
        // What waits for a restart stays as it is, so that the next reload says so again.
        let new = keep_until_restart(&old, new);
        self.put_in_force(&old, &new)?;
        if !changed.is_empty() {
            tracing::info!("configuration reloaded: {} changed", changed.join(", "));
        }
        if !waiting.is_empty() {
            tracing::warn!("these settings take effect at the next start only: {}", waiting.join(", "));
        }
        for overridden in new.overridden() {
            tracing::info!("{}", settings::in_words(&overridden));
        }
        self.config.store(Arc::new(new));
        self.refresh_feeds();
        self.refresh_bots();
        Ok(Reload::Applied { changed, waiting })
    }

    /// What people have changed while running stays in force over a new file. If it cannot be read, as it was.
    fn put_settings_over(&self, new: &mut Config, old: &Config) {
        let stored = settings::stored(&old.data);
        match stored {
            Ok(stored) => {
                for problem in settings::put_over(new, &stored) {
                    tracing::warn!("{problem}");
                }
            }
            Err(error) => {
                // That the database fails is said by who watches it.
                tracing::debug!("settings that were changed while running stay as they were: {error}");
                self.settings_changed.store(true, Ordering::Relaxed);
                let standing = old.overridden().into_iter();
                let standing: Vec<(String, String)> =
                    standing.map(|one| (one.setting.as_str().to_owned(), one.value)).collect();
                new.override_with_the_good_of(&standing);
            }
        }
        self.stats.set_overridden(new.overridden.len());
    }

    /// Puts in force what people have changed of the settings since the last time, if anything.
    pub(crate) fn refresh_settings(&self) {
        if self.settings_changed.swap(false, Ordering::Relaxed) {
            self.apply_settings();
        }
    }

    /// Puts in force what people have changed of the settings.
    pub(crate) fn apply_settings(&self) {
        let _one = self.reload.lock();
        let old = self.config();
        let mut new = Config::clone(&old);
        self.put_settings_over(&mut new, &old);
        if (&new.detection, &new.overridden) == (&old.detection, &old.overridden) {
            return;
        }
        self.recording.reloaded(&old, &new, self.gateway.edge().clock.now().wall);
        for setting in LiveSetting::ALL {
            let (was, is) = (setting.written(&old.detection), setting.written(&new.detection));
            if was != is {
                tracing::info!("{} = {is} from now on; it was {was}", setting.as_str());
            }
        }
        self.config.store(Arc::new(new));
    }

    /// The parts that can fail first, so that a failure leaves the old configuration as a whole.
    fn put_in_force(&self, old: &Config, new: &Config) -> anyhow::Result<()> {
        let geo = if old.geo == new.geo {
            None
        } else {
            let geo = Geo::open(&new.geo)?;
            let sources = geo::start(&geo, &old.data, self.log.locator())?;
            Some((geo, sources))
        };
        self.gateway.apply(new)?;
        if (&old.blocks, &old.allows) != (&new.blocks, &new.allows) {
            let now = self.gateway.edge().clock.now().wall;
            let synced = State::open_existing(&old.data)
                .and_then(|mut state| state.sync_config(&new.blocks, &new.allows, now));
            if let Err(error) = synced {
                self.gateway.apply(old)?;
                return Err(error).context("the lists of the configuration could not be taken over");
            }
        }
        if let Some((geo, sources)) = geo {
            self.geo.store(Arc::new(geo));
            *self.geo_sources.lock() = sources;
        }
        self.log.apply(&new.log);
        self.recording.reloaded(old, new, self.gateway.edge().clock.now().wall);
        Ok(())
    }

    /// Whether this process writes down what limits count: another one that takes its place does.
    pub(crate) fn set_counts_written(&self, is: bool) {
        if let Some(counts) = &mut *self.counts.lock() {
            match is {
                true => counts.resume(),
                false => counts.pause(),
            }
        }
    }

    /// Says whether another process is being put in the place of this one.
    pub(crate) fn set_handing_over(&self, is: bool) {
        self.is_handing_over.store(is, Ordering::Relaxed);
    }

    /// The folder's lock, if it is still held, and the listening sockets, each with the address that the
    /// configuration asked for.
    pub(crate) fn with_place<T>(
        &self,
        work: impl FnOnce(Option<&File>, &[(SocketAddr, TcpListener)]) -> T,
    ) -> T {
        let place = self.place.lock();
        work(place.lock.as_ref(), &place.sockets)
    }

    /// Closes the console, if it is open.
    pub(crate) fn end_console(&self) {
        drop(self.console_socket.lock().take());
        if let Some(console) = self.console.lock().take() {
            console.shutdown();
        }
    }

    /// Leaves the place to another process: accepts nothing more, and finishes what is open.
    pub(crate) fn retire(&self) {
        self.gateway.retire();
        // The new process asks for itself.
        drop(self.geo_sources.lock().take());
        let mut place = self.place.lock();
        place.lock = None;
        place.sockets.clear();
        drop(place);
        self.end_console();
        if let Some(operations) = self.operations.lock().take() {
            operations.shutdown();
        }
    }

    /// Lets requests finish for `grace`, then ends everything; every record that is left is written.
    /// `last_records` is called when no more requests come and before the log ends.
    pub(crate) fn shutdown(self, grace: Duration, last_records: impl FnOnce()) {
        self.place.into_inner().sockets.clear();
        self.gateway.shutdown(grace);
        if let Some(counts) = self.counts.into_inner() {
            counts.finish();
        }
        drop(self.watcher);
        drop(self.geo_sources);
        if let Some(operations) = self.operations.into_inner() {
            operations.shutdown();
        }
        last_records();
        // The last owner ends the log in order.
        drop(self.log);
    }
}

/// What the metrics listener answers with.
fn probes(
    gateway: &Gateway,
    log: Arc<LogStats>,
    (geo, stats, kept_blocks): (&Arc<ArcSwap<Geo>>, &Arc<AppStats>, &Arc<KeptBlocks>),
    started: UnixMs,
) -> Probes {
    let sources = Sources {
        edge: Arc::clone(gateway.edge()),
        log: Arc::clone(&log),
        geo: Arc::clone(geo),
        app: Arc::clone(stats),
        kept_blocks: Arc::clone(kept_blocks),
        started,
    };
    let ready = Box::new(move || match log.is_failing() {
        true => Err("the log cannot be written; traffic flows, records are being lost".to_owned()),
        false => Ok(()),
    });
    Probes { metrics: renderer(sources), ready }
}

/// Where clients are, for the rules that ask for it: what the files and the cache know at once.
fn places(geo: Arc<ArcSwap<Geo>>) -> Places {
    Box::new(move |client| origin(&geo.load().lookup(client)))
}

/// What rules need of a location.
pub(crate) fn origin(location: &Location) -> Origin {
    let country = location.country.as_deref().and_then(|code| <[u8; 2]>::try_from(code.as_bytes()).ok());
    Origin { country: country.map(|code| code.map(|letter| letter.to_ascii_uppercase())), asn: location.asn }
}

/// Makes the data folder this gateway's own.
fn claim(data: &Path) -> anyhow::Result<(State, File)> {
    let state = State::open(data)?;
    Ok((state, lock(data)?))
}

/// Listeners, folders and queues are made once.
fn keep_until_restart(old: &Config, mut new: Config) -> Config {
    let is_elsewhere = new.data != old.data;
    new.data.clone_from(&old.data);
    new.metrics = old.metrics;
    new.console.clone_from(&old.console);
    new.log.queue = old.log.queue;
    new.server.listen.clone_from(&old.server.listen);
    new.server.tls = keep_listeners(&old.server.tls, new.server.tls);
    new.server.proxy_protocol.clone_from(&old.server.proxy_protocol);
    if is_elsewhere {
        // Their certificates are kept in the data folder.
        new.acme.clone_from(&old.acme);
        new.server.tls.clone_from(&old.server.tls);
    }
    new.server.threads = old.server.threads;
    new.server.grace_period = old.server.grace_period;
    new
}

/// The listeners that there are, with their new settings where there are any.
fn keep_listeners(old: &[TlsListener], mut new: Vec<TlsListener>) -> Vec<TlsListener> {
    let settings = |kept: &TlsListener| match new.iter().position(|tls| tls.listen == kept.listen) {
        Some(found) => new.remove(found),
        None => kept.clone(),
    };
    old.iter().map(settings).collect()
}

/// Two gateways on one data folder would write one log.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join(LOCK_FILE);
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!(
            "another gateway is running on the data folder {}; stop it or choose another folder with --data",
            data.display()
        ),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Keeps blocks and allows in step with the database, whoever changes them.
fn watch(
    data: &Path,
    live: &Arc<LiveState>,
    clock: Clock,
    config: &Arc<ArcSwap<Config>>,
    (recording, kept_blocks): (&Arc<Recording>, &Arc<KeptBlocks>),
    settings_changed: &Arc<AtomicBool>,
) -> anyhow::Result<StateWatcher> {
    let settings_changed = Arc::clone(settings_changed);
    let (recording, kept_blocks) = (Arc::clone(recording), Arc::clone(kept_blocks));
    let (live, folder, config) = (Arc::clone(live), data.to_owned(), Arc::clone(config));
    let take_over = move |changes: Changes| {
        if changes.is_replaced {
            let config = config.load();
            let synced = State::open_existing(&folder)
                .and_then(|mut state| state.sync_config(&config.blocks, &config.allows, clock.now().wall));
            if let Err(error) = synced {
                tracing::error!(
                    "the configuration's blocks and allows are missing until the next start: {error}"
                );
            }
        }
        if changes.settings_changed {
            settings_changed.store(true, Ordering::Relaxed);
        }
        if let Some(opt_outs) = changes.opt_outs {
            recording.set_opt_outs(&folder, opt_outs);
        }
        if let Some(allows) = changes.allows {
            let allows = allows.into_iter().map(|allow| (allow.network, allow.id)).collect();
            live.allows.store(Arc::new(allows));
        }
        let blocks = changes.blocks.into_iter().map(|change| match change {
            portcullis_store::BlockChange::Added(block) => BlockChange::Add {
                network: block.network,
                id: block.id,
                expires_at: block.expires_at,
                spares_users: block.source.is_automatic(),
            },
            portcullis_store::BlockChange::Removed { id, network } => BlockChange::Remove { network, id },
        });
        let blocks: Vec<BlockChange> = blocks.collect();
        let is_kept = |change: &BlockChange| matches!(change, BlockChange::Add { network, .. } if is_kept_block(network));
        let has_kept = blocks.iter().any(is_kept);
        live.blocks.apply(blocks, clock.now());
        let in_force = || live.blocks.count_stand_ins(clock.now());
        if changes.is_replaced {
            kept_blocks.look_again(in_force);
        } else if has_kept {
            kept_blocks.look(in_force);
        }
        live.parties.apply(changes.parties.into_iter().map(parties::change), clock.now());
    };
    Ok(StateWatcher::start(data, WATCH_INTERVAL, Box::new(take_over))?)
}

/// Whether the network stands for one whose address was erased.
fn is_kept_block(network: &IpNet) -> bool {
    is_pseudonym(ClientIp::new(network.addr()))
}

/// What the writer adds to a row.
struct Enricher {
    recording: Arc<Recording>,
    config: Arc<ArcSwap<Config>>,
}

impl Enrich for Enricher {
    fn location(&mut self, client: ClientIp) -> Location {
        self.recording.location(client)
    }

    /// The row itself stands out: refused, or asking for what operators and scanners want.
    fn is_suspicious(&mut self, record: &RequestRecord) -> bool {
        let is_refused = match record.verdict {
            VerdictKind::Blocked | VerdictKind::Limited | VerdictKind::Malformed => true,
            VerdictKind::WouldBlock | VerdictKind::WouldLimit => true,
            VerdictKind::Admitted | VerdictKind::Allowed => false,
        };
        is_refused || portcullis_detect::is_sensitive(&self.config.load().detection, record.text.path())
    }

    fn bound(&mut self, reason: &Reason) -> String {
        let config = self.config.load();
        let rule = reason.limit().and_then(|name| config.limits.iter().find(|rule| rule.name == *name));
        let exhausted = match reason {
            Reason::SharedLimit(_, prefix) => Exhausted::SharedRate(*prefix),
            Reason::Burst(_) => Exhausted::Burst,
            Reason::Concurrency(_) => Exhausted::Concurrency,
            Reason::Limit(_) => Exhausted::Rate,
            Reason::None
            | Reason::Allow(_)
            | Reason::Block(_)
            | Reason::Feed(_)
            | Reason::Caught(_)
            | Reason::Access(_)
            | Reason::Malformed(_)
            | Reason::Upstream(_)
            | Reason::Connections(_)
            | Reason::Login(_) => return String::new(),
        };
        rule.and_then(|rule| rule.bound(exhausted)).unwrap_or_default()
    }
}

/// What a person reads when the gateway has started. `console` is where that can be opened.
pub(crate) fn banner(app: &App, console: Option<&str>, notes: &[String]) -> String {
    use std::fmt::Write as _;

    let config = app.config();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    for (address, is_tls) in app.listeners() {
        let proxied =
            if config.server.proxy_protocol.contains(address) { " after a PROXY header" } else { "" };
        line("listening", format!("{}://{address}{proxied}", if *is_tls { "https" } else { "http" }));
    }
    for upstream in &config.upstreams {
        let servers: Vec<String> = upstream.servers.iter().map(ToString::to_string).collect();
        line("upstream", format!("{} -> {}", upstream.name, servers.join(", ")));
    }
    line(
        "mode",
        match config.mode {
            portcullis_policy::Mode::Enforce => "enforce".to_owned(),
            portcullis_policy::Mode::DryRun => "dry-run: verdicts are recorded, nobody is refused".to_owned(),
        },
    );
    let limits: Vec<String> =
        config.limits.iter().map(|rule| format!("{} {}", rule.name, rule.allowance())).collect();
    line("limits", if limits.is_empty() { "none".to_owned() } else { limits.join(", ") });
    line("detector", detector_line(&config.detection));
    line("log", format!("{}", config.data.join("log.db").display()));
    for database in app.geo().status() {
        let days = wall_now().since(database.built).as_secs() / 86_400;
        line("geo", format!("{}, {days} days old", database.path.display()));
    }
    if let Some(url) = console {
        line("console", url.to_owned());
    }
    if let Some(address) = app.metrics_address() {
        line("metrics", format!("http://{address}/metrics"));
    }
    for note in notes {
        line("note", note.clone());
    }
    format!("Portcullis {}\n{text}", env!("CARGO_PKG_VERSION"))
}

fn detector_line(detection: &portcullis_detect::Settings) -> String {
    if !detection.enabled {
        return "off".to_owned();
    }
    let minutes = detection.interval.as_secs_f64() / 60.0;
    let action = match (detection.block_severity, detection.block_step(0).1) {
        (None, _) if detection.actions.blocks() => "blocks as [detection.actions] says".to_owned(),
        (None, _) => "never blocks".to_owned(),
        (Some(least), Some(span)) => {
            format!("blocks from severity {least} for {} h", (span.as_secs_f64() / 360.0).round() / 10.0)
        }
        (Some(least), None) => format!("blocks from severity {least} until removed"),
    };
    format!("every {} min, {action}", (minutes * 10.0).round() / 10.0)
}

/// The wall clock, for what people and databases are shown.
pub(crate) fn wall_now() -> UnixMs {
    UnixMs::from_system(std::time::SystemTime::now())
}
