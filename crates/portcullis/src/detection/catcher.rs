//! The thread that writes down what the engine has caught at request time: the finding, the block, and what people are
//! told, by the same code as the run of every hour.
//!
//! Owns how long somebody stays held, and what the request path knows of our own side and of people's word. Must not
//! decide whom to block.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use portcullis_config::Config;
use portcullis_model::{ClientIp, FindingStatus};
use portcullis_policy::Mode;
use portcullis_store::{FindingFilter, State, StoreError};

use super::act::{Acting, Done, Found};
use super::knowledge::renewed;
use super::live::{Live, Raised};
use super::spare::{Guard, Ours, Spared};
use crate::alerts::Known;

/// Alarms that are written in one transaction.
const BATCH: usize = 64;
/// Between two looks around when no alarm comes.
const TICK: Duration = Duration::from_millis(250);
/// How often this machine's addresses are read anew.
const OURS_INTERVAL: Duration = Duration::from_secs(60);
/// The state database is opened anew so often: another one may be in its place.
const REOPEN_INTERVAL: Duration = Duration::from_secs(10);
/// From when the block's row is there: the gateway looks for new rows ten times a second.
const RELEASE: Duration = Duration::from_secs(2);
/// After a failure of the database.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Until then an alarm is tried again that cannot be written. The run of every hour finds what is left.
const GIVE_UP: Duration = Duration::from_secs(60);
/// A dismissed finding is about this much of the past; see [`State::save_finding`].
const DISMISSED_SPAN: Duration = Duration::from_secs(2 * 86_400);
/// Dismissed findings that are known on the request path. Those beyond let somebody be held for milliseconds.
const MAX_DISMISSED: usize = 10_000;

/// Hears of what was done about each alarm.
pub(crate) type OnCaught = Box<dyn Fn(&Done) + Send>;

/// Ends with [`Catcher::stop`].
pub(crate) struct Catcher {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Catcher {
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(live: Arc<Live>, on_caught: OnCaught) -> std::io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&stopping);
        let work = move || {
            let mut around = Around::default();
            around.look(&live);
            loop {
                // What has been caught is written before the end.
                let is_stopping = end.load(Ordering::Relaxed);
                let batch = live.queue.take(BATCH, if is_stopping { Duration::ZERO } else { TICK });
                let count = batch.len() as u64;
                if batch.is_empty() && is_stopping {
                    return;
                }
                let step = AssertUnwindSafe(|| {
                    if !batch.is_empty() {
                        around.write(&live, batch, &on_caught, is_stopping);
                    }
                    around.look(&live);
                });
                if catch_unwind(step).is_err() {
                    // The panic hook has said where and why.
                    live.stats.lose(count);
                }
            }
        };
        let thread = std::thread::Builder::new().name("portcullis-catch".to_owned()).spawn(work)?;
        Ok(Self { stopping, thread })
    }

    /// Writes what is queued, and ends.
    pub(crate) fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        // A panic has been printed by the panic hook.
        let _ = self.thread.join();
    }
}

/// What the thread knows from one alarm to the next.
#[derive(Default)]
struct Around {
    config: Option<Arc<Config>>,
    ours_read: Option<Instant>,
    watched: Option<Watched>,
    /// Of the file with what is known of the site.
    site_modified: Option<SystemTime>,
    looked: Option<Instant>,
    is_failing: bool,
    lost: u64,
}

/// The state database, for what people say in it.
struct Watched {
    state: State,
    opened: Instant,
    version: i64,
}

