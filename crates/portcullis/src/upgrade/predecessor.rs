//! The new process's side of an upgrade: what it gets from the old one, and what it says to it.
//!
//! Owns the order in which a gateway comes to life beside another one. Must not start anything itself.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};
use portcullis_policy::{Limiter, Secret};
use portcullis_proxy::{Clock, Edge, Inherited};

use super::link::{Link, Message, PROTOCOL};

/// The old process, on this process's standard input.
pub(crate) struct Predecessor {
    link: Link,
    data: PathBuf,
    inherited: Inherited,
    lock: Option<File>,
    control: Option<UnixListener>,
    limiter: Option<Limiter>,
}

impl Predecessor {
    /// Hears what the old process has to give.
    ///
    /// # Errors
    /// Nobody is there, or a version that speaks differently.
    pub(crate) fn meet() -> anyhow::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned().context("cannot read the standard input")?;
        let mut link = Link::new(UnixStream::from(input));
        let hello = link.receive_with();
        let (hello, files) = hello.context(
            "there is no gateway to take over from; this option is for \"portcullis upgrade\" alone",
        )?;
        let Message::Hello { protocol, data, sockets } = hello else {
            bail!("the old process said no hello")
        };
        let mut files: VecDeque<OwnedFd> = files.into();
        let (lock, control) = (files.pop_front().map(File::from), files.pop_front().map(UnixListener::from));
        if protocol != PROTOCOL || files.len() != sockets.len() {
            let why = "the running gateway is of a version that cannot hand over to this one; restart it";
            link.send(&Message::Failed { why: why.to_owned() })?;
            bail!(why);
        }
        let sockets = sockets.into_iter().zip(files.into_iter().map(TcpListener::from)).collect();
        Ok(Self { link, data, inherited: Inherited::new(sockets), lock, control, limiter: None })
    }

    /// The listening sockets. Those that nobody takes out of it are closed with it.
    pub(crate) fn take_sockets(&mut self) -> Inherited {
        std::mem::take(&mut self.inherited)
    }

    /// The control socket.
    pub(crate) fn take_control(&mut self) -> Option<UnixListener> {
        self.control.take()
    }

    /// The counts of the limits, once log and state are free.
    pub(crate) fn take_limiter(&mut self) -> Limiter {
        self.limiter.take().unwrap_or_default()
    }

    /// Says that everything is ready, and waits until log and state are free. Returns the folder's lock.
    ///
    /// # Errors
    /// The configuration names another folder, or the old process has given up.
    pub(crate) fn wait_for_release(&mut self, data: &Path, clock: Clock) -> anyhow::Result<File> {
        let same = |path: &Path| path.canonicalize().ok();
        if same(data).is_none() || same(data) != same(&self.data) {
            bail!(
                "the data folder cannot change from {} to {} in an upgrade; restart the gateway for that",
                self.data.display(),
                data.display()
            );
        }
        self.link.send(&Message::Ready).context("the old process has gone")?;
        loop {
            match self.link.receive().context("the old process took everything back")? {
                Message::Limits { secret, windows } => self.count(secret, &windows, clock),
                Message::Released => return self.lock.take().context("the old process gave no lock"),
                other => bail!("the old process said {other:?} instead of giving up the log"),
            }
        }
    }

    fn count(&mut self, secret: Secret, windows: &[u64], clock: Clock) {
        if self.limiter.is_none() {
            self.limiter = Some(Limiter::with_secret(secret).unwrap_or_else(|| {
                tracing::warn!("the limits begin to count anew: this version counts in another way");
                Limiter::default()
            }));
        }
        if let Some(limiter) = self.limiter.as_ref().filter(|limiter| limiter.secret() == secret) {
            limiter.import(windows, clock.now().monotonic_ms);
        }
    }

    /// Says that everything is open, and waits for the word to accept connections. From then on this process is the
    /// gateway; the old one sends the records of what it still does, which are counted and logged by `edge`.
    ///
    /// # Errors
    /// The old process has gone, or has given up: nothing may be accepted.
    pub(crate) fn wait_for_place(&mut self, edge: Arc<Edge>) -> anyhow::Result<Option<Records>> {
        let mut link = Link::new(self.link.socket().context("cannot listen to the old process")?);
        self.link.send(&Message::Open).context("the old process has gone")?;
        match self.link.receive().context("the old process took everything back")? {
            Message::Accept => {}
            other => bail!("the old process said {other:?} instead of giving up its place"),
        }
        let thread = std::thread::Builder::new()
            .name("portcullis-rows".to_owned())
            .spawn(move || receive_rows(&mut link, &edge));
        // Now nothing may keep this process from serving.
        let records = self.link.socket().and_then(|socket| Ok(Records { socket, thread: thread? }));
        Ok(records
            .inspect_err(|error| tracing::error!("the old process's records will be lost: {error}"))
            .ok())
    }

    /// Says that this process will not serve.
    pub(crate) fn failed(&mut self, why: &str) {
        // An old process that has gone cannot be told.
        let _ = self.link.send(&Message::Failed { why: why.to_owned() });
    }
}

fn receive_rows(link: &mut Link, edge: &Edge) {
    let mut unknown = 0_u64;
    loop {
        match link.receive() {
            Ok(Message::Row(row)) => match row.record() {
                Some(record) => edge.finish(record),
                None => unknown += 1,
            },
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => {
                tracing::error!("the old process's records cannot be read any more: {error}");
                break;
            }
        }
    }
    if unknown > 0 {
        tracing::error!(
            "{unknown} records of the old process are lost: this version does not know their words"
        );
    }
    tracing::info!("the old process has ended");
}

/// The records that the old process sends while it finishes.
pub(crate) struct Records {
    socket: UnixStream,
    thread: JoinHandle<()>,
}

impl Records {
    /// Whether the old process has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Takes what has come; an old process that still runs writes the rest itself when the log is free.
    pub(crate) fn stop(self) {
        // What was sent before can still be read.
        let _ = self.socket.shutdown(Shutdown::Read);
        // A panic has been printed by the panic hook.
        let _ = self.thread.join();
    }
}
