//! `portcullis run`: a gateway, its schedule, and the signals that end or reload it.

use std::sync::Arc;

use anyhow::Context as _;
use portcullis_config::{Loaded, Overrides};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, banner};
use crate::tasks::{OnDetection, Tasks};

/// Serves until SIGTERM or SIGINT. SIGHUP reloads the configuration.
///
/// # Errors
/// What kept the gateway from starting, in one sentence.
pub(crate) fn run(loaded: Loaded, overrides: Overrides) -> anyhow::Result<()> {
    let notes = loaded.notes.clone();
    let app = Arc::new(App::start(loaded, overrides)?);
    println!("{}", banner(&app, &notes).trim_end());
    with_signals(app, Box::new(|_| ()), |_| Ok(()))
}

/// Runs the schedule until a signal ends the gateway.
pub(crate) fn with_signals(
    app: Arc<App>,
    on_detection: OnDetection,
    started: impl FnOnce(&App) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot listen for signals")?;
    let tasks = Tasks::start(&app, on_detection).context("cannot start the schedule")?;
    started(&app)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => return std::io::Result::Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hangup.recv() => {
                    let app = Arc::clone(&app);
                    // Reading files is no work for the thread that hears the signals.
                    let _ = tokio::task::spawn_blocking(move || app.reload()).await;
                }
            }
        }
    })?;
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
