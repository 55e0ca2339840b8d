//! The old process's side of an upgrade: it starts the new one, and takes everything back when that one fails.
//!
//! Owns the phases and their time limits. While they last this process goes on accepting and serving, so a
//! failure at any point costs no request. Must not end the process.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use parking_lot::Mutex;
use portcullis_store::Log;

use crate::app::App;
use crate::sentence::sentence;
use crate::tasks::Tasks;

use super::UpgradeOrder;
use super::control::Asker;
use super::link::{Link, Message, PROTOCOL};
use super::program::{Program, end, version_of};
use super::record::Row;

/// From giving up the log to hearing that the new process serves. Requests are recorded in the queue
/// meanwhile, which must not overflow.
const TAKE_OVER_TIME: Duration = Duration::from_secs(15);
/// Between two looks at the new process and at whether this one shall end.
const POLL: Duration = Duration::from_millis(20);
/// Between two tries to get the log back, after the first ones at once.
const RESUME_PAUSE: Duration = Duration::from_millis(200);
/// How long after its own end the forwarder tries to get the log back.
const RESUME_TIME: Duration = Duration::from_secs(10);
/// How long the new process may take to read a record.
const SEND_TIME: Duration = Duration::from_secs(10);
/// Messages of the new process that may wait to be read.
const MAX_MESSAGES: usize = 16;

/// Set when this process shall end: an upgrade that is not through is given up.
pub(crate) type Cancel = Arc<AtomicBool>;

/// The new process, when it serves.
pub(crate) struct Successor(Candidate);

impl Successor {
    pub(crate) fn pid(&self) -> u32 {
        self.0.child.id()
    }
}

/// The new process, when it does not serve yet. Ended when it is dropped.
struct Candidate {
    child: Child,
    link: Link,
    messages: Receiver<Message>,
    is_serving: bool,
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if !self.is_serving {
            end(&mut self.child);
        }
    }
}

/// Puts a new process in the place of this one. When it returns an error, this process is as it was.
///
/// # Errors
/// What kept the new process from serving.
pub(crate) fn hand_over(
    app: &Arc<App>,
    tasks: &Mutex<Option<Tasks>>,
    control: &UnixListener,
    program: &Program,
    order: &UpgradeOrder,
    (asker, cancel): (&mut Asker, &Cancel),
) -> anyhow::Result<Successor> {
    if std::process::id() == 1 {
        bail!("this gateway is process 1 of a container, which ends with it; replace the container instead");
    }
    let binary = order.binary.as_deref().unwrap_or(program.path());
    let version = version_of(binary)?;
    asker.progress(&format!("starting {} ({version})", binary.display()));
    tracing::info!("upgrade: starting {} ({version})", binary.display());
    let mut candidate = start(app, control, program, binary)?;
    let limit = Duration::from_millis(order.timeout_ms);
    candidate.expect_ready(limit, cancel)?;
    asker.progress(&format!("process {} is ready; handing over", candidate.child.id()));

    if let Some(tasks) = tasks.lock().take() {
        tasks.stop();
    }
    app.set_counts_written(false);
    let released = Instant::now();
    let taken_over = app.log().release().map_err(Into::into).and_then(|()| {
        candidate.send_limits(app);
        candidate.expect_open(cancel)
    });
    match taken_over {
        Ok(()) => {
            tracing::info!(
                "upgrade: process {} serves, {:?} after the release",
                candidate.child.id(),
                released.elapsed()
            );
            app.retire();
            candidate.is_serving = true;
            Ok(Successor(candidate))
        }
        Err(why) => {
            // Ended first: it may hold the log.
            drop(candidate);
            take_back(app, tasks, asker, cancel);
            Err(why)
        }
    }
}

fn start(app: &App, control: &UnixListener, program: &Program, binary: &Path) -> anyhow::Result<Candidate> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
    ours.set_write_timeout(Some(SEND_TIME)).context("cannot set up the socket pair")?;
    let mut command = program.successor(binary);
    let child = command
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    // It holds the other end; as long as it does, the end of the new process would not be seen.
    drop(command);
    let link = Link::new(ours);
    let (heard, messages) = sync_channel(MAX_MESSAGES);
    let mut candidate = Candidate { child, link, messages, is_serving: false };
    let socket = candidate.link.socket().context("cannot listen to the new process")?;
    std::thread::Builder::new()
        .name("portcullis-upgrade".to_owned())
        .spawn(move || hear(Link::new(socket), &heard))
        .context("cannot start a thread")?;
    let handed = app.with_place(|lock, sockets| {
        let lock = lock.ok_or(std::io::ErrorKind::NotFound)?;
        let hello = Message::Hello {
            protocol: PROTOCOL,
            data: app.config().data.clone(),
            sockets: sockets.iter().map(|(address, _)| *address).collect(),
        };
        let mut files: Vec<BorrowedFd<'_>> = vec![lock.as_fd(), control.as_fd()];
        files.extend(sockets.iter().map(|(_, socket)| socket.as_fd()));
        candidate.link.send_with(&hello, &files)
    });
    match handed {
        Ok(()) => Ok(candidate),
        // How it ended says more.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(candidate.ended()),
        Err(error) => Err(error).context("cannot hand over the sockets"),
    }
}

