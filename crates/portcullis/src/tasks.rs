//! The gateway's own schedule: what happens every second, every half minute, every hour, every day.
//! Must not hold up requests: it has threads of its own, the detector's at low priority.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portcullis_acme::Acme;
use portcullis_config::FileStamp;
use portcullis_model::UnixMs;
use portcullis_store::{NewTaskRun, State, StoreError};

use crate::acme;
use crate::app::{App, wall_now};
use crate::detection::{self, Control, Outcome};
use crate::sentence::sentence;
use crate::status::StatusWriter;

const TICK: Duration = Duration::from_secs(1);
const GEO_INTERVAL: Duration = Duration::from_secs(30);
const PURGE_INTERVAL: Duration = Duration::from_secs(86_400);
/// How long after the start the first clean-up comes.
const FIRST_PURGE: Duration = Duration::from_secs(60);
/// How long after the start a run of the detector comes that was due while no gateway ran.
const FIRST_DETECTION: Duration = Duration::from_secs(10);
/// The detector's niceness: it takes what nobody else wants.
const DETECTOR_NICENESS: i32 = 10;

/// Hears of every run of the detector.
pub(crate) type OnDetection = Box<dyn Fn(&anyhow::Result<Outcome>) + Send + Sync>;

/// The scheduler's threads; [`Tasks::stop`] ends them.
pub(crate) struct Tasks {
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
}

impl Tasks {
    /// Starts the schedule of a gateway.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(app: &Arc<App>, on_detection: OnDetection) -> std::io::Result<Self> {
        let control = Arc::new(Control::default());
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work)
        };
        let (chores_app, chores_end) = (Arc::clone(app), Arc::clone(&control));
        let acme = acme::start(app)?;
        let chores = spawn("portcullis-tasks", Box::new(move || chores(&chores_app, &chores_end, acme)))?;
        let (detector_app, detector_end) = (Arc::clone(app), Arc::clone(&control));
        let detector = spawn(
            "portcullis-detector",
            Box::new(move || detector(&detector_app, &detector_end, &on_detection)),
        )?;
        Ok(Self { control, threads: vec![chores, detector] })
    }

    /// Waits for what is being done.
    pub(crate) fn stop(self) {
        self.control.stop();
        for thread in self.threads {
            thread.thread().unpark();
            // A panic has been printed by the panic hook.
            let _ = thread.join();
        }
    }
}

fn chores(app: &App, control: &Control, acme: Acme) {
    let mut watched =
        Watched { path: app.source().map(PathBuf::from), seen: app.source_stamp(), pending: None };
    let start = Instant::now();
    let (mut next_geo, mut next_purge) = (start + GEO_INTERVAL, start + FIRST_PURGE);
    let mut status = StatusWriter::new(wall_now(), start);
    let log = app.log_stats();
    while !control.is_stopping() {
        std::thread::park_timeout(TICK);
        let edge = app.gateway().edge();
        edge.state.limiter.sweep(edge.clock.now().monotonic_ms);
        shielded("the look at the certificates", || app.gateway().refresh_certificates());
        let data = &app.config().data;
        shielded("the gateway's status", || {
            status.tick(data, &edge.metrics, &log, wall_now(), Instant::now());
        });
        if watched.has_changed() {
            shielded("the reload", || app.reload());
        }
        acme.apply(app.config().acme.as_ref());
        let now = Instant::now();
        if now >= next_geo {
            next_geo = now + GEO_INTERVAL;
            shielded("the look at the geo databases", || reload_geo(app));
        }
        if now >= next_purge {
            next_purge = now + PURGE_INTERVAL;
            shielded("the daily clean-up", || purge(app));
        }
    }
    acme.stop();
}

/// A chore that panics must not take the others with it. The panic hook has said where and why.
fn shielded(what: &str, chore: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(chore)).is_err() {
        tracing::error!("{what} panicked; it is tried again when it is due again");
    }
}

fn reload_geo(app: &App) {
    match app.geo().reload_if_changed() {
        Ok(true) => tracing::info!("geo databases were replaced"),
        Ok(false) => {}
        Err(error) => tracing::warn!("{error}; the last good geo database stays"),
    }
}

