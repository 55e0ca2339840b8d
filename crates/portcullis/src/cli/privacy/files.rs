//! Looks for an address in every byte of a data folder.
//!
//! Owns the last word on an erasure: what the databases say they deleted is not what is on disk. Must not change a file.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Read at once.
const CHUNK: usize = 1 << 20;
/// Folders in folders.
const MAX_DEPTH: usize = 6;

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
        } else if kind.is_file() && holds(&data.join(&name), texts)? {
            found.push(name);
        }
    }
    Ok(())
}

fn holds(path: &Path, texts: &[String]) -> io::Result<bool> {
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
        if texts.iter().any(|text| stands_in(bytes, text.as_bytes(), is_end)) {
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

fn stands_in(bytes: &[u8], text: &[u8], is_end: bool) -> bool {
    let is_v6 = text.contains(&b':');
    let goes_on = |byte: &u8| match is_v6 {
        true => byte.is_ascii_hexdigit() || *byte == b':',
        false => byte.is_ascii_digit() || *byte == b'.',
    };
    memchr::memmem::find_iter(bytes, text).any(|at| {
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
}
