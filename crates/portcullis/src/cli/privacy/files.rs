//! Looks for an address in every byte of a data folder, and for a user's name wherever it can only be that.
//!
//! Owns the last word on an erasure: what the databases say they deleted is not what is on disk. Must not change a file.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Read at once.
const CHUNK: usize = 1 << 20;
/// Folders in folders.
const MAX_DEPTH: usize = 6;

/// What is judged by its rows where a name is sought, and databases that were damaged and kept.
const DATABASES: [&str; 2] = ["log.db", "state.db"];
const DAMAGED: &str = ".corrupt-";

/// The files in `data` in which a user of this name stands, as the value of "user" in JSON: the sessions. Users choose
/// their names, and elsewhere in what the gateway writes it is a word like others. In a damaged database every
/// occurrence counts. Not those in its folders, which others wrote: lists, locations and certificates.
///
/// # Errors
/// A file or folder cannot be read.
pub(super) fn with_name(data: &Path, name: &str) -> io::Result<Vec<PathBuf>> {
    let in_json = format!("\"user\":{}", serde_json::Value::from(name));
    let mut found = Vec::new();
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let file = entry.file_name();
        let file = file.to_string_lossy();
        let is_damaged = file.contains(DAMAGED);
        let is_database = !is_damaged && DATABASES.iter().any(|database| file.starts_with(database));
        let sought = if is_damaged { name.to_owned() } else { in_json.clone() };
        if !is_database && entry.path().is_file() && holds(&entry.path(), &[sought], nowhere)? {
            found.push(entry.file_name().into());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether the byte before or after a text makes it part of something longer.
type GoesOn = fn(text: &str, next: u8) -> bool;

fn is_in_an_address(text: &str, next: u8) -> bool {
    match text.contains(':') {
        true => next.is_ascii_hexdigit() || next == b':',
        false => next.is_ascii_digit() || next == b'.',
    }
}

fn nowhere(_: &str, _: u8) -> bool {
    false
}

/// The files below `data` in which one of the texts stands, not as a part of a longer address, by their names in it.
///
/// # Errors
/// A file or folder cannot be read.
pub(super) fn with_any(data: &Path, texts: &[String]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    look(data, Path::new(""), texts, MAX_DEPTH, &mut found)?;
    found.sort();
    Ok(found)
}

fn look(
    data: &Path,
    below: &Path,
    texts: &[String],
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(data.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            // Gone in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if kind.is_dir() && depth > 0 {
            look(data, &name, texts, depth - 1, found)?;
        } else if kind.is_file() && holds(&data.join(&name), texts, is_in_an_address)? {
            found.push(name);
        }
    }
    Ok(())
}

fn holds(path: &Path, texts: &[String], goes_on: GoesOn) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    // What stands across two chunks is in the second one whole, with a byte before and a byte after it.
    let kept = texts.iter().map(String::len).max().unwrap_or(0) + 2;
    let mut buffer = vec![0; CHUNK + kept];
    let mut filled = 0;
    loop {
        let read = file.read(&mut buffer[filled..])?;
        let is_end = read == 0;
        let bytes = &buffer[..filled + read];
        if texts.iter().any(|text| stands_in(bytes, text, is_end, goes_on)) {
            return Ok(true);
        }
        if is_end {
            return Ok(false);
        }
        let keep = bytes.len().min(kept);
        let from = bytes.len() - keep;
        buffer.copy_within(from..from + keep, 0);
        filled = keep;
    }
}

fn stands_in(bytes: &[u8], text: &str, is_end: bool, goes_on: GoesOn) -> bool {
    let goes_on = |byte: &u8| goes_on(text, *byte);
    memchr::memmem::find_iter(bytes, text.as_bytes()).any(|at| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let after = bytes.get(at + text.len());
        // Without its next byte it is judged again in the next chunk.
        (after.is_some() || is_end) && !before.is_some_and(goes_on) && !after.is_some_and(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_wherever_it_stands_but_not_in_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("a/b");
        fs::create_dir_all(&inside).unwrap();
        let texts = ["203.0.113.9".to_owned()];
        // Across the border of two chunks, at the end, and as a part of others.
        for (name, at, text) in [
            ("border", CHUNK - 5, "203.0.113.9,"),
            ("end", 7, "203.0.113.9"),
            ("longer", 7, "203.0.113.90 1203.0.113.9 3.203.0.113.9"),
            ("no", 0, ""),
        ] {
            let mut bytes = vec![b'x'; at];
            bytes.extend(text.as_bytes());
            fs::write(inside.join(name), bytes).unwrap();
        }
        let found = with_any(folder.path(), &texts).unwrap();
        assert_eq!(found, [PathBuf::from("a/b/border"), PathBuf::from("a/b/end")]);
        assert_eq!(with_any(folder.path(), &[]).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_name_is_found_where_it_is_a_user_s_or_cannot_be_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("feeds")).unwrap();
        for (name, text) in [
            ("sessions.json", "{\"user\":\"anna\"}"),
            ("status.json", "{\"user\":\"anna-lena\",\"anna\":\"anna\"}"),
            ("log.db", "/anna/page"),
            ("log.db-wal", "anna"),
            ("log.db.corrupt-7", "GETannax"),
            ("feeds/list", "anna"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let found = with_name(folder.path(), "anna").unwrap();
        assert_eq!(found, [PathBuf::from("log.db.corrupt-7"), PathBuf::from("sessions.json")]);
        fs::write(folder.path().join("sessions.json"), "{\"user\":\"an\\\\na\"}").unwrap();
        assert_eq!(with_name(folder.path(), "an\\na").unwrap(), [PathBuf::from("sessions.json")]);
    }
}
