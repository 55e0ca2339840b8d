//! Observed sessions on disk: the key of their hashes, a copy that survives a restart, and what the old process of
//! an upgrade still learns. Must not hold a cookie's value.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use parking_lot::Mutex;
use portcullis_config::Config;
use portcullis_identity::{HashKey, IdentityError, MAX_SAVED_BYTES, Sessions as Table};
use portcullis_model::UnixMs;
use portcullis_proxy::Edge;

use super::files;

const KEY_FILE: &str = "identity.key";
const FILE: &str = "sessions.json";
/// From the old process of an upgrade to the new one.
const LATE_FILE: &str = "sessions.late.json";
/// From one writing to the next while sessions come and go: what a kill loses.
const SAVE_INTERVAL: Duration = Duration::from_secs(2);
/// Writing takes at most this share of the time, one in so many.
const SAVE_SHARE: u32 = 20;
/// When nothing but the last use of sessions has changed; also from one sweep to the next.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// How long the new process may take to fetch what the old one has left for it.
const FETCH_TIME: Duration = Duration::from_secs(5);
const FETCH_POLL: Duration = Duration::from_millis(50);

/// Opens the table, if it is asked for and not open yet.
pub(super) fn open(edge: &Edge, config: &Config, now: UnixMs) -> anyhow::Result<()> {
    let Some(settings) = config.identity.sessions.as_ref().filter(|_| edge.identities.sessions().is_none())
    else {
        return Ok(());
    };
    let table = Table::new(key(&config.data.join(KEY_FILE))?);
    let path = config.data.join(FILE);
    let saved =
        files::read(&path, MAX_SAVED_BYTES).with_context(|| format!("cannot read {}", path.display()));
    let taken = saved.and_then(|saved| match saved {
        Some(saved) => Ok(table.import(&saved, &settings.rules, now)?),
        None => Ok(0),
    });
    match taken {
        Ok(0) => {}
        Ok(count) => tracing::debug!("{count} sessions go on"),
        // Everybody has to log in again to be known, and nobody is let in for it.
        Err(why) => tracing::warn!("{}: {why:#}; all sessions begin anew", path.display()),
    }
    edge.identities.open(table);
    Ok(())
}

fn key(path: &Path) -> anyhow::Result<HashKey> {
    let place = || format!("the key of the sessions, {}", path.display());
    let stored = files::read(path, HashKey::BYTES as u64).with_context(place)?;
    let bytes = match stored {
        Some(stored) => stored
            .try_into()
            .map_err(|_| anyhow!("{} is damaged; remove it, and all sessions begin anew", place()))?,
        None => {
            let new = HashKey::random()?;
            files::replace_durably(path, &new).with_context(|| format!("cannot write {}", place()))?;
            new
        }
    };
    Ok(HashKey::new(&bytes))
}

/// The copies on disk while a gateway runs: whoever changes one does it alone.
#[derive(Default)]
pub(crate) struct Copies(Mutex<()>);

impl Copies {
    fn save(&self, table: &Table, data: &Path) -> io::Result<()> {
        let _alone = self.0.lock();
        files::replace(&data.join(FILE), &table.export())
    }

    fn take_late(&self, data: &Path, take: impl FnOnce(&[u8]) -> Result<(), IdentityError>) {
        let _alone = self.0.lock();
        take_late(data, take);
    }

    /// Ends the sessions that go by this name in the log, in memory and on disk. Returns how many there were.
    ///
    /// # Errors
    /// A copy cannot be read or written; in memory they have ended.
    pub(crate) fn forget_user(&self, edge: &Edge, data: &Path, name: &str) -> anyhow::Result<usize> {
        let _alone = self.0.lock();
        let table = edge.identities.sessions();
        let closed = table.map_or(0, |table| table.close_user(name));
        let found = forget_user(data, name)?;
        Ok(closed.max(found))
    }
}

