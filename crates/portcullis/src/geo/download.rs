//! Gets files of locations from where the configuration says: whole, checked, and put in place by a rename, so
//! that whatever goes wrong the last good file stays. Must not load them: whoever runs notices the new file.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail, ensure};
use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use portcullis_config::{GeoDownload, format_size};
use portcullis_fetch::{Fetcher, Request, Settings, masked};
use portcullis_geo::{DatabaseStatus, GeoError, inspect};
use ring::digest::{SHA256, digest};

use super::http::USER_AGENT;

/// For a whole file, however slow the line.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The unit of a tar archive; where its mark is in the first one, and what of a file's entry is where.
const TAR_BLOCK: usize = 512;
const TAR_MARK: (usize, &[u8]) = (257, b"ustar");
const TAR_NAME: std::ops::Range<usize> = 0..100;
const TAR_SIZE: std::ops::Range<usize> = 124..136;
const TAR_KIND: usize = 156;
/// Entries of an archive that are looked at: there are a licence and a read-me beside the file.
const MAX_TAR_ENTRIES: usize = 100;

/// What became of a download.
#[derive(Clone, Debug)]
pub(crate) enum Downloaded {
    /// A new file is in place.
    Replaced(DatabaseStatus),
    /// The server has nothing newer.
    Unchanged,
}

/// Whether the file is missing or older than it may become.
pub(crate) fn due(download: &GeoDownload, now: SystemTime) -> bool {
    let modified = fs::metadata(&download.file).and_then(|metadata| metadata.modified());
    // A time in the future says nothing.
    modified.map_or(true, |at| now.duration_since(at).is_ok_and(|age| age >= download.interval))
}

/// Downloads one file and puts it in place; `if_newer` asks the server for one that is newer than the one that
/// is there.
///
/// # Errors
/// One sentence about what is wrong; then the file that was there is there still.
pub(crate) fn update(download: &GeoDownload, if_newer: bool, now: SystemTime) -> anyhow::Result<Downloaded> {
    let url = download.url.expose();
    let settings = Settings { timeout: TIMEOUT, user_agent: USER_AGENT.to_owned(), ca: None };
    let mut request = Request::get(url, download.max_bytes).header("Accept", "*/*");
    if if_newer && let Some(since) = good_since(&download.file) {
        request = request.header("If-Modified-Since", since);
    }
    let response = Fetcher::new(settings)?.send(&request)?;
    match response.status {
        304 => {
            // From now on it counts as new: it is asked for again after the interval.
            let touched =
                File::options().append(true).open(&download.file).and_then(|file| file.set_modified(now));
            touched.with_context(|| format!("cannot touch {}", download.file.display()))?;
            return Ok(Downloaded::Unchanged);
        }
        401 | 403 => bail!(
            "{} refuses with status {}; check the account and the key in the URL",
            masked(url),
            response.status
        ),
        status if !response.is_success() => bail!("{} answered with status {status}", masked(url)),
        _ => {}
    }
    if let Some(expected) = &download.sha256 {
        let found = hex(digest(&SHA256, &response.body).as_ref());
        ensure!(
            *expected == found,
            "what {} sent has the SHA-256 checksum {found} and not the one of the configuration",
            masked(url)
        );
    }
    put_in_place(&response.body, download)
        .with_context(|| format!("what {} sent cannot be used", masked(url)))
        .map(Downloaded::Replaced)
}

/// When the file was downloaded, as the server is asked; `None` when there is none that is of use.
fn good_since(file: &Path) -> Option<String> {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified()).ok()?;
    inspect(file).ok()?;
    DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::try_from(modified).ok()?).ok()
}

fn put_in_place(body: &[u8], download: &GeoDownload) -> anyhow::Result<DatabaseStatus> {
    let temporary = Temporary::beside(&download.file)?;
    let written = temporary.fill(body, download.max_bytes);
    written.with_context(|| format!("cannot write {}", temporary.path.display()))?;
    // Nobody knows the temporary name.
    let renamed = |error: GeoError| {
        let (own, known) = (temporary.path.display().to_string(), download.file.display().to_string());
        anyhow!("{}", error.to_string().replace(&own, &known))
    };
    let mut status = inspect(&temporary.path).map_err(renamed)?;
    fs::rename(&temporary.path, &download.file)
        .with_context(|| format!("cannot put it in the place of {}", download.file.display()))?;
    status.path.clone_from(&download.file);
    // What is not on disk yet would be an old file after a power cut, and that is good enough to go on.
    if let Some(folder) = folder(&download.file) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(status)
}

fn folder(file: &Path) -> Option<&Path> {
    file.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

/// A file beside the one that it will replace; gone when it is dropped, unless it was renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn beside(file: &Path) -> anyhow::Result<Self> {
        let name = file.file_name().context("the file has no name")?.to_string_lossy();
        let path = file.with_file_name(format!(".{name}.{}.download", std::process::id()));
        Ok(Self { path })
    }

    /// Unpacks what came. Readable for all: there is nothing secret in it, and another user may run commands.
    fn fill(&self, body: &[u8], max: u64) -> io::Result<()> {
        let file = File::options().write(true).create(true).truncate(true).mode(0o644).open(&self.path)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        let mut out = BufWriter::new(file);
        let mut unpacked: Box<dyn Read + '_> =
            if body.starts_with(&GZIP) { Box::new(MultiGzDecoder::new(body)) } else { Box::new(body) };
        let mut start = Vec::new();
        (&mut unpacked).take(TAR_BLOCK as u64).read_to_end(&mut start)?;
        let written = if is_tar(&start) {
            copy_of_tar(start, &mut unpacked, &mut out, max)?
        } else {
            io::copy(&mut start.as_slice().chain(unpacked).take(max.saturating_add(1)), &mut out)?
        };
        if written > max {
            return Err(io::Error::other(format!("it is larger than {} unpacked", format_size(max))));
        }
        out.flush()?;
        out.get_ref().sync_all()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already when all went well.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_tar(start: &[u8]) -> bool {
    let (at, mark) = TAR_MARK;
    start.get(at..at + mark.len()) == Some(mark)
}

/// Copies the first `.mmdb` file of an archive, of which `header` has been read.
fn copy_of_tar(
    mut header: Vec<u8>,
    rest: &mut impl Read,
    out: &mut impl io::Write,
    max: u64,
) -> io::Result<u64> {
    for _ in 0..MAX_TAR_ENTRIES {
        if !is_tar(&header) {
            break;
        }
        let size = tar_size(&header).ok_or_else(|| io::Error::other("the archive is damaged"))?;
        let name = header[TAR_NAME].split(|&b| b == 0).next().unwrap_or_default();
        if matches!(header[TAR_KIND], b'0' | 0) && name.ends_with(b".mmdb") {
            return io::copy(&mut rest.by_ref().take(size.min(max.saturating_add(1))), out);
        }
        // What is beside the file is small.
        let padded = size.checked_next_multiple_of(TAR_BLOCK as u64).filter(|padded| *padded <= max);
        let padded = padded.ok_or_else(|| io::Error::other("the archive is too large"))?;
        io::copy(&mut rest.by_ref().take(padded), &mut io::sink())?;
        header.clear();
        rest.by_ref().take(TAR_BLOCK as u64).read_to_end(&mut header)?;
    }
    Err(io::Error::other("the archive has no .mmdb file"))
}

/// Octal digits, at most eleven.
fn tar_size(header: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(header.get(TAR_SIZE)?).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