impl Around {
    /// Brings up to date what the request path is told.
    fn look(&mut self, live: &Live) {
        if self.looked.is_some_and(|at| at.elapsed() < TICK) {
            return;
        }
        self.looked = Some(Instant::now());
        let config = live.config.load_full();
        let is_new = self.config.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &config));
        if is_new {
            live.engine.apply(&config.detection);
        }
        if is_new || self.ours_read.is_none_or(|at| at.elapsed() >= OURS_INTERVAL) {
            live.ours.store(Arc::new(Ours::new(&config, &live.bots)));
            self.ours_read = Some(Instant::now());
        }
        if let Err(error) = self.read_dismissals(live, &config) {
            // Said where alarms are written.
            tracing::debug!("dismissed findings are not known: {error}");
            self.watched = None;
        }
        self.config = Some(config);
        live.stats.remembers(&live.engine);
        live.state.caught.sweep(live.clock.now());
        let lost = live.stats.dropped();
        if lost > self.lost {
            tracing::error!(
                "{} alarms of the detector were lost, since too many came at once or the database fails; its \
                 next run finds what they were about",
                lost - self.lost
            );
            self.lost = lost;
        }
    }

    fn read_dismissals(&mut self, live: &Live, config: &Config) -> Result<(), StoreError> {
        let watched = match self.watched.take().filter(|known| known.opened.elapsed() < REOPEN_INTERVAL) {
            Some(known) => known,
            None => {
                let state = State::open_read_only(&config.data)?;
                // Of another connection: the number says nothing yet.
                Watched { version: i64::MIN, state, opened: Instant::now() }
            }
        };
        let watched = self.watched.insert(watched);
        let version = watched.state.data_version()?;
        if version == watched.version {
            return Ok(());
        }
        let nevers = watched.state.nevers()?;
        let known = live.engine.knowledge();
        live.engine.know(renewed(&known, &config.data, nevers, &mut self.site_modified));
        let filter = FindingFilter {
            status: Some(FindingStatus::Dismissed),
            since: Some(live.clock.now().wall.minus(DISMISSED_SPAN)),
            limit: MAX_DISMISSED,
            ..FindingFilter::default()
        };
        let found = watched.state.findings(&filter)?.into_iter();
        let dismissed: HashSet<(ClientIp, Option<String>)> =
            found.map(|stored| (stored.finding.client, stored.finding.user)).collect();
        live.stats.knows_dismissed(dismissed.len());
        live.dismissed.store((!dismissed.is_empty()).then(|| Arc::new(dismissed)));
        watched.version = version;
        Ok(())
    }

    fn write(&mut self, live: &Live, batch: Vec<Raised>, on_caught: &OnCaught, is_stopping: bool) {
        let config = live.config.load_full();
        match act(live, &config, &batch) {
            Ok(all_done) => {
                self.is_failing = false;
                for (raised, done) in batch.iter().zip(&all_done) {
                    live.stats.wrote(raised.at.elapsed());
                    report(done);
                    let_go(live, &config, raised, done);
                    on_caught(done);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!("alarms of the detector cannot be written yet: {error:#}");
                }
                let (over, again): (Vec<_>, Vec<_>) =
                    batch.into_iter().partition(|raised| is_stopping || raised.at.elapsed() >= GIVE_UP);
                live.stats.lose(over.len() as u64);
                live.queue.put_back(again);
                if !is_stopping {
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }
}

/// The block takes over from the hold; who was spared is let go at once.
fn let_go(live: &Live, config: &Config, raised: &Raised, done: &Done) {
    let is_blocked = !(done.blocked.is_empty() && done.blocked_parties.is_empty());
    let spans = done.spared.iter().map(|(_, _, why)| match why {
        // That block may be as young.
        Spared::AlreadyBlocked => RELEASE,
        // What would be refused goes on being recorded.
        Spared::DryRun => Duration::MAX,
        Spared::Allowed
        | Spared::TrustedProxy
        | Spared::ThisMachine
        | Spared::Crawler
        | Spared::Anonymous
        | Spared::Dismissed
        | Spared::Unblocked => Duration::ZERO,
    });
    let span = spans.min().unwrap_or(RELEASE);
    let now = live.clock.now();
    for culprit in &raised.culprits {
        live.state.caught.release(culprit, span, now);
    }
    if is_blocked && config.mode == Mode::Enforce {
        // It has been paid for: when the block is over, or a person has lifted it, the client begins anew.
        let finding = &raised.alarm.finding;
        live.engine.forget(finding.client, finding.user.as_deref());
    }
}

/// Writes alarms down, and blocks whoever is behind those that are severe enough: all of it or nothing.
fn act(live: &Live, config: &Config, batch: &[Raised]) -> anyhow::Result<Vec<Done>> {
    let now = live.clock.now().wall;
    let mut state = State::open_existing(&config.data)?;
    state.together(|state| {
        let guard = Guard::new(config, state, &live.bots)?;
        let acting = Acting { settings: &config.detection, guard: &guard, prefixes: &[], now };
        batch.iter().map(|raised| act_on(live, state, config, &acting, raised)).collect()
    })
}

fn act_on(
    live: &Live,
    state: &mut State,
    config: &Config,
    acting: &Acting<'_>,
    raised: &Raised,
) -> anyhow::Result<Done> {
    let (finding, shared) = (raised.alarm.finding.clone(), raised.alarm.shared.clone());
    let client = finding.client;
    let (finding, shared) = live.recording.finding(finding, shared, raised.asked, acting.now);
    let known = Known::of(state, config, finding.client, acting.now)?;
    let mut done = Done::default();
    acting.act(state, &mut done, &Found::new(&finding, Some(client), shared.as_ref()))?;
    known.tell(state, config, &done, acting.now)?;
    Ok(done)
}

/// Says in the gateway's own log what was blocked.
pub(crate) fn report(done: &Done) {
    for block in &done.blocked {
        tracing::info!("detector: blocked {}: {}", block.network, block.reason);
    }
    for block in &done.blocked_parties {
        tracing::info!("detector: blocked {:?}: {}", block.party.to_string(), block.reason);
    }
}
