//! The folder of accounts, keys and certificates: private to its owner, written so that a crash leaves the old
//! file or the new one. Must not decide what is written.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{AcmeError, Progress};

const LOCK: &str = "lock";
const STATE: &str = "state.json";
const ACCOUNTS: &str = "accounts";
const OWNER_ONLY_FOLDER: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;

/// How far it is with each name, read from the folder of a gateway that may be running.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn progress(folder: &Path) -> Result<BTreeMap<String, Progress>, AcmeError> {
    read_json(&folder.join(STATE)).map(Option::unwrap_or_default)
}

pub(crate) fn save_progress(folder: &Path, progress: &BTreeMap<String, Progress>) -> Result<(), AcmeError> {
    write_json(&folder.join(STATE), progress)
}

/// Puts a file aside that cannot be read.
pub(crate) fn forget_progress(folder: &Path) -> Result<(), AcmeError> {
    let path = folder.join(STATE);
    fs::rename(&path, folder.join("state.json.broken")).map_err(|source| AcmeError::file(&path, source))
}

/// Makes the folder if need be, and takes it for this process alone. `None` when another one has it.
pub(crate) fn lock(folder: &Path) -> Result<Option<File>, AcmeError> {
    make(folder)?;
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(|source| AcmeError::file(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(source)) => Err(AcmeError::file(&path, source)),
    }
}

/// Where the account at a directory is kept. Every directory has a file of its own.
pub(crate) fn account_file(folder: &Path, directory: &str) -> PathBuf {
    let mut name = String::with_capacity(directory.len() + 8);
    for byte in directory.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' => name.push(char::from(byte)),
            other => name.push_str(&format!("_{other:02x}")),
        }
    }
    folder.join(ACCOUNTS).join(format!("{name}.json"))
}

/// `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, AcmeError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AcmeError::file(path, source)),
    }
}

/// `None` when there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, AcmeError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| AcmeError::Broken { path: path.to_owned(), problem: error.to_string() })
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), AcmeError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| AcmeError::Broken { path: path.to_owned(), problem: error.to_string() })?;
    write(path, &bytes)
}

/// Replaces a file as a whole; what is in it can be read by its owner alone.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), AcmeError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let replace = || -> io::Result<()> {
        // What a crash left there may have other permissions.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY_FILE).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // So that the new name survives a power cut too.
        File::open(folder)?.sync_all()
    };
    replace().map_err(|source| AcmeError::file(path, source))
}

fn make(folder: &Path) -> Result<(), AcmeError> {
    DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY_FOLDER)
        .create(folder)
        .map_err(|source| AcmeError::file(folder, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_for_their_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("acme");
        let path = folder.join("certificates").join("a.example.pem");
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&path), mode(&folder), mode(path.parent().unwrap())], [0o600, 0o700, 0o700]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn directories_have_accounts_of_their_own() {
        let file = |directory| account_file(Path::new("f"), directory);
        assert_ne!(file("https://a.example/b"), file("https://a.example_b"));
        assert_ne!(file("https://a.example/b"), file("https://a.example/B"));
        assert!(file("https://a/../../b").starts_with("f/accounts"));
        assert_eq!(file("https://a/../../b").parent(), Some(Path::new("f/accounts")));
    }

    #[test]
    fn one_process_has_the_folder() {
        let data = tempfile::tempdir().unwrap();
        let held = lock(data.path()).unwrap();
        assert!(held.is_some());
        assert!(lock(data.path()).unwrap().is_none());
        drop(held);
        assert!(lock(data.path()).unwrap().is_some());
    }
}
