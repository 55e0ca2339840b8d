//! The detector at request time. Every request is shown to the engine when its outcome is known; whoever crosses the
//! blocking threshold with it is held before its next request is judged, and the alarm is queued for the thread that
//! writes it down (`catcher.rs`).
//!
//! On the request path: never waits, and touches no database. Must not decide what is suspicious.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_config::Config;
use portcullis_detect::{Action, Alarm, Engine, Observation, Signatures};
use portcullis_model::{ClientIp, Severity, VerdictKind};
use portcullis_policy::{Culprit, Hold, LiveState, Mode};
use portcullis_proxy::{Clock, Seen};
use portcullis_store::Subject;

use super::act::culprits;
use super::queue::Queue;
use super::spare::Ours;
use crate::bots::Bots;
use crate::privacy::Recording;

/// The least severity that is written down at once. What is less severe is noted by the run of every hour: ordinary
/// people touch a login page, and each would cost a write to the disk.
const LEAST: Severity = Severity::Medium;
/// How long somebody is held whose block cannot be written. Ordinarily that takes milliseconds.
const HOLD: Duration = Duration::from_secs(60);
/// The longest that is recorded whom a block in dry-run would refuse.
const DRY_RUN: Duration = Duration::from_secs(86_400);

/// One for the life of the gateway.
pub(crate) struct Live {
    pub(super) engine: Engine,
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) state: Arc<LiveState>,
    pub(super) recording: Arc<Recording>,
    pub(super) bots: Arc<Bots>,
    pub(super) clock: Clock,
    pub(super) queue: Queue,
    pub(super) stats: Arc<LiveStats>,
    /// As the catcher last saw them.
    pub(super) ours: ArcSwap<Ours>,
    /// Whom, as the log names them, a person has found innocent lately; `None`: nobody.
    pub(super) dismissed: ArcSwapOption<HashSet<(ClientIp, Option<String>)>>,
}

/// An alarm that waits to be written down.
pub(super) struct Raised {
    pub(super) alarm: Alarm,
    /// Who is held for it.
    pub(super) culprits: Vec<Culprit>,
    /// With its last request the client asked not to be tracked, and that is honoured.
    pub(super) asked: bool,
    pub(super) at: Instant,
}

/// Counters for the metrics.
#[derive(Debug, Default)]
pub(crate) struct LiveStats {
    alarms: [AtomicU64; Severity::ALL.len()],
    holds: AtomicU64,
    not_held: AtomicU64,
    dropped: AtomicU64,
    delays_us: AtomicU64,
    written: AtomicU64,
    clients: AtomicU64,
    forgotten: AtomicU64,
    dismissed: AtomicU64,
}

impl LiveStats {
    pub(crate) fn alarms(&self, severity: Severity) -> u64 {
        self.alarms[severity as usize].load(Ordering::Relaxed)
    }

    /// Clients that were refused from their next request on.
    pub(crate) fn holds(&self) -> u64 {
        self.holds.load(Ordering::Relaxed)
    }

    /// Clients that should have been, and for whom there was no room.
    pub(crate) fn not_held(&self) -> u64 {
        self.not_held.load(Ordering::Relaxed)
    }

    /// Alarms that had no room in the queue, or could not be written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Alarms that were written down, and the seconds from alarm to row of all of them together.
    pub(crate) fn written(&self) -> (u64, f64) {
        (self.written.load(Ordering::Relaxed), self.delays_us.load(Ordering::Relaxed) as f64 / 1e6)
    }

    /// Clients that the engine remembers.
    pub(crate) fn clients(&self) -> u64 {
        self.clients.load(Ordering::Relaxed)
    }

    /// Clients that it forgot because there were too many.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Clients of dismissed findings that are known on the request path.
    pub(crate) fn dismissed(&self) -> u64 {
        self.dismissed.load(Ordering::Relaxed)
    }

    pub(super) fn knows_dismissed(&self, clients: usize) {
        self.dismissed.store(clients as u64, Ordering::Relaxed);
    }

