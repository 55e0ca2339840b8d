//! Notices changes of the state database, whoever makes them.
//!
//! Owns the polling thread. Must not lose the last state when the database fails for a while.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{BlockChange, Changes, PartyChange, Seq, State};
use crate::error::StoreError;
use crate::folder::{self, STATE_FILE};

/// How often a database that fails is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Up to which change the callback has been told everything, and has returned. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Noticed(Arc<AtomicI64>);

impl Noticed {
    pub fn up_to(&self) -> Seq {
        Seq(self.0.load(Ordering::Acquire))
    }

    fn set(&self, seq: Seq) {
        self.0.store(seq.0, Ordering::Release);
    }
}

/// Calls back with changes until it is dropped.
#[derive(Debug)]
pub struct StateWatcher {
    noticed: Noticed,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type OnChange = Box<dyn FnMut(Changes) + Send>;

impl StateWatcher {
    /// Calls `on_change` with all that is in force before it returns, and from then on, on the thread
    /// `portcullis-state`, with what changes. `poll` is the longest time until a change is noticed; a
    /// look costs a few microseconds. While the database fails nothing is called, so the last state
    /// stays in force.
    ///
    /// # Errors
    /// There is no state database, or it cannot be read.
    pub fn start(dir: &Path, poll: Duration, mut on_change: OnChange) -> Result<Self, StoreError> {
        let file = folder::identity(&dir.join(STATE_FILE));
        let state = State::open_read_only(dir)?;
        // The version first: what changes between the two reads is seen again, not missed.
        let version = state.data_version()?;
        let changes = state.changes(Seq::default())?;
        let seq = changes.seq;
        on_change(changes);
        let noticed = Noticed::default();
        noticed.set(seq);

        let (stop, stopped) = bounded(0);
        let mut watch = Watch {
            dir: dir.to_path_buf(),
            state: Some(state),
            file,
            version,
            seq,
            noticed: noticed.clone(),
            on_change,
            failing: None,
        };
        let name = "portcullis-state";
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || watch.run(poll, &stopped))
            .map_err(|source| StoreError::Thread { name, source })?;
        Ok(Self { noticed, stop: Some(stop), thread: Some(thread) })
    }

    /// How far it has come.
    pub fn noticed(&self) -> &Noticed {
        &self.noticed
    }
}

impl Drop for StateWatcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches the state database panicked; see above");
        }
    }
}

struct Watch {
    dir: PathBuf,
    state: Option<State>,
    /// Which file the state was read from: a person may restore a backup under the running gateway.
    file: Option<(u64, u64)>,
    version: i64,
    seq: Seq,
    noticed: Noticed,
    on_change: OnChange,
    failing: Option<Instant>,
}

impl Watch {
    fn run(&mut self, poll: Duration, stopped: &Receiver<()>) {
        loop {
            let wait = if self.failing.is_some() { RETRY_INTERVAL.max(poll) } else { poll };
            match stopped.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
            match self.look() {
                Ok(()) => self.note_recovery(),
                Err(error) => self.note_failure(&error),
            }
        }
    }

    fn look(&mut self) -> Result<(), StoreError> {
        let file = folder::identity(&self.dir.join(STATE_FILE));
        if file != self.file {
            // Until that succeeds the old one stays open: it knows which blocks have to go.
            return self.take_over(file);
        }
        let looked = self.look_at_the_same_file();
        if looked.is_err() {
            self.state = None;
        }
        looked
    }

    fn look_at_the_same_file(&mut self) -> Result<(), StoreError> {
        let is_new = self.state.is_none();
        let state = match &mut self.state {
            Some(state) => state,
            empty => empty.insert(State::open_read_only(&self.dir)?),
        };
        let version = state.data_version()?;
        // The number belongs to a connection, so a new one says nothing about what was missed.
        if version == self.version && !is_new {
            return Ok(());
        }
        let changes = state.changes(self.seq)?;
        self.version = version;
        self.seq = changes.seq;
        if !changes.is_empty() {
            (self.on_change)(changes);
        }
        self.noticed.set(self.seq);
        Ok(())
    }

    /// Another database is in the place of the old one. Its numbers begin anew, so all of it is read; what
    /// the old one said goes first, as far as that can still be read.
    fn take_over(&mut self, file: Option<(u64, u64)>) -> Result<(), StoreError> {
        let new = State::open_read_only(&self.dir)?;
        let version = new.data_version()?;
        let mut changes = new.changes(Seq::default())?;
        let old = self.state.as_ref().and_then(|old| old.changes(Seq::default()).ok());
        match old {
            Some(old) => {
                let gone = old.blocks.into_iter().map(BlockChange::undone);
                changes.blocks.splice(0..0, gone);
                changes.parties.splice(0..0, old.parties.into_iter().map(PartyChange::undone));
                tracing::error!("the state database was replaced; what the new one says is in force");
            }
            None => tracing::error!(
                "the state database was replaced; what the new one says is in force, and so are the old \
                 one's blocks until the next start: they cannot be read any more"
            ),
        }
        changes.is_replaced = true;
        // An empty list has no changes to be told by.
        changes.allows.get_or_insert_default();
        changes.opt_outs.get_or_insert_default();
        changes.settings_changed = true;
        (self.file, self.version, self.seq) = (file, version, changes.seq);
        self.state = Some(new);
        (self.on_change)(changes);
        self.noticed.set(self.seq);
        Ok(())
    }

    fn note_failure(&mut self, error: &StoreError) {
        if self.failing.is_none() {
            tracing::warn!(%error, "the state database cannot be read; the last state stays in force");
            self.failing = Some(Instant::now());
        }
    }

    fn note_recovery(&mut self) {
        if let Some(since) = self.failing.take() {
            tracing::info!(after = ?since.elapsed(), "the state database can be read again");
        }
    }
}