fn purge(app: &App) {
    let started_at = wall_now();
    let result = State::open_existing(&app.config().data).and_then(|mut state| {
        let purged = state.purge(started_at)?;
        state.record_task_run(&NewTaskRun {
            task: "purge".to_owned(),
            started_at,
            finished_at: wall_now(),
            succeeded: true,
            summary: format!("{purged:?}"),
        })
    });
    if let Err(error) = result {
        tracing::warn!("the daily clean-up failed: {error}");
    }
}

fn detector(app: &App, control: &Arc<Control>, on_detection: &OnDetection) {
    lower_priority();
    let first = first_run(last_run(app), app.config().detection.interval, wall_now());
    let mut due = Instant::now() + first;
    while !control.is_stopping() {
        std::thread::park_timeout(TICK);
        let config = app.config();
        // A reload may have made the interval shorter.
        due = due.min(Instant::now() + config.detection.interval);
        if !config.detection.enabled || Instant::now() < due || control.is_stopping() {
            continue;
        }
        due = Instant::now() + config.detection.interval;
        if let Err(error) = app.flusher().flush() {
            tracing::warn!("the detector does not see the newest requests: {error}");
        }
        let result = catch_unwind(AssertUnwindSafe(|| detection::run_now(&config, wall_now(), control)))
            .unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")));
        if control.is_stopping() {
            return;
        }
        match &result {
            Ok(outcome) => report(outcome),
            Err(error) => tracing::error!("the detector failed: {}", sentence(error)),
        }
        app.stats().detected(&result);
        on_detection(&result);
    }
}

/// When the detector ran last, in whichever process.
fn last_run(app: &App) -> Option<UnixMs> {
    let newest = |state: State| -> Result<_, StoreError> { state.task_runs(Some(detection::TASK), 1) };
    let runs = State::open_read_only(&app.config().data).and_then(newest).unwrap_or_default();
    runs.first().map(|run| run.started_at)
}

/// How long after the start the first run comes. A gateway that is often started anew must not put it
/// off each time: what came in between would never be looked at.
fn first_run(last: Option<UnixMs>, interval: Duration, now: UnixMs) -> Duration {
    let waited = last.map_or(Duration::ZERO, |last| now.since(last));
    interval.saturating_sub(waited).max(FIRST_DETECTION.min(interval))
}

fn report(outcome: &Outcome) {
    for block in &outcome.blocked {
        tracing::info!("detector: blocked {}: {}", block.network, block.reason);
    }
    tracing::debug!("detector: {} findings in {:?}", outcome.saved.len(), outcome.took);
}

/// On Linux niceness belongs to the thread; elsewhere this would slow the whole process, so it is left.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), DETECTOR_NICENESS)
    {
        tracing::debug!("the detector keeps the ordinary priority: {error}");
    }
}

/// Notices that the configuration file was written or replaced.
struct Watched {
    path: Option<PathBuf>,
    /// Of what was last read.
    seen: Option<FileStamp>,
    /// A change that may still be going on: taken when it has been the same for one tick.
    pending: Option<FileStamp>,
}

impl Watched {
    fn look(&self) -> Option<FileStamp> {
        FileStamp::of(self.path.as_ref()?)
    }

    fn has_changed(&mut self) -> bool {
        let Some(now) = self.look().filter(|now| Some(*now) != self.seen) else {
            self.pending = None;
            return false;
        };
        if self.pending.replace(now) == Some(now) {
            self.pending = None;
            self.seen = Some(now);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_does_not_put_the_detector_off() {
        let hour = Duration::from_secs(3_600);
        let now = UnixMs(1_000_000_000);
        let ago = |seconds: u64| Some(now.minus(Duration::from_secs(seconds)));
        assert_eq!(first_run(None, hour, now), hour);
        assert_eq!(first_run(ago(3_000), hour, now), Duration::from_secs(600));
        assert_eq!(first_run(ago(900_000), hour, now), FIRST_DETECTION);
        // A clock that was put back.
        assert_eq!(first_run(Some(now.plus(hour)), hour, now), hour);
        let short = Duration::from_secs(2);
        assert_eq!(first_run(ago(900), short, now), short);
    }

    #[test]
    fn a_chore_that_panics_does_not_end_the_others() {
        shielded("a chore", || panic!("a bug"));
    }
}
