//! The key that lasts: under which blocks and opt-outs outlive the data that they are of, and receipts name nobody.
//!
//! Owns `privacy.key` in the data folder. It is made when first needed and never replaced: what was written under it
//! would be lost.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwapOption;
use portcullis_model::ClientIp;
use portcullis_privacy::{Kind, PseudonymKey, SECRET_BYTES};
use portcullis_store::give_to_owner;

use super::keys::random;
use crate::sentence::sentence;

const FILE: &str = "privacy.key";

/// The key, if there is one.
///
/// # Errors
/// It cannot be read, or is none.
pub(crate) fn read(data: &Path) -> anyhow::Result<Option<PseudonymKey>> {
    let path = data.join(FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    match <[u8; SECRET_BYTES]>::try_from(bytes) {
        Ok(secret) => Ok(Some(PseudonymKey::new(&secret))),
        Err(_) => bail!(
            "{} is no key; restore it from a backup, or remove it with the opt-outs and kept blocks",
            path.display()
        ),
    }
}

/// The key; made, for the owner alone, if there is none.
///
/// # Errors
/// It cannot be read or written.
pub(crate) fn read_or_make(data: &Path) -> anyhow::Result<PseudonymKey> {
    if let Some(key) = read(data)? {
        return Ok(key);
    }
    let path = data.join(FILE);
    let made =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
            file.write_all(&random())?;
            file.sync_all()
        });
    match made {
        // Another process was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.with_context(|| format!("cannot write {}", path.display()))?,
    }
    give_to_owner(&path);
    read(data)?.with_context(|| format!("{} is gone again", path.display()))
}

/// Who the kept blocks are of, for the request path, which never waits for the disk.
pub(crate) struct KeptBlocks {
    data: PathBuf,
    key: ArcSwapOption<PseudonymKey>,
    /// Blocks in force that refuse nobody, because there is no key.
    unenforced: AtomicU64,
}

impl KeptBlocks {
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), key: ArcSwapOption::empty(), unenforced: AtomicU64::new(0) }
    }

    /// The address under which a block of `client` is kept; `None` as long as the key is not known.
    pub(crate) fn stand_in(&self, client: ClientIp) -> Option<ClientIp> {
        self.key.load().as_deref().map(|key| key.pseudonym(Kind::Block, client))
    }

    /// Blocks that refuse nobody, as of the last look.
    pub(crate) fn unenforced(&self) -> u64 {
        self.unenforced.load(Ordering::Relaxed)
    }

    /// Reads the key when `in_force` blocks need it and it is not known. What keeps it from being read is said when it
    /// begins and when it is over. To be called when such blocks come in force, and every few seconds.
    pub(crate) fn look(&self, in_force: impl FnOnce() -> u64) {
        let problem = match self.key.load().is_some() {
            true => None,
            false => match in_force() {
                0 => None,
                blocks => self.read_key().err().map(|problem| (blocks, problem)),
            },
        };
        let now = problem.as_ref().map_or(0, |(blocks, _)| *blocks);
        let before = self.unenforced.swap(now, Ordering::Relaxed);
        match problem {
            Some((blocks, problem)) if before == 0 => tracing::error!(
                "{blocks} blocks that are kept under a hash REFUSE NOBODY: {problem}; restore it from a backup, or lift \
                 the blocks"
            ),
            None if before > 0 && self.key.load().is_some() => {
                tracing::info!("{FILE} can be read: blocks that are kept under a hash are in force");
            }
            Some(_) | None => {}
        }
    }

    /// Another database is in the data folder now, and maybe another key.
    pub(crate) fn look_again(&self, in_force: impl FnOnce() -> u64) {
        if self.key.load().is_some() && self.read_key().is_err() {
            self.key.store(None);
        }
        self.look(in_force);
    }

    fn read_key(&self) -> Result<(), String> {
        let read = read(&self.data).map_err(|error| sentence(&error))?;
        self.key.store(Some(Arc::new(read.ok_or_else(|| missing(&self.data))?)));
        Ok(())
    }
}

/// Why the key cannot be used; `None` when it can.
pub(crate) fn problem(data: &Path) -> Option<String> {
    match read(data) {
        Ok(Some(_)) => None,
        Ok(None) => Some(missing(data)),
        Err(error) => Some(sentence(&error)),
    }
}

fn missing(data: &Path) -> String {
    format!("{} is not there", data.join(FILE).display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let client = "203.0.113.9".parse().unwrap();
        assert!(read(folder.path()).unwrap().is_none());
        let made = read_or_make(folder.path()).unwrap().pseudonym(Kind::Block, client);
        assert_eq!(read_or_make(folder.path()).unwrap().pseudonym(Kind::Block, client), made);
        let path = folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(read_or_make(folder.path()).unwrap_err().to_string().contains("is no key"));
    }

    #[test]
    fn kept_blocks_without_a_key_are_counted_until_it_is_there_and_the_disk_is_asked_by_looks_alone() {
        let folder = tempfile::tempdir().unwrap();
        let client = "203.0.113.9".parse().unwrap();
        let kept = KeptBlocks::new(folder.path());
        kept.look(|| 0);
        assert_eq!((kept.stand_in(client), kept.unenforced()), (None, 0));
        kept.look(|| 3);
        assert_eq!((kept.stand_in(client), kept.unenforced()), (None, 3));
        let made = read_or_make(folder.path()).unwrap().pseudonym(Kind::Block, client);
        assert_eq!(kept.stand_in(client), None, "a request does not read the file");
        kept.look(|| 3);
        assert_eq!((kept.stand_in(client), kept.unenforced()), (Some(made), 0));
        // With the key in memory nobody counts, and a file that goes takes nothing out of force.
        fs::remove_file(folder.path().join(FILE)).unwrap();
        kept.look(|| panic!("nobody has to count"));
        assert_eq!(kept.stand_in(client), Some(made));
        kept.look_again(|| 2);
        assert_eq!((kept.stand_in(client), kept.unenforced()), (None, 2));
        kept.look(|| 0);
        assert_eq!(kept.unenforced(), 0, "they were lifted");
    }
}
