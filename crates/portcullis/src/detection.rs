//! A run of the detector: the log's window in, findings and blocks into the state database.
//!
//! The same for the gateway's own thread and for `portcullis detect`: whoever runs it writes to the
//! database, and the gateway takes the blocks over from there. Must not decide what is suspicious.

mod act;
mod catcher;
mod crawlers;
mod forest;
mod knowledge;
mod live;
mod queue;
mod spare;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use portcullis_config::Config;
use portcullis_detect::{
    Action, BadPrefix, BotStatus, Features, ForestError, ForestModel, Knowledge, MAX_TRAINING_ROWS,
    Observation, Origin, Report, Settings, Signatures, Window, escalate, reference_model, train,
};
use portcullis_model::{Block, BlockSource, ClientIp, Finding, LoginOutcome, UnixMs};
use portcullis_privacy::{Anonymise, is_pseudonym};
use portcullis_store::{LogReader, LoggedRequest, NewBlock, State, StoredFinding, give_to_owner};

use crate::alerts::Known;
use crate::bots::Bots;
use crate::privacy::{self, Behind, Recording};
use crate::tasks::{TaskContext, alone_and_on_record};

pub(crate) use act::Done;
pub(crate) use catcher::{Catcher, OnCaught, report};
pub(crate) use live::{Live, LiveStats};
pub(crate) use spare::Spared;

use act::{Acting, Found};
use crawlers::Crawlers;
use spare::Guard;

pub(crate) use forest::{ForestState, state as forest_state};
pub(crate) use knowledge::{forget_site, read_site, write_site};

/// The name of the task in the database.
pub(crate) const TASK: &str = "detect";

const MODEL_FILE: &str = "forest.model";
/// How far back the forest looks for presumed-good clients.
const TRAINING_SPAN: Duration = Duration::from_secs(7 * 86_400);
/// How old a model may become.
const MODEL_AGE: Duration = Duration::from_secs(86_400);
/// The most requests that training reads: a busy site has its 20,000 clients in the first hours.
const MAX_TRAINING_REQUESTS: u64 = 5_000_000;
/// How long fitting may take; it takes milliseconds, unless the forest crate loops on odd numbers.
const FIT_DEADLINE: Duration = Duration::from_secs(20);

/// How long after a training that gave no model the next one is tried: it reads days of the log.
const TRAINING_PAUSE: Duration = Duration::from_secs(50 * 60);

/// What lasts from one run to the next, and what ends one.
#[derive(Default)]
pub(crate) struct Control {
    /// The process ends: a run breaks off, and changes nothing more.
    stopping: AtomicBool,
    /// A fit that does not come back keeps a core busy: there is at most one.
    is_fitting: AtomicBool,
    training_failed_at: Mutex<Option<UnixMs>>,
    /// Who is behind the addresses of an anonymous log; the gateway alone knows.
    recording: Option<Arc<Recording>>,
    /// What the gateway knows of crawlers.
    bots: Option<Arc<Bots>>,
}

impl Control {
    /// For the runs inside of the gateway.
    pub(crate) fn of(recording: &Arc<Recording>, bots: &Arc<Bots>) -> Self {
        Self { recording: Some(Arc::clone(recording)), bots: Some(Arc::clone(bots)), ..Self::default() }
    }

