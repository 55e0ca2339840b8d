//! `portcullis run`: a gateway, its schedule, the signals that end or reload it, and the upgrade that puts
//! another process in its place. Must not know how these are done.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use portcullis_config::{Loaded, Overrides};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::app::{App, banner, wall_now};
use crate::certificates;
use crate::identity::Late;
use crate::sentence::sentence;
use crate::systemd;
use crate::tasks::Tasks;
use crate::upgrade::{
    Answer, Asker, Cancel, Forwarder, Order, Predecessor, Program, Records, Successor, UpgradeOrder, bind,
    hand_over, listen,
};

/// Between two looks at whether the last connection has ended.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// How long the end waits for what was asked for in the console.
const LAST_PAGE: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT, or until another process has taken its place. SIGHUP reloads the
/// configuration. A `predecessor` that is still there afterwards has not been taken over from.
///
/// # Errors
/// What kept the gateway from starting, in one sentence.
pub(crate) fn run(
    loaded: Loaded,
    overrides: Overrides,
    predecessor: &mut Option<Predecessor>,
) -> anyhow::Result<()> {
    let mut notes = loaded.notes.clone();
    let program = Program::of_this_process().context("cannot tell which program this is")?;
    // Before anything starts: until somebody listens, SIGHUP would end the process.
    let signals = Signals::listen().context("cannot listen for signals")?;
    let app = Arc::new(App::start(loaded, overrides, predecessor.as_mut())?);
    notes.extend(certificates::notes(&app.gateway().edge().certificates(), wall_now()));
    let control = match predecessor.as_mut().and_then(Predecessor::take_control) {
        Some(inherited) => Some(inherited),
        None => control_socket(&app.config().data),
    };
    let tasks =
        Tasks::start(&app, Arc::new(|_| ()), Box::new(|_| ())).context("cannot start the schedule")?;
    let console = app.start_console()?;
    let records = match predecessor {
        Some(old) => old.wait_for_place(Arc::clone(app.gateway().edge()))?,
        None => None,
    };
    // Nothing may fail from here on: the process before this one has left.
    *predecessor = None;
    app.gateway().accept();
    // Whoever started it may not be reading, or have no room for it; the gateway serves all the same.
    let _ = writeln!(std::io::stdout(), "{}", banner(&app, console.as_deref(), &notes).trim_end());
    systemd::ready();
    Running { app, tasks: Arc::new(Mutex::new(Some(tasks))), control, records, program }
        .until_the_end(signals)
}

