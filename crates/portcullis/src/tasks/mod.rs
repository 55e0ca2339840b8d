//! What the gateway does beside serving: the chores of every second or few, and the tasks that have
//! a schedule. Must not hold up requests: it has threads of its own, those of the tasks at low priority.
//!
//! A new task is a file here with a `TASK`, a line in `registry.rs`, and where it has a schedule of its own a
//! field of [`portcullis_config::Tasks`].

mod bots;
mod chores;
mod cleanup;
mod detect;
mod feeds;
mod geo;
mod registry;
mod report;
mod runner;
mod schedule;
mod scheduler;
mod standing;
mod stats;

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::acme;
use crate::alerts::SenderThread;
use crate::app::{App, wall_now};
use crate::detection::{Catcher, Control, OnCaught, Outcome};

pub(crate) use registry::{GatewayParts, TASKS, Task, TaskContext, find};
pub(crate) use runner::{alone_and_on_record, running_since};
pub(crate) use schedule::Plan;
pub(crate) use scheduler::lower_priority;
pub(crate) use standing::{Standing, standing};
pub(crate) use stats::TaskStats;

/// Hears of every run of the detector.
pub(crate) type OnDetection = Arc<dyn Fn(&anyhow::Result<Outcome>) + Send + Sync>;

/// The threads of chores and scheduler; [`Tasks::stop`] ends them.
pub(crate) struct Tasks {
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
    alerts: SenderThread,
    catcher: Catcher,
}

impl Tasks {
    /// Starts chores and schedule of a gateway.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(
        app: &Arc<App>,
        on_detection: OnDetection,
        on_caught: OnCaught,
    ) -> std::io::Result<Self> {
        let control = Arc::new(Control::of(app.recording(), app.bots()));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work)
        };
        let (chores_app, chores_end) = (Arc::clone(app), Arc::clone(&control));
        let acme = acme::start(app)?;
        let chores =
            spawn("portcullis-tasks", Box::new(move || chores::run(&chores_app, &chores_end, acme)))?;
        let alerts = SenderThread::start(app)?;
        let catcher = Catcher::start(Arc::clone(app.detector()), on_caught)?;
        let (app, end) = (Arc::clone(app), Arc::clone(&control));
        let gateway = app.parts(on_detection);
        let config = move || app.config();
        let mut scheduler = scheduler::Scheduler::new(TASKS, Some(gateway), end);
        let schedule = spawn("portcullis-schedule", Box::new(move || scheduler.run(&config, &wall_now)))?;
        Ok(Self { control, threads: vec![chores, schedule], alerts, catcher })
    }

    /// Waits for what is being done; for a task that does not end, a few seconds only.
    pub(crate) fn stop(self) {
        self.control.stop();
        for thread in self.threads {
            thread.thread().unpark();
            // A panic has been printed by the panic hook.
            let _ = thread.join();
        }
        self.catcher.stop();
        self.alerts.stop();
    }
}