    fn behind(&self, finding: &Finding, mode: Anonymise) -> Behind {
        match &self.recording {
            Some(recording) => recording.addresses().behind(finding.client, mode, finding.first_seen),
            None => privacy::behind_for_strangers(finding.client, mode),
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn may_train(&self, now: UnixMs) -> bool {
        self.training_failed_at.lock().is_none_or(|at| now.since(at) >= TRAINING_PAUSE)
    }
}

/// What a run found and did.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) done: Done,
    pub(crate) took: Duration,
}

/// Runs the detector over the window that ends at `now`: alone, and on record as the task.
///
/// # Errors
/// Another run is under way, or a database cannot be read or written; what was found is then kept as far
/// as it was written.
pub(crate) fn run_now(config: Arc<Config>, now: UnixMs) -> anyhow::Result<Outcome> {
    // Without a log the run did not fail: there was nothing to run on.
    drop(LogReader::open(&config.data)?);
    let context = TaskContext { config, now, gateway: None, control: Arc::default() };
    let work = || run(&context.config, now, &context.control);
    alone_and_on_record(TASK, &context, work, |outcome| Ok(summary(outcome)))
}

pub(crate) fn summary(outcome: &Outcome) -> String {
    format!(
        "{} requests of {} clients: {} findings, {} blocks",
        outcome.report.requests,
        outcome.report.clients,
        outcome.done.saved.len(),
        outcome.done.blocked.len() + outcome.done.blocked_parties.len()
    )
}

/// The run itself, for whoever sees to it that there is only one.
///
/// # Errors
/// A database cannot be read or written, or the process ends.
pub(crate) fn run(config: &Config, now: UnixMs, control: &Arc<Control>) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let log = LogReader::open(&config.data)?;
    let state = &mut State::open_existing(&config.data)?;
    let settings = &config.detection;
    let crawlers = &Crawlers::new(config, control.bots.as_ref(), now);
    let log = LogOfRun { log, settings, signatures: Arc::new(Signatures::builtin()), control, crawlers };
    let mut knowledge = knowledge::read(&config.data, state)?;
    knowledge.site = Arc::new(knowledge::learn(&log, &config.data, &knowledge, now)?);
    let model =
        if settings.forest { log.model(&config.data.join(MODEL_FILE), &knowledge, now)? } else { None };
    let report = log.observe(now.minus(settings.window), now, &knowledge)?.finish(model.as_ref(), now);
    knowledge::remember(state, &mut knowledge.past, &report.weak, now)?;
    forest::note(&config.data, &report.forest, now)?;
    // In one transaction: a process that ends in between must not leave blocks and findings that nobody is told of.
    let mut outcome = state.together(|state| act(state, config, report, (now, control, crawlers.bots())))?;
    outcome.took = started.elapsed();
    Ok(outcome)
}

/// Writes down what was found, blocks, and has people told.
fn act(
    state: &mut State,
    config: &Config,
    report: Report,
    (now, control, bots): (UnixMs, &Control, &Arc<Bots>),
) -> anyhow::Result<Outcome> {
    let settings = &config.detection;
    let known = Known::before_run(state, config, now)?;

    let guard = Guard::new(config, state, bots)?;
    let prefixes = block_prefixes(state, settings, &guard, &report, now)?;
    let acting = Acting { settings, guard: &guard, prefixes: &prefixes, now };
    let mut done = Done::default();
    for finding in &report.findings {
        let client = match control.behind(finding, config.privacy.anonymise) {
            Behind::Itself => Some(finding.client),
            Behind::One(client) => Some(client),
            Behind::Unknown => None,
        };
        acting.act(state, &mut done, &Found::new(finding, client, report.shared_by(finding)))?;
    }
    done.blocked.splice(0..0, prefixes);
    known.tell(state, config, &done, now)?;
    Ok(Outcome { report, done, took: Duration::ZERO })
}

/// Blocks the networks of attackers who change their address: those that came in this window and those that are
/// blocked already count together.
fn block_prefixes(
    state: &mut State,
    settings: &Settings,
    guard: &Guard,
    report: &Report,
    now: UnixMs,
) -> anyhow::Result<Vec<Block>> {
    // The neighbourhood of a pseudonym is chance.
    let is_site = |site: &IpAddr| !is_pseudonym(ClientIp::new(*site));
    let sites = report.sites.iter().copied().filter(|(site, _)| is_site(site));
    let mut sites: HashMap<IpAddr, bool> = sites.collect();
    // Whoever would not be blocked alone must not make its neighbourhood blocked.
    for finding in &report.findings {
        let decided = settings.actions.of(finding);
        if decided.is_dry_run || decided.action == Action::Log {
            sites.entry(finding.client.limit_key()).and_modify(|is_bad| *is_bad = false);
        }
    }
    for block in state.active_blocks(now)? {
        let is_site = block.network.prefix_len() == if block.network.addr().is_ipv4() { 32 } else { 64 };
        if is_site && block.source == BlockSource::Detector {
            sites.insert(block.network.network(), true);
        }
    }
    let mut blocked = Vec::new();
    for BadPrefix { network, bad, seen } in escalate(sites) {
        if guard.spares_prefix(state, &network, now)? {
            continue;
        }
        let earlier = state.earlier_blocks(&network, now.minus(settings.block_memory))?;
        let (step, span) = block_step(settings, earlier);
        let new = NewBlock {
            network,
            reason: format!(
                "{bad} of the {seen} {} that came from it attack: somebody changes addresses{step}",
                if network.addr().is_ipv4() { "addresses" } else { "/64 networks" }
            ),
            source: BlockSource::Detector,
            created_at: now,
            expires_at: span.map(|span| now.plus(span)),
            finding_id: None,
        };
        blocked.push(state.add_block(new, TASK)?);
    }
    Ok(blocked)
}

