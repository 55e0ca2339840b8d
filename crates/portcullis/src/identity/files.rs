//! Files of the data folder that only the gateway may read, replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use portcullis_store::give_to_owner;

const OWNER_ONLY: u32 = 0o600;

/// Writes beside and renames, so that nobody reads half a file. After a power cut it may be the one before.
pub(super) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    write(path, contents, |_| Ok(()))
}

/// The same, and it is on the disk when this returns: for what other files are worthless without.
pub(super) fn replace_durably(path: &Path, contents: &[u8]) -> io::Result<()> {
    write(path, contents, File::sync_all)?;
    match path.parent() {
        // So that the name survives a power cut too.
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn write(path: &Path, contents: &[u8], settle: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let new = path.with_added_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&new)?;
    file.write_all(contents)?;
    settle(&file)?;
    drop(file);
    // The command that erases somebody is run by root.
    give_to_owner(&new);
    fs::rename(&new, path)
}

/// The contents of a file of at most `max` bytes; `None` when there is none.
pub(super) fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut contents = Vec::new();
    file.take(max + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {max} bytes")));
    }
    Ok(Some(contents))
}