    pub(super) fn lose(&self, alarms: u64) {
        self.dropped.fetch_add(alarms, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.delays_us.fetch_add(micros, Ordering::Relaxed);
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remembers(&self, engine: &Engine) {
        self.clients.store(engine.clients() as u64, Ordering::Relaxed);
        self.forgotten.store(engine.overflowed_clients(), Ordering::Relaxed);
    }
}

impl Live {
    pub(crate) fn new(
        config: &Arc<ArcSwap<Config>>,
        state: &Arc<LiveState>,
        (recording, bots): (&Arc<Recording>, &Arc<Bots>),
        clock: Clock,
        stats: &Arc<LiveStats>,
    ) -> Self {
        let now = config.load();
        Self {
            engine: Engine::new(&now.detection, Arc::new(Signatures::builtin())),
            ours: ArcSwap::from_pointee(Ours::new(&now, bots)),
            config: Arc::clone(config),
            state: Arc::clone(state),
            recording: Arc::clone(recording),
            bots: Arc::clone(bots),
            clock,
            queue: Queue::default(),
            stats: Arc::clone(stats),
            dismissed: ArcSwapOption::empty(),
        }
    }

    /// Takes one request.
    pub(crate) fn observe(&self, seen: &Seen<'_>) {
        let text = seen.text;
        // Also for the run of every hour: DNS will have answered when it looks at the log.
        let bot = self.bots.status(seen.client, text.user_agent());
        let config = self.config.load();
        if !(config.detection.enabled && config.detection.live) {
            return;
        }
        // It is stopped already. Evidence against it would be told now and not when the block has ended.
        if seen.verdict == VerdictKind::Blocked {
            return;
        }
        let observation = Observation {
            time: seen.id.time(),
            client: seen.client,
            status: seen.status,
            verdict: seen.verdict,
            bytes_out: seen.bytes_out,
            method: text.method(),
            host: text.host(),
            path: text.path(),
            query: text.query(),
            user_agent: text.user_agent(),
            referer: text.referer(),
            user: self.recording.user_to_judge(seen.client, text.user(), seen.asks_for_privacy),
            login: seen.login,
            bot,
        };
        if let Some(alarm) = self.engine.observe(&observation) {
            self.raise(&config, alarm, seen.asks_for_privacy);
        }
    }

    /// Forgets what it remembers of somebody who is erased.
    pub(crate) fn forget(&self, subject: &Subject) {
        match subject {
            Subject::Address(clients) => {
                for client in clients {
                    self.queue.forget(|raised| raised.alarm.finding.client.limit_key() == client.limit_key());
                    self.engine.forget_address(*client);
                }
            }
            Subject::User(name) => {
                self.queue.forget(|raised| raised.alarm.finding.user.as_deref() == Some(name));
                self.engine.forget_user(name);
            }
        }
    }

    /// Holds whoever is to be blocked, and queues the alarm.
    fn raise(&self, config: &Config, alarm: Alarm, asked: bool) {
        let severity = alarm.finding.severity;
        self.stats.alarms[severity as usize].fetch_add(1, Ordering::Relaxed);
        if severity < LEAST {
            return;
        }
        let decided = config.detection.actions.of(&alarm.finding);
        let is_to_be_blocked = decided.action != Action::Log;
        let is_spared = || {
            let is_allowed = self.state.allows.load().lookup(alarm.finding.client.ip()).is_some();
            is_allowed || self.is_dismissed(&alarm)
        };
        let culprits = match is_to_be_blocked && !is_spared() {
            true => culprits(&alarm.finding, alarm.shared.as_ref(), &self.ours.load()),
            false => Vec::new(),
        };
        let (mode, span) = match (decided.is_dry_run, decided.action) {
            (false, _) => (Mode::Enforce, HOLD),
            // As long as the first block would last, what it would refuse is recorded.
            (true, Action::Block(Some(span))) => (Mode::DryRun, span.min(DRY_RUN)),
            (true, Action::Block(None) | Action::Log) => {
                (Mode::DryRun, config.detection.block_step(0).1.unwrap_or(DRY_RUN).min(DRY_RUN))
            }
        };
        let hold = Hold { rule: alarm.finding.reason.as_str().into(), mode };
        let now = self.clock.now();
        for culprit in &culprits {
            let is_held = self.state.caught.hold(culprit, hold.clone(), span, now);
            let counter = if is_held { &self.stats.holds } else { &self.stats.not_held };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let raised = Raised { alarm, culprits, asked, at: Instant::now() };
        if !self.queue.offer(raised, is_to_be_blocked) {
            self.stats.lose(1);
        }
    }

    /// The catcher looks closely, and blocks what a person's word does not cover.
    fn is_dismissed(&self, alarm: &Alarm) -> bool {
        let dismissed = self.dismissed.load();
        let Some(dismissed) = dismissed.as_deref() else { return false };
        let client = self.recording.name_in_the_log(alarm.finding.client, self.clock.now().wall);
        dismissed.contains(&(client, alarm.finding.user.clone()))
            || dismissed.contains(&(alarm.finding.client, alarm.finding.user.clone()))
    }
}