/// How long a block lasts after so many earlier ones, and the words for it when it is not the first one.
fn block_step(settings: &Settings, earlier: usize) -> (String, Option<Duration>) {
    let (step, span) = settings.block_step(earlier);
    let words = match (earlier, settings.block_for.len()) {
        (0, _) | (_, 0 | 1) => String::new(),
        (earlier, steps) => format!("; blocked {earlier} times before: step {step} of {steps}"),
    };
    (words, span)
}

pub(crate) fn observation<'a>(request: &LoggedRequest<'a>, bot: BotStatus) -> Observation<'a> {
    Observation {
        time: request.id.time(),
        client: request.client,
        status: request.status,
        verdict: request.verdict,
        bytes_out: request.bytes_out,
        method: request.method,
        host: request.host,
        path: request.path,
        query: request.query,
        user_agent: request.user_agent,
        referer: request.referer,
        user: request.user,
        login: LoginOutcome::of_logged(request.reason),
        bot,
    }
}

/// Why nothing was blocked for a finding, as far as the configuration and the lists of now tell.
pub(crate) fn not_blocked(
    config: &Config,
    state: &State,
    stored: &StoredFinding,
    now: UnixMs,
) -> anyhow::Result<Option<String>> {
    let finding = &stored.finding;
    if !config.detection.actions.blocks() {
        return Ok(Some("the detector blocks nobody (detection.block_severity)".to_owned()));
    }
    let decided = config.detection.actions.of(finding);
    if decided.action == Action::Log {
        let severity = finding.severity;
        return Ok(Some(match config.detection.block_severity {
            Some(least) if severity < least => {
                format!("its severity is {severity}, and detection.block_severity is {least}")
            }
            Some(_) | None => {
                format!(
                    "its severity is {severity}, and its kind of evidence is only logged (detection.actions)"
                )
            }
        }));
    }
    let guard = Guard::new(config, state, &Arc::new(Bots::without_dns(config, now)))?;
    let client = finding.client;
    let why = match guard.spares(state, stored.id, finding, Some(client))?.or_else(|| guard.ours.has(client))
    {
        Some(why) => Some(why),
        None if decided.is_dry_run => Some(Spared::DryRun),
        None if is_pseudonym(client) => Some(Spared::Anonymous),
        None => (!state.covering(client, now)?.is_empty()).then_some(Spared::AlreadyBlocked),
    };
    Ok(why.map(|why| why.as_str().to_owned()))
}

/// The log as a run reads it.
struct LogOfRun<'a> {
    log: LogReader,
    settings: &'a Settings,
    signatures: Arc<Signatures>,
    control: &'a Arc<Control>,
    crawlers: &'a Crawlers,
}