/// Reads what the new process says, until it ends.
fn hear(mut link: Link, heard: &SyncSender<Message>) {
    while let Ok(message) = link.receive() {
        if heard.send(message).is_err() {
            return;
        }
    }
}

impl Candidate {
    fn expect_ready(&mut self, limit: Duration, cancel: &Cancel) -> anyhow::Result<()> {
        match self.next(limit, cancel)? {
            Message::Ready => Ok(()),
            other => bail!("the new process said {other:?} instead of being ready"),
        }
    }

    /// A client at its limit stays there. A new process that cannot take the counts begins with none.
    fn send_limits(&mut self, app: &App) {
        let edge = app.gateway().edge();
        let limiter = &edge.state.limiter;
        let secret = limiter.secret();
        limiter.export(edge.clock.now().monotonic_ms, &mut |windows| {
            self.link.send(&Message::Limits { secret, windows: windows.to_vec() }).is_ok()
        });
    }

    fn expect_open(&mut self, cancel: &Cancel) -> anyhow::Result<()> {
        self.link.send(&Message::Released).context("the new process has gone")?;
        match self.next(TAKE_OVER_TIME, cancel)? {
            Message::Open => self.link.send(&Message::Accept).context("the new process has gone"),
            other => bail!("the new process said {other:?} instead of opening the log"),
        }
    }

    /// The next message; an error when it is a failure, or does not come.
    fn next(&mut self, limit: Duration, cancel: &Cancel) -> anyhow::Result<Message> {
        let until = Instant::now() + limit;
        loop {
            match self.messages.recv_timeout(POLL) {
                Ok(Message::Failed { why }) => bail!("the new process failed: {why}"),
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if cancel.load(Ordering::Relaxed) {
                bail!("the gateway is ending");
            }
            if Instant::now() >= until {
                bail!("the new process was not there after {} s", limit.as_secs_f64().round());
            }
        }
    }

    /// It closed its socket without a word.
    fn ended(&mut self) -> anyhow::Error {
        end(&mut self.child);
        match self.child.wait() {
            Ok(status) => anyhow!(
                "the new process ended ({}); what it printed is in the gateway's own output",
                said(status)
            ),
            Err(error) => anyhow!("the new process ended: {error}"),
        }
    }
}

fn said(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    }
}

/// Goes on as if nothing had been asked.
fn take_back(app: &Arc<App>, tasks: &Mutex<Option<Tasks>>, asker: &mut Asker, cancel: &Cancel) {
    let mut is_told = false;
    while let Err(error) = app.log().resume() {
        if cancel.load(Ordering::Relaxed) {
            return;
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::error!("the log cannot be taken back yet, requests wait in its queue: {error}");
            asker.progress(&format!("the old process cannot take its log back yet: {error}"));
        }
        std::thread::sleep(RESUME_PAUSE);
    }
    app.set_counts_written(true);
    match Tasks::start(app, Arc::new(|_| ()), Box::new(|_| ())) {
        Ok(started) => *tasks.lock() = Some(started),
        Err(error) => tracing::error!("the schedule cannot be started again: {error}; restart the gateway"),
    }
}

/// Sends the records of what this process still does to the one that writes the log now.
pub(crate) struct Forwarder {
    is_ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Forwarder {
    /// Starts sending.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(log: Arc<Log>, successor: Successor) -> std::io::Result<Self> {
        let is_ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_ending);
        let thread = std::thread::Builder::new()
            .name("portcullis-rows".to_owned())
            .spawn(move || forward(&log, successor, &end))?;
        Ok(Self { is_ending, thread })
    }

    /// Sends what is left. To be called when no more records come.
    pub(crate) fn finish(self) {
        self.is_ending.store(true, Ordering::Relaxed);
        // A panic has been printed by the panic hook.
        let _ = self.thread.join();
    }
}

fn forward(log: &Log, mut successor: Successor, is_ending: &AtomicBool) {
    loop {
        let is_last = is_ending.load(Ordering::Relaxed);
        let mut send = |record: &_| successor.0.link.send(&Message::Row(Box::new(Row::of(record)))).is_ok();
        if !log.hand_over(POLL, &mut send) {
            return write_alone(log, is_ending);
        }
        if is_last {
            return;
        }
    }
}

/// The new process has gone, and with it the one that writes. As long as nobody else does, this one does.
fn write_alone(log: &Log, is_ending: &AtomicBool) {
    tracing::error!("the new process takes no more records; writing them here, if the log is free");
    let mut until = None;
    while let Err(error) = log.resume() {
        if is_ending.load(Ordering::Relaxed) {
            let until = *until.get_or_insert_with(|| Instant::now() + RESUME_TIME);
            if Instant::now() >= until {
                let error = sentence(&anyhow::Error::from(error));
                return tracing::error!("{} records are lost: {error}", log.stats().queued());
            }
        }
        std::thread::sleep(RESUME_PAUSE);
    }
}
