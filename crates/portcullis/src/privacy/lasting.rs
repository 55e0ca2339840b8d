//! The key that lasts: under which blocks and opt-outs outlive the data that they are of, and receipts name nobody.
//!
//! Owns `privacy.key` in the data folder. It is made when first needed and never replaced: what was written under it
//! would be lost.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwapOption;
use portcullis_model::ClientIp;
use portcullis_privacy::{Kind, PseudonymKey, SECRET_BYTES};

use super::keys::random;

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
    read(data)?.with_context(|| format!("{} is gone again", path.display()))
}

/// Who a kept block is of, for the request path: asked only while there are such blocks.
pub(crate) fn stand_in(data: &Path) -> impl Fn(ClientIp) -> Option<ClientIp> + Send + Sync + use<> {
    let data = data.to_owned();
    let key = ArcSwapOption::<PseudonymKey>::empty();
    move |client| {
        if key.load().is_none() {
            match read(&data) {
                Ok(Some(read)) => key.store(Some(read.into())),
                // `portcullis doctor` and the command that lists them tell of blocks without a key; a line for each
                // request would fill the disk.
                Ok(None) | Err(_) => return None,
            }
        }
        key.load().as_deref().map(|key| key.pseudonym(Kind::Block, client))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let client = "203.0.113.9".parse().unwrap();
        let stand_in = stand_in(folder.path());
        assert!(read(folder.path()).unwrap().is_none() && stand_in(client).is_none());
        let made = read_or_make(folder.path()).unwrap().pseudonym(Kind::Block, client);
        assert_eq!(stand_in(client), Some(made));
        assert_eq!(read_or_make(folder.path()).unwrap().pseudonym(Kind::Block, client), made);
        let path = folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(read_or_make(folder.path()).unwrap_err().to_string().contains("is no key"));
    }
}