impl LogOfRun<'_> {
    fn window(&self, from: UnixMs, to: UnixMs) -> Window {
        Window::with_signatures(self.settings, from, to, Arc::clone(&self.signatures))
    }

    /// Reads the rows of `[from, to)`.
    fn visit(&self, from: UnixMs, to: UnixMs, mut look: impl FnMut(&Observation<'_>)) -> anyhow::Result<()> {
        self.log.visit(from, to, &mut |request| {
            let bot = self.crawlers.status(request.client, request.user_agent);
            look(&observation(request, bot));
            if self.control.is_stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if self.control.is_stopping() {
            bail!("broken off: the gateway ends");
        }
        Ok(())
    }

    fn observe(&self, from: UnixMs, to: UnixMs, knowledge: &Knowledge) -> anyhow::Result<Window> {
        let mut window = self.window(from, to).knowing(knowledge);
        self.visit(from, to, |seen| window.observe(seen))?;
        Ok(window)
    }

    /// The stored model, or a new one when that has become too old. Until the site has shown enough ordinary clients
    /// it is the reference model, which is kept like one of the site's.
    fn model(&self, path: &Path, knowledge: &Knowledge, now: UnixMs) -> anyhow::Result<Option<ForestModel>> {
        let stored = std::fs::read(path).ok().and_then(|bytes| match ForestModel::from_bytes(&bytes) {
            Ok(model) => Some(model),
            Err(error) => {
                tracing::warn!("{}: {error}; training anew", path.display());
                None
            }
        });
        let written = std::fs::metadata(path).and_then(|file| file.modified());
        let is_fresh = written.is_ok_and(|at| now.since(UnixMs::from_system(at)) < MODEL_AGE);
        let is_its_own = stored.as_ref().is_some_and(|model| model.origin() == Origin::Site);
        if (is_its_own && is_fresh) || !self.control.may_train(now) {
            return Ok(stored);
        }
        let rows = self.training_rows(knowledge, now)?;
        let fitted = fit_with_deadline(move || train(&rows), self.control).or_else(|why| {
            *self.control.training_failed_at.lock() = Some(now);
            tracing::debug!("no new forest: {why}");
            match stored {
                Some(_) => Err(why),
                None => fit_with_deadline(reference_model, self.control),
            }
        });
        let Ok(model) = fitted else { return Ok(stored) };
        replace_file(path, &model.to_bytes())?;
        Ok(Some(model))
    }

    /// Presumed-good clients of the last days, the newest first, one window of the log at a time.
    fn training_rows(&self, knowledge: &Knowledge, now: UnixMs) -> anyhow::Result<Vec<Features>> {
        let mut rows = Vec::new();
        let mut requests = 0;
        let first = self.log.span()?.map_or(now, |(first, _)| first).0.max(now.minus(TRAINING_SPAN).0);
        let mut to = now;
        while to.0 > first && rows.len() < MAX_TRAINING_ROWS && requests < MAX_TRAINING_REQUESTS {
            let from = to.minus(self.settings.window);
            let report = self.observe(from, to, knowledge)?.finish(None, now);
            requests += report.requests;
            rows.extend(report.presumed_good);
            to = from;
        }
        rows.truncate(MAX_TRAINING_ROWS);
        Ok(rows)
    }
}

/// Fits on a thread of its own, which is left behind if it does not come back.
pub(crate) fn fit_with_deadline(
    fit: impl FnOnce() -> Result<ForestModel, ForestError> + Send + 'static,
    control: &Arc<Control>,
) -> Result<ForestModel, String> {
    if control.is_fitting.swap(true, Ordering::Relaxed) {
        return Err("an earlier fit has not come back".to_owned());
    }
    let (done, fitted) = mpsc::channel();
    let fitting = Fitting(Arc::clone(control));
    std::thread::Builder::new()
        .name("portcullis-forest".to_owned())
        .spawn(move || {
            let model = fit();
            drop(fitting);
            // Nobody listens any more when the deadline has passed.
            let _ = done.send(model);
        })
        .map_err(|error| error.to_string())?;
    match fitted.recv_timeout(FIT_DEADLINE) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("not done within {FIT_DEADLINE:?}")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the fit panicked".to_owned()),
    }
}

/// A fit that goes on; dropped when it is over, by a panic too.
struct Fitting(Arc<Control>);

impl Drop for Fitting {
    fn drop(&mut self) {
        self.0.is_fitting.store(false, Ordering::Relaxed);
    }
}

/// Writes beside and renames, so that nobody reads half a file.
fn replace_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)
        .map(|()| give_to_owner(&new))
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
