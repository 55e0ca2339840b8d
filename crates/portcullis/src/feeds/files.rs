//! What is kept of each feed: `NAME-FINGERPRINT.list`, the last good copy, a network per line, and
//! `NAME-FINGERPRINT.json`, how it was got. Both are replaced as a whole.
//!
//! The fingerprint is of where the feed comes from: a feed that moves begins anew. Must not fetch or decide.

use std::fs::{self, File};
use std::hash::Hasher as _;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ipnet::IpNet;
use portcullis_config::{Feed, FeedSource};
use portcullis_lists::{BadLine, Format, Limits, read};
use portcullis_model::UnixMs;
use portcullis_store::give_to_owner;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

pub(super) const FOLDER: &str = "feeds";
/// More than that is no status of ours.
const MAX_STATUS_BYTES: u64 = 1 << 20;
/// Bytes of the longest line of a copy.
const MAX_LINE: u64 = 64;

/// Where one feed is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) list: PathBuf,
    pub(crate) status: PathBuf,
}

/// How a feed was got, and what was in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The last try.
    pub(crate) checked_at: Option<UnixMs>,
    /// The last time that the copy was got, or found to be what is published still.
    pub(crate) fetched_at: Option<UnixMs>,
    pub(crate) format: String,
    /// Networks of the copy.
    pub(crate) entries: u64,
    /// Networks that no list may block.
    pub(crate) refused: u64,
    pub(crate) bad: u64,
    pub(crate) bad_lines: Vec<(u64, String, String)>,
    /// What tells the published list from a newer one: an ETag, a Last-Modified, or the file's stamp.
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
    pub(crate) stamp: Option<String>,
    /// Tries in a row that failed.
    pub(crate) failing: u32,
    pub(crate) failing_since: Option<UnixMs>,
    /// All tries that ever failed.
    pub(crate) failures: u64,
    pub(crate) error: Option<String>,
}

impl Status {
    /// Whether the copy is older than the feed may be, and so not in force.
    pub(crate) fn is_too_old(&self, feed: &Feed, now: UnixMs) -> bool {
        feed.max_age.is_some_and(|age| self.fetched_at.is_none_or(|at| now.since(at) > age))
    }

    pub(crate) fn show_bad(&mut self, lines: &[BadLine]) {
        let shown = lines.iter().map(|bad| (bad.line, bad.excerpt.clone(), bad.problem.clone()));
        self.bad_lines = shown.collect();
    }
}

impl Files {
    pub(crate) fn of(data: &Path, feed: &Feed) -> Self {
        Self::in_folder(data, FOLDER, feed)
    }

    /// For lists that are no feeds, and lie elsewhere in the data folder.
    pub(crate) fn in_folder(data: &Path, folder: &str, feed: &Feed) -> Self {
        let mut hasher = SipHasher13::new();
        match &feed.source {
            FeedSource::Url(url) => hasher.write(url.expose().as_bytes()),
            FeedSource::File(path) => hasher.write(path.as_os_str().as_encoded_bytes()),
        }
        hasher.write_u8(0);
        hasher.write(feed.format.map_or("auto", Format::as_str).as_bytes());
        let stem = format!("{}-{:016x}", feed.name, hasher.finish());
        let folder = data.join(folder);
        Self { list: folder.join(format!("{stem}.list")), status: folder.join(format!("{stem}.json")) }
    }

    /// `None` when the feed was never tried, or the file cannot be read.
    pub(crate) fn status(&self) -> Option<Status> {
        let is_ours = fs::metadata(&self.status).is_ok_and(|file| file.len() <= MAX_STATUS_BYTES);
        if !is_ours {
            return None;
        }
        serde_json::from_slice(&fs::read(&self.status).ok()?).ok()
    }

    pub(crate) fn write_status(&self, status: &Status) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(status)?;
        replace(&self.status, |out| Ok(out.write_all(&bytes)?))
    }

    pub(crate) fn write_list(&self, networks: &[IpNet]) -> anyhow::Result<()> {
        replace(&self.list, |out| {
            networks.iter().try_for_each(|network| writeln!(out, "{network}"))?;
            Ok(())
        })
    }

    /// The networks of the last good copy, each handed to `sink`; `None` when there is none.
    ///
    /// # Errors
    /// It is no copy as this program writes them.
    pub(crate) fn read_list(&self, max_entries: usize, sink: &mut dyn FnMut(IpNet)) -> anyhow::Result<bool> {
        let broken = || format!("{} is broken", self.list.display());
        let most = (max_entries as u64).saturating_mul(MAX_LINE);
        match fs::metadata(&self.list) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(broken),
            Ok(file) if file.len() > most => {
                anyhow::bail!("{} is larger than the feed may be", self.list.display())
            }
            Ok(_) => {}
        }
        let bytes = fs::read(&self.list).with_context(broken)?;
        let limits = Limits { max_entries, max_bad: 0.0 };
        read(Format::Plain, &bytes, limits, &mut |entry| sink(entry.network)).with_context(broken)?;
        Ok(true)
    }

    /// Forgets the feed, so that it is fetched as a new one.
    pub(crate) fn remove(&self) {
        for path in [&self.list, &self.status] {
            // What is not there is forgotten already.
            let _ = fs::remove_file(path);
        }
    }
}

/// The networks of a feed's copy that hold an address, and how the feed stands.
pub(crate) fn list_of(data: &Path, feed: &Feed, holds: impl Fn(&IpNet) -> bool) -> Vec<IpNet> {
    let mut found = Vec::new();
    let read = Files::of(data, feed).read_list(feed.max_entries, &mut |network| {
        if holds(&network) {
            found.push(network);
        }
    });
    if read.is_err() {
        found.clear();
    }
    found
}

/// Removes what is kept of feeds that are not in the configuration.
pub(super) fn remove_others(data: &Path, folder: &str, lists: &[&Feed]) {
    let kept: Vec<Files> = lists.iter().map(|feed| Files::in_folder(data, folder, feed)).collect();
    let Ok(entries) = fs::read_dir(data.join(folder)) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_ours = path.extension().is_some_and(|end| end == "list" || end == "json" || end == "new");
        if is_ours && !kept.iter().any(|files| files.list == path || files.status == path) {
            // The next run tries again.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Writes beside and renames when everything is on the disk.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let new = path.with_extension(match path.extension().is_some_and(|end| end == "list") {
        true => "list.new",
        false => "json.new",
    });
    let work = || -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            give_to_owner(folder);
        }
        let mut out = BufWriter::new(File::create(&new)?);
        write(&mut out)?;
        out.into_inner()?.sync_all()?;
        give_to_owner(&new);
        Ok(fs::rename(&new, path)?)
    };
    work().with_context(|| format!("cannot write {}", path.display()))
}
