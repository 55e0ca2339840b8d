//! `portcullis run`: a gateway, its schedule, and the signals that end or reload it.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use portcullis_config::{Loaded, Overrides};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, banner, wall_now};
use crate::certificates;
use crate::tasks::Tasks;

/// Serves until SIGTERM or SIGINT. SIGHUP reloads the configuration.
///
/// # Errors
/// What kept the gateway from starting, in one sentence.
pub(crate) fn run(loaded: Loaded, overrides: Overrides) -> anyhow::Result<()> {
    let mut notes = loaded.notes.clone();
    // Before anything starts: until somebody listens, SIGHUP would end the process.
    let signals = Signals::listen().context("cannot listen for signals")?;
    let app = Arc::new(App::start(loaded, overrides)?);
    notes.extend(certificates::notes(&app.gateway().edge().certificates(), wall_now()));
    // Whoever started it may not be reading, or have no room for it; the gateway serves all the same.
    let _ = writeln!(std::io::stdout(), "{}", banner(&app, &notes).trim_end());
    until_a_signal(app, signals)
}

/// The signals that end or reload a gateway; those that come before anybody waits are kept.
struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        drop(inside);
        Ok(Self { runtime, terminate, interrupt, hangup })
    }
}

/// Runs the schedule until a signal ends the gateway.
fn until_a_signal(app: Arc<App>, signals: Signals) -> anyhow::Result<()> {
    let Signals { runtime, mut terminate, mut interrupt, mut hangup } = signals;
    let tasks = Tasks::start(&app, Box::new(|_| ())).context("cannot start the schedule")?;
    runtime.block_on(async {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = hangup.recv() => {
                    let app = Arc::clone(&app);
                    // Reading files is no work for the thread that hears the signals.
                    let _ = tokio::task::spawn_blocking(move || app.reload()).await;
                }
            }
        }
    });
    tracing::info!("stopping: open requests may finish");
    tasks.stop();
    end(app);
    Ok(())
}

/// Ends a gateway that nobody else holds any more.
pub(crate) fn end(app: Arc<App>) {
    match Arc::try_unwrap(app) {
        Ok(app) => app.shutdown(),
        Err(_) => tracing::error!("the gateway is still in use and cannot end in order"),
    }
}
