//! The key behind the pseudonyms of the log, and its end.
//!
//! Owns `pseudonym.key` in the data folder: the same across a restart, so that a client stays one client; gone
//! when its time is over, so that nobody can tell any more who was who. Must never keep two.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use portcullis_model::UnixMs;
use portcullis_privacy::{PseudonymKey, SECRET_BYTES};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

const FILE: &str = "pseudonym.key";
/// More than that is not this file.
const MAX_FILE_BYTES: u64 = 1_024;

/// The key of the running period.
pub(crate) struct Keys {
    path: PathBuf,
    current: ArcSwapOption<Current>,
    rotating: Mutex<()>,
}

struct Current {
    key: PseudonymKey,
    until: UnixMs,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    until_ms: i64,
    secret: [u8; SECRET_BYTES],
}

impl Stored {
    fn key(&self) -> Current {
        Current { key: PseudonymKey::new(&self.secret), until: UnixMs(self.until_ms) }
    }
}

/// The end of the period that `now` is in. Periods begin at multiples of their length since 1970, so that a
/// day's begin at midnight (UTC) and all processes agree.
fn end_of_period(now: UnixMs, rotation: Duration) -> UnixMs {
    let length = i64::try_from(rotation.as_millis()).unwrap_or(i64::MAX).max(1);
    UnixMs(now.0.div_euclid(length).saturating_add(1).saturating_mul(length))
}

impl Keys {
    pub(crate) fn new(data: &Path) -> Self {
        Self { path: data.join(FILE), current: ArcSwapOption::empty(), rotating: Mutex::default() }
    }

    /// Calls `with` with the key of the period that `now` is in; makes one if there is none. A request that began
    /// before the last change of keys gets the new one: the old one is gone.
    pub(crate) fn with<T>(
        &self,
        rotation: Duration,
        now: UnixMs,
        with: impl FnOnce(&PseudonymKey) -> T,
    ) -> T {
        let is_current = |current: &Current| now < current.until;
        if let Some(current) = self.current.load().as_deref().filter(|current| is_current(current)) {
            return with(&current.key);
        }
        let _one = self.rotating.lock();
        if let Some(current) = self.current.load().as_deref().filter(|current| is_current(current)) {
            return with(&current.key);
        }
        let current = Arc::new(self.next(end_of_period(now, rotation), now));
        self.current.store(Some(Arc::clone(&current)));
        with(&current.key)
    }

    /// Destroys a key whose time is over, also when nobody has asked for one since.
    pub(crate) fn destroy_old(&self, now: UnixMs) {
        let _one = self.rotating.lock();
        if read(&self.path).is_some_and(|stored| UnixMs(stored.until_ms) <= now)
            && let Err(error) = destroy(&self.path)
        {
            tracing::error!("an old key of the log's pseudonyms is still there: {error:#}");
        }
        if self.current.load().as_deref().is_some_and(|current| current.until <= now) {
            self.current.store(None);
        }
    }

    /// What another process has made for this period, or a new one. A disk that fails costs a restart its memory
    /// of who was who, never a client its anonymity.
    fn next(&self, until: UnixMs, now: UnixMs) -> Current {
        if let Some(stored) =
            read(&self.path).filter(|stored| stored.until_ms > now.0 && stored.until_ms <= until.0)
        {
            return stored.key();
        }
        let stored = Stored { until_ms: until.0, secret: random() };
        if let Err(error) = destroy(&self.path).and_then(|()| write(&self.path, &stored)) {
            tracing::warn!("the log's pseudonyms will not outlast a restart: {error:#}");
        }
        stored.key()
    }
}

/// The key in force at `now`, for a command beside the gateway.
pub(crate) fn current_key(data: &Path, now: UnixMs) -> Option<PseudonymKey> {
    let stored = read(&data.join(FILE)).filter(|stored| stored.until_ms > now.0)?;
    Some(PseudonymKey::new(&stored.secret))
}

pub(super) fn random() -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    // The kernel's generator does not fail once the machine is up.
    SystemRandom::new().fill(&mut secret).expect("the system has random numbers");
    secret
}

fn read(path: &Path) -> Option<Stored> {
    if fs::metadata(path).ok()?.len() > MAX_FILE_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes beside and renames, for the owner alone.
fn write(path: &Path, stored: &Stored) -> anyhow::Result<()> {
    replace(path, &serde_json::to_vec(stored)?)
}

fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("key.new");
    let written = || {
        // Whatever an interrupted attempt has left may have other permissions.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// Overwrites and removes. What the disk itself keeps of old blocks is out of a program's reach.
fn destroy(path: &Path) -> anyhow::Result<()> {
    let destroyed = || {
        let mut file = match OpenOptions::new().write(true).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let length = usize::try_from(file.metadata()?.len().min(MAX_FILE_BYTES)).unwrap_or(0);
        file.write_all(&vec![0; length])?;
        file.sync_all()?;
        fs::remove_file(path)
    };
    destroyed().with_context(|| format!("cannot destroy {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use portcullis_privacy::Kind;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOON: UnixMs = UnixMs(43_200_000);

    fn pseudonym(keys: &Keys, now: UnixMs) -> String {
        keys.with(DAY, now, |key| key.pseudonym(Kind::Row, "203.0.113.9".parse().unwrap())).to_string()
    }

    #[test]
    fn a_key_lasts_a_day_and_a_restart_and_is_then_gone() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::new(folder.path());
        let first = pseudonym(&keys, NOON);
        assert_eq!(first, pseudonym(&keys, UnixMs(86_399_999)));
        assert_eq!(first, pseudonym(&Keys::new(folder.path()), NOON), "after a restart");
        let path = folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let old = fs::read(&path).unwrap();

        let tomorrow = UnixMs(86_400_000);
        assert_ne!(first, pseudonym(&keys, tomorrow));
        assert_ne!(fs::read(&path).unwrap(), old);
        assert_eq!(pseudonym(&keys, NOON), pseudonym(&keys, tomorrow), "an old request gets the new key");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no second copy");
    }

    #[test]
    fn a_key_that_nobody_uses_any_more_is_destroyed_too() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::new(folder.path());
        pseudonym(&keys, NOON);
        keys.destroy_old(NOON);
        assert!(folder.path().join(FILE).exists());
        keys.destroy_old(UnixMs(86_400_000));
        assert!(!folder.path().join(FILE).exists());
    }

    #[test]
    fn a_shorter_period_does_not_wait_for_the_old_one_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::new(folder.path());
        let of_the_day = pseudonym(&keys, NOON);
        let hourly = Keys::new(folder.path());
        let of_the_hour = hourly.with(Duration::from_secs(3_600), NOON, |key| {
            key.pseudonym(Kind::Row, "203.0.113.9".parse().unwrap()).to_string()
        });
        assert_ne!(of_the_day, of_the_hour);
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_nobody_the_anonymity() {
        let keys = Keys::new(Path::new("/nowhere/at/all"));
        assert_eq!(pseudonym(&keys, NOON), pseudonym(&keys, NOON));
    }
}