/// Takes the sessions that go by this name in the log out of the copies on disk. Returns how many there were. While a
/// gateway runs, only the gateway may.
///
/// # Errors
/// A copy cannot be read or written.
pub(crate) fn forget_user(data: &Path, name: &str) -> anyhow::Result<usize> {
    let mut found = 0;
    for file in [FILE, LATE_FILE] {
        let path = data.join(file);
        let place = || format!("cannot take sessions out of {}", path.display());
        let Some(saved) = files::read(&path, MAX_SAVED_BYTES).with_context(place)? else { continue };
        if let Some((left, gone)) = Table::without_user(&saved, name).with_context(place)? {
            files::replace(&path, &left).with_context(place)?;
            found += gone;
        }
    }
    Ok(found)
}

/// Writes the copy when it is time.
pub(super) struct Sessions {
    copies: Arc<Copies>,
    saved: Option<Saved>,
    next_sweep: Option<Instant>,
    has_warned: bool,
}

#[derive(Clone, Copy)]
struct Saved {
    changes: u64,
    at: Instant,
    took: Duration,
}

impl Sessions {
    pub(super) fn new(copies: Arc<Copies>) -> Self {
        Self { copies, saved: None, next_sweep: None, has_warned: false }
    }

    pub(super) fn tick(&mut self, edge: &Edge, config: &Config, now: UnixMs) {
        if let Err(why) = open(edge, config, now) {
            self.warn(&format!("sessions are not known: {why:#}"));
        }
        let (Some(settings), Some(table)) = (&config.identity.sessions, edge.identities.sessions()) else {
            return;
        };
        self.copies.take_late(&config.data, |late| table.import(late, &settings.rules, now).map(drop));
        let instant = Instant::now();
        let is_sweep_due = self.next_sweep.is_none_or(|next| instant >= next);
        if is_sweep_due {
            self.next_sweep = Some(instant + SWEEP_INTERVAL);
            table.sweep(&settings.rules, now);
        }
        let is_save_due = self.saved.is_none_or(|saved| {
            let pause = SAVE_INTERVAL.max(saved.took * SAVE_SHARE);
            (saved.changes != table.changes() && instant.duration_since(saved.at) >= pause) || is_sweep_due
        });
        if is_save_due {
            self.save(table, &config.data);
        }
    }

    pub(super) fn end(&mut self, edge: &Edge, data: &Path) {
        if let Some(table) = edge.identities.sessions() {
            table.note_changes();
            self.save(table, data);
        }
    }

    fn save(&mut self, table: &Table, data: &Path) {
        let (changes, at) = (table.changes(), Instant::now());
        match self.copies.save(table, data) {
            Ok(()) => self.has_warned = false,
            Err(error) => self.warn(&format!(
                "sessions would not survive a restart: {} cannot be written: {error}",
                data.join(FILE).display()
            )),
        }
        self.saved = Some(Saved { changes, at, took: at.elapsed() });
    }

    /// Once, until it has worked again.
    fn warn(&mut self, what: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!("{what}");
        }
    }
}

/// Takes over what the old process has left, and says so by removing it.
fn take_late(data: &Path, take: impl FnOnce(&[u8]) -> Result<(), IdentityError>) {
    let path = data.join(LATE_FILE);
    let late = match files::read(&path, MAX_SAVED_BYTES) {
        Ok(None) => return,
        Ok(Some(late)) => take(&late).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = late {
        tracing::warn!("{}: {why}; what the old process learned of sessions is lost", path.display());
    }
    let _ = fs::remove_file(&path);
}

/// What the old process of an upgrade learns while it finishes what is open.
pub(crate) struct Late {
    path: PathBuf,
}

impl Late {
    pub(crate) fn new(data: &Path) -> Self {
        Self { path: data.join(LATE_FILE) }
    }

    /// Leaves for the new process what there is, unless it has not fetched the last of it yet.
    pub(crate) fn pass_on(&self, edge: &Edge) {
        let Some(table) = edge.identities.sessions().filter(|_| !self.path.exists()) else { return };
        if let Some(changes) = table.export_changes()
            && let Err(error) = files::replace(&self.path, &changes)
        {
            tracing::warn!("logins of this moment are not known to the new process: {error}");
        }
    }

    /// The last of it. Waits for the new process to fetch what was left before.
    pub(crate) fn finish(self, edge: &Edge) {
        let until = Instant::now() + FETCH_TIME;
        while edge.identities.sessions().is_some() && self.path.exists() && Instant::now() < until {
            std::thread::sleep(FETCH_POLL);
        }
        self.pass_on(edge);
    }
}