/// A gateway serves without one too.
fn control_socket(data: &Path) -> Option<UnixListener> {
    bind(data)
        .inspect_err(|error| {
            tracing::warn!(
                "\"portcullis upgrade\" will not work: no control socket in {}: {error}",
                data.display()
            );
        })
        .ok()
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

/// A gateway that serves.
struct Running {
    app: Arc<App>,
    tasks: Arc<Mutex<Option<Tasks>>>,
    control: Option<UnixListener>,
    /// What the process before this one still sends.
    records: Option<Records>,
    program: Program,
}

type Upgrading = JoinHandle<Option<Successor>>;

impl Running {
    fn until_the_end(mut self, signals: Signals) -> anyhow::Result<()> {
        let Signals { runtime, mut terminate, mut interrupt, mut hangup } = signals;
        let cancel = Cancel::default();
        let successor = runtime.block_on(async {
            let (orders, mut incoming) = mpsc::channel(1);
            let control = self.hear(orders);
            // More than one request to reload that waits is one.
            let (reload, asked) = mpsc::channel(1);
            let reloads = tokio::spawn(reload_when_asked(Arc::clone(&self.app), asked));
            let mut upgrading: Option<Upgrading> = None;
            let successor = loop {
                tokio::select! {
                    _ = terminate.recv() => break None,
                    _ = interrupt.recv() => break None,
                    _ = hangup.recv() => {
                        let _ = reload.try_send(());
                    }
                    Some((order, asker)) = incoming.recv() => self.begin(order, asker, &mut upgrading, &cancel),
                    outcome = finished(&mut upgrading) => {
                        upgrading = None;
                        if outcome.is_some() {
                            break outcome;
                        }
                    }
                }
            };
            if successor.is_none() {
                systemd::stopping();
                cancel.store(true, Ordering::Relaxed);
            }
            if let Some(control) = control {
                control.abort();
            }
            // A reload that waits for a name server gives up when the gateway stops accepting.
            self.app.gateway().retire();
            drop(reload);
            let _ = reloads.await;
            match upgrading {
                Some(_) => finished(&mut upgrading).await,
                None => successor,
            }
        });
        self.control = None;
        match successor {
            Some(successor) => self.drain(successor, &runtime, terminate, interrupt),
            None => {
                tracing::info!("stopping: open requests may finish");
                let grace = self.app.gateway().grace_period();
                self.end(grace, None);
                Ok(())
            }
        }
    }

    /// Listens to commands, where there is a socket for it.
    fn hear(&self, orders: mpsc::Sender<(Order, Asker)>) -> Option<JoinHandle<()>> {
        let socket = || {
            let listener = self.control.as_ref()?.try_clone().ok()?;
            listener.set_nonblocking(true).ok()?;
            tokio::net::UnixListener::from_std(listener).ok()
        };
        socket().map(|listener| tokio::spawn(listen(listener, orders)))
    }

    fn begin(&self, order: Order, mut asker: Asker, upgrading: &mut Option<Upgrading>, cancel: &Cancel) {
        let order = match order {
            Order::Upgrade(order) => order,
            Order::Erase(order) => {
                let erasure = self.app.erasure();
                drop(tokio::task::spawn_blocking(move || erasure.carry_out(order, &mut asker)));
                return;
            }
        };
        let control = self.control.as_ref().and_then(|control| control.try_clone().ok());
        let control = match (&upgrading, control) {
            (Some(_), _) => Err("another upgrade is under way"),
            (None, None) => {
                Err("the control socket cannot be handed over; is the gateway out of open files?")
            }
            (None, Some(control)) => Ok(control),
        };
        let control = match control {
            Ok(control) => control,
            Err(why) => return asker.answer(&Answer::Failed { why: why.to_owned() }),
        };
        let (app, tasks) = (Arc::clone(&self.app), Arc::clone(&self.tasks));
        let (program, cancel) = (self.program.clone(), Arc::clone(cancel));
        *upgrading = Some(tokio::task::spawn_blocking(move || {
            upgrade(&app, &tasks, &control, &program, &order, (&mut asker, &cancel))
        }));
    }

    /// Finishes what is open, after another process has taken over.
    fn drain(
        self,
        successor: Successor,
        runtime: &Runtime,
        mut terminate: Signal,
        mut interrupt: Signal,
    ) -> anyhow::Result<()> {
        let limit = self.app.config().server.drain_timeout;
        let forwarder = Forwarder::start(Arc::clone(self.app.log()), successor)
            .context("cannot start the thread that sends the last records")?;
        let edge = self.app.gateway().edge();
        let metrics = &edge.metrics;
        let late = Late::new(&self.app.config().data);
        tracing::info!("finishing {} connections, for at most {limit:?}", metrics.connections());
        let until = Instant::now() + limit;
        let records = &self.records;
        let is_told = runtime.block_on(async {
            let drained = async {
                let is_hearing = || records.as_ref().is_some_and(|records| !records.is_finished());
                while (metrics.connections() > 0 || is_hearing()) && Instant::now() < until {
                    late.pass_on(edge);
                    tokio::time::sleep(DRAIN_POLL).await;
                }
            };
            tokio::select! {
                () = drained => false,
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
            }
        });
        let grace = if is_told { self.app.gateway().grace_period() } else { Duration::ZERO };
        if metrics.connections() > 0 && !is_told {
            tracing::info!("ending {} connections that are still open", metrics.connections());
        }
        late.finish(edge);
        self.end(grace, Some(forwarder));
        Ok(())
    }

    fn end(self, grace: Duration, forwarder: Option<Forwarder>) {
        if let Some(tasks) = self.tasks.lock().take() {
            tasks.stop();
        }
        let records = self.records;
        end_with(self.app, grace, || {
            if let Some(records) = records {
                records.stop();
            }
            if let Some(forwarder) = forwarder {
                forwarder.finish();
            }
        });
    }
}

/// Reads the configuration again as often as it is asked to, apart from whoever hears the signals.
async fn reload_when_asked(app: Arc<App>, mut asked: mpsc::Receiver<()>) {
    while asked.recv().await.is_some() {
        systemd::reloading();
        let app = Arc::clone(&app);
        // A panic has been printed by the panic hook; the old configuration stays.
        let _ = tokio::task::spawn_blocking(move || app.reload()).await;
        systemd::ready();
    }
}

/// Carries an upgrade out, and tells whoever asked how it ended.
fn upgrade(
    app: &Arc<App>,
    tasks: &Mutex<Option<Tasks>>,
    control: &UnixListener,
    program: &Program,
    order: &UpgradeOrder,
    (asker, cancel): (&mut Asker, &Cancel),
) -> Option<Successor> {
    app.set_handing_over(true);
    let outcome = hand_over(app, tasks, control, program, order, (asker, cancel));
    match &outcome {
        Ok(successor) => {
            let pid = successor.pid();
            let text = format!("process {pid} serves; process {} finishes what is open", std::process::id());
            asker.answer(&Answer::Done { text, pid });
        }
        Err(error) => {
            app.set_handing_over(false);
            let why = sentence(error);
            tracing::error!("the upgrade failed, this process goes on: {why}");
            asker.answer(&Answer::Failed { why });
        }
    }
    outcome.ok()
}

/// The end of the upgrade that is under way; without one it never comes.
async fn finished(upgrading: &mut Option<Upgrading>) -> Option<Successor> {
    match upgrading {
        Some(upgrading) => upgrading.await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Ends a gateway that nobody else holds any more.
pub(crate) fn end(app: Arc<App>) {
    let grace = app.gateway().grace_period();
    end_with(app, grace, || ());
}

fn end_with(mut app: Arc<App>, grace: Duration, last_records: impl FnOnce()) {
    app.end_console();
    let until = Instant::now() + LAST_PAGE;
    loop {
        match Arc::try_unwrap(app) {
            Ok(app) => return app.shutdown(grace, last_records),
            // A page is being read, or a reload asked for from the console goes on.
            Err(in_use) if Instant::now() < until => app = in_use,
            Err(_) => return tracing::error!("the gateway is still in use and cannot end in order"),
        }
        std::thread::sleep(DRAIN_POLL);
    }
}
