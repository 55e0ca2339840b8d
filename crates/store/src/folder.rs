//! The data folder and how its databases are opened.
//!
//! Owns paths, permissions, pragmas and schema versions. Must not know what any table means.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error::{StoreError, sqlite_error};

pub(crate) const LOG_FILE: &str = "log.db";
pub(crate) const STATE_FILE: &str = "state.db";
const LOCK_FILE: &str = "log.lock";

/// How long a statement waits for another process before it reports a locked database.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Creates the folder for the owner alone (0700) when it is missing, and proves that it is writable:
/// SQLite's own message for that names neither the folder nor the remedy.
pub(crate) fn prepare(dir: &Path) -> Result<(), StoreError> {
    let error = |source| StoreError::Folder { path: dir.to_path_buf(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(error)?;
    let probe = dir.join(format!(".write-test-{}", std::process::id()));
    let written = OpenOptions::new().write(true).create(true).truncate(true).open(&probe);
    let removed = fs::remove_file(&probe);
    written.map_err(error)?;
    match removed {
        // Two threads of one process may prepare the same folder at once.
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error(source)),
        _ => Ok(()),
    }
}

/// Gives a file or folder that root has just made in somebody else's folder to that one: commands are run by root, and the
/// gateway of another user could not write what they leave behind. Does not follow a link that the owner of the folder
/// may have put there.
pub fn give_to_owner(path: &Path) {
    let dir = path.parent().unwrap_or(path);
    let Ok((made, dir)) = fs::symlink_metadata(path).and_then(|made| Ok((made, fs::metadata(dir)?))) else {
        return;
    };
    let is_new = made.is_dir() || (made.is_file() && made.nlink() == 1);
    if is_new && made.uid() == 0 && dir.uid() != 0 {
        // Where that is not possible, as on some network disks, whoever cannot write the file says so by name.
        let _ = lchown(path, Some(dir.uid()), Some(dir.gid()));
    }
}

/// Takes the lock that keeps two gateways from writing one log. The kernel releases it with the
/// process, however that ends.
pub(crate) fn lock_log(dir: &Path) -> Result<fs::File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let error = |source| StoreError::Folder { path: dir.to_path_buf(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(error)?;
    give_to_owner(&path);
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_path_buf())),
        Err(fs::TryLockError::Error(source)) => Err(error(source)),
    }
}

/// Opens a database for reading alone.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(sqlite_error(path, "opening for reading"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite_error(path, "setting the busy timeout"))?;
    Ok(connection)
}

/// What a database is opened with for writing.
pub(crate) struct WriterPragmas {
    /// Statements that must run before the first table exists and that take effect afterwards.
    pub(crate) pragmas: &'static str,
    pub(crate) busy_timeout: Duration,
}

/// Whether there is a database; that it cannot be told is an error of its own.
pub(crate) fn has(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|source| StoreError::Hidden { path: path.to_path_buf(), source })
}

/// Opens a database for writing, creating it for the owner alone (0600).
pub(crate) fn open_writer(path: &Path, with: &WriterPragmas) -> Result<Connection, StoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let is_new = !path.exists();
    let connection =
        Connection::open_with_flags(path, flags).map_err(sqlite_error(path, "opening for writing"))?;
    if is_new {
        // Before anything is in it: SQLite gives the companions the same owner and mode.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|source| StoreError::Folder { path: path.to_path_buf(), source })?;
        give_to_owner(path);
    }
    connection.busy_timeout(with.busy_timeout).map_err(sqlite_error(path, "setting the busy timeout"))?;
    connection.execute_batch(with.pragmas).map_err(sqlite_error(path, "setting up the database"))?;
    Ok(connection)
}

/// The schema version of an open database; one from the future is an error.
pub(crate) fn schema_version(
    connection: &Connection,
    path: &Path,
    supported: usize,
) -> Result<usize, StoreError> {
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(sqlite_error(path, "reading the schema version"))?;
    match usize::try_from(found) {
        Ok(version) if version <= supported => Ok(version),
        _ => Err(StoreError::Newer { path: path.to_path_buf(), found, supported }),
    }
}

/// Brings a database to the newest schema: `migrations[n]` leads from version n to version n + 1.
pub(crate) fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<(), StoreError> {
    if schema_version(connection, path, migrations.len())? == migrations.len() {
        return Ok(());
    }
    let error = || sqlite_error(path, "migrating");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(error())?;
    // Read again under the write lock: another process may have migrated in between.
    let version = schema_version(&transaction, path, migrations.len())?;
    for migration in &migrations[version..] {
        transaction.execute_batch(migration).map_err(error())?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {}", migrations.len())).map_err(error())?;
    transaction.commit().map_err(error())
}

/// The companions that SQLite keeps beside a database in WAL mode.
pub(crate) fn wal_of(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The size of a file in bytes; 0 when it is not there.
pub(crate) fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Which file the path names at this moment; a file that was moved or deleted has another identity.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Renames a damaged database and its companions to `NAME.corrupt-SECONDS`, keeping them for a person
/// to look at. Returns the new name.
pub(crate) fn move_aside(path: &Path, unix_seconds: u64) -> Result<PathBuf, StoreError> {
    let error = |source| StoreError::Folder { path: path.to_path_buf(), source };
    let mut target = with_suffix(path, &format!(".corrupt-{unix_seconds}"));
    let mut attempt = 0;
    while target.exists() {
        attempt += 1;
        target = with_suffix(path, &format!(".corrupt-{unix_seconds}.{attempt}"));
    }
    fs::rename(path, &target).map_err(error)?;
    for suffix in ["-wal", "-shm"] {
        match fs::rename(with_suffix(path, suffix), with_suffix(&target, suffix)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(source)),
            _ => {}
        }
    }
    Ok(target)
}
