//! The file `limits.journal`: read once at the start, then appended to, and written anew when most of it is old.
//! Must not decide how often.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_model::UnixMs;
use portcullis_policy::{Extent, Limiter, Secret};
use portcullis_proxy::Clock;

use super::format::{BootId, Head, Instant, append_frame, read_frame};

pub(crate) const FILE: &str = "limits.journal";
/// What of a file that cannot be used is kept for a person to look at.
const SET_ASIDE: &str = "limits.journal.unusable";
const NEW: &str = "limits.journal.new";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The file is written anew when it is twice as large as it was after the last time, and by so much at least.
const SMALLEST_GROWTH: u64 = 1 << 20;
const READ_BUFFER: usize = 256 << 10;

/// What the last gateway on this folder counted. `None` when there is nothing that can be used; what is no journal of
/// this version is set aside.
pub(super) fn load(data: &Path, clock: Clock) -> Option<Limiter> {
    let path = data.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("limits begin to count anew: cannot read {}: {error}", path.display());
            return None;
        }
    };
    let mut from = BufReader::with_capacity(READ_BUFFER, file);
    let now = clock.now();
    match read(&mut from, boot(), instant(now.wall), now.monotonic_ms) {
        Ok(Some(limiter)) => Some(limiter),
        Ok(None) => {
            let aside = data.join(SET_ASIDE);
            let moved = fs::rename(&path, &aside).map_or_else(
                |error| format!("and it cannot be moved away: {error}"),
                |()| format!("it is kept as {}", aside.display()),
            );
            tracing::warn!(
                "limits begin to count anew: {} is no journal of this version; {moved}",
                path.display()
            );
            None
        }
        Err(error) => {
            tracing::warn!("limits begin to count anew: cannot read {}: {error}", path.display());
            None
        }
    }
}

fn read(from: &mut impl Read, boot: BootId, now: Instant, now_ms: u64) -> std::io::Result<Option<Limiter>> {
    let Some(head) = Head::read(from)? else { return Ok(None) };
    let Some(limiter) = Limiter::with_secret(head.secret) else { return Ok(None) };
    let is_same_boot = head.is_of(boot);
    let mut numbers = Vec::new();
    while let Some(at) = read_frame(from, head.secret, &mut numbers)? {
        limiter.restore(&numbers, now.since(at, is_same_boot), now_ms);
    }
    Ok(Some(limiter))
}

/// Which start of the machine this is.
fn boot() -> BootId {
    let mut id = BootId::default();
    let text = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let mut digits = text.chars().filter_map(|c| c.to_digit(16));
    for byte in &mut id {
        let (high, low) = (digits.next(), digits.next());
        *byte = high.zip(low).map_or(0, |(high, low)| (high << 4 | low) as u8);
    }
    id
}

fn instant(wall: UnixMs) -> Instant {
    #[cfg(target_os = "linux")]
    let boot_ms = {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let ms = since_boot.tv_sec.saturating_mul(1_000).saturating_add(since_boot.tv_nsec / 1_000_000);
        u64::try_from(ms).unwrap_or(0)
    };
    // Without a name of the start it is never looked at.
    #[cfg(not(target_os = "linux"))]
    let boot_ms = 0;
    Instant { wall, boot_ms }
}

/// The file as one process writes it.
pub(super) struct Journal {
    data: PathBuf,
    /// What is appended to; `None` before the first writing, and after a failure.
    open: Option<Open>,
    /// The file of the last gateway, or one that may end in half a frame.
    is_stale: bool,
    buffer: Vec<u8>,
}

/// How the windows of busy clients are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    /// In few numbers, and without keeping requests waiting.
    Short,
    /// Request by request; when no more of them come.
    Exact,
}

struct Open {
    file: File,
    bytes: u64,
    /// After the last writing anew.
    bytes_when_new: u64,
}

impl Journal {
    pub(super) fn new(data: &Path) -> Self {
        let is_stale = data.join(FILE).exists();
        Self { data: data.to_owned(), open: None, is_stale, buffer: Vec::new() }
    }

    /// Writes what has changed; returns how many bytes that were. Where nothing was ever counted there is no file.
    ///
    /// # Errors
    /// The file cannot be written; the next call writes it anew.
    pub(super) fn write(&mut self, limiter: &Limiter, clock: Clock) -> anyhow::Result<u64> {
        let is_due = self.open.as_ref().is_some_and(|open| {
            open.bytes > open.bytes_when_new.saturating_mul(2).saturating_add(SMALLEST_GROWTH)
        });
        if self.is_stale || is_due {
            return self.write_anew(limiter, clock, Whole::Short);
        }
        let now = clock.now();
        let (secret, at) = (limiter.secret(), instant(now.wall));
        let mut written = Ok(0);
        limiter.write_down(Extent::Changed, now.monotonic_ms, &mut |numbers| {
            written = self.append(secret, at, numbers).map(|bytes| written.as_ref().unwrap_or(&0) + bytes);
            written.is_ok()
        });
        if written.is_err() {
            self.open = None;
            self.is_stale = true;
        }
        written.with_context(|| format!("cannot write {}", self.data.join(FILE).display()))
    }

    /// Writes everything as it is, to the last request.
    ///
    /// # Errors
    /// The file cannot be written; then the old one is still there.
    pub(super) fn finish(&mut self, limiter: &Limiter, clock: Clock) -> anyhow::Result<u64> {
        if self.open.is_none() && !self.is_stale && limiter.stats().keys == 0 {
            return Ok(0);
        }
        self.write_anew(limiter, clock, Whole::Exact)
    }

    fn append(&mut self, secret: Secret, at: Instant, numbers: &[u64]) -> std::io::Result<u64> {
        self.buffer.clear();
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let file = create(&self.data.join(FILE))?;
                self.buffer.extend(Head { secret, boot: boot() }.bytes());
                self.open.insert(Open { file, bytes: 0, bytes_when_new: 0 })
            }
        };
        append_frame(&mut self.buffer, secret, at, numbers);
        open.file.write_all(&self.buffer)?;
        let bytes = self.buffer.len() as u64;
        open.bytes += bytes;
        Ok(bytes)
    }

    /// Writes a new file beside the old one, and puts it in its place when it is whole.
    fn write_anew(&mut self, limiter: &Limiter, clock: Clock, whole: Whole) -> anyhow::Result<u64> {
        // What is given counts as written: a failure must not leave the old file to be appended to.
        self.open = None;
        self.is_stale = true;
        let (path, new) = (self.data.join(FILE), self.data.join(NEW));
        let now = clock.now();
        let (secret, at) = (limiter.secret(), instant(now.wall));
        let written = create(&new).and_then(|mut file| {
            let head = Head { secret, boot: boot() }.bytes();
            file.write_all(&head)?;
            let mut written = Ok(head.len() as u64);
            let mut take = |numbers: &[u64]| {
                self.buffer.clear();
                append_frame(&mut self.buffer, secret, at, numbers);
                let bytes = self.buffer.len() as u64;
                written = file.write_all(&self.buffer).map(|()| written.as_ref().unwrap_or(&0) + bytes);
                written.is_ok()
            };
            match whole {
                Whole::Short => limiter.write_down(Extent::All, now.monotonic_ms, &mut take),
                Whole::Exact => limiter.export(now.monotonic_ms, &mut take),
            }
            let bytes = written?;
            file.sync_data()?;
            fs::rename(&new, &path)?;
            Ok((file, bytes))
        });
        let (file, bytes) = written.with_context(|| format!("cannot write {}", path.display()))?;
        self.open = Some(Open { file, bytes, bytes_when_new: bytes });
        self.is_stale = false;
        Ok(bytes)
    }
}

/// An empty file for the owner alone: whoever knows the secret in it can choose addresses that collide.
fn create(path: &Path) -> std::io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use portcullis_policy::{Admission, LimitRule, Rate, Subject};

    use super::*;

    fn rule() -> LimitRule {
        LimitRule::per_client("login", Rate::new(3, Duration::from_secs(300)).unwrap())
    }

    fn subject(client: u32) -> Subject<'static> {
        Subject::Client(IpAddr::V4(Ipv4Addr::from_bits(client)))
    }

    fn is_admitted(limiter: &Limiter, client: u32, now_ms: u64) -> bool {
        matches!(limiter.admit(&rule(), &subject(client), now_ms), Admission::Admitted { .. })
    }

    fn use_up(limiter: &Limiter, clock: Clock, client: u32) {
        let now_ms = clock.now().monotonic_ms;
        while is_admitted(limiter, client, now_ms) {}
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_written_before_a_kill_is_counted_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let mut journal = Journal::new(folder.path());
        let limiter = Limiter::default();
        assert_eq!(journal.write(&limiter, clock).unwrap(), 0);
        assert_eq!(names(folder.path()), Vec::<String>::new(), "nothing was counted");
        for client in 0..100 {
            use_up(&limiter, clock, client);
            journal.write(&limiter, clock).unwrap();
        }
        assert_eq!(journal.write(&limiter, clock).unwrap(), 0, "nothing has changed");
        assert_eq!(names(folder.path()), [FILE]);
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Half a frame, as a kill in the middle of a write leaves it.
        let bytes = fs::read(folder.path().join(FILE)).unwrap();
        fs::write(folder.path().join(FILE), &bytes[..bytes.len() - 9]).unwrap();

        let clock = Clock::start();
        let restored = load(folder.path(), clock).unwrap();
        let now_ms = clock.now().monotonic_ms;
        for client in 0..99 {
            assert!(!is_admitted(&restored, client, now_ms), "client {client}");
        }
        assert!(is_admitted(&restored, 99, now_ms), "the one of the last half frame");
        let mut journal = Journal::new(folder.path());
        journal.write(&restored, clock).unwrap();
        assert_eq!(names(folder.path()), [FILE], "written anew, after half a frame nothing can be appended");
        assert!(!is_admitted(&load(folder.path(), clock).unwrap(), 98, now_ms));
    }

    #[test]
    fn the_file_stays_within_a_small_multiple_of_what_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (clock, limiter) = (Clock::start(), Limiter::default());
        let mut journal = Journal::new(folder.path());
        let wide = LimitRule::per_client("wide", Rate::new(256, Duration::from_secs(300)).unwrap());
        let mut written = 0;
        for _ in 0..100 {
            for client in 0..1_000 {
                limiter.admit(&wide, &subject(client), clock.now().monotonic_ms);
            }
            written += journal.write(&limiter, clock).unwrap();
            let bytes = fs::metadata(folder.path().join(FILE)).unwrap().len();
            assert!(bytes <= 2 * SMALLEST_GROWTH, "{bytes}");
        }
        assert!(written > 2 * SMALLEST_GROWTH, "{written}: it was never written anew");
    }

    #[test]
    fn an_orderly_end_writes_every_request_with_its_own_time() {
        let folder = tempfile::tempdir().unwrap();
        let (clock, limiter) = (Clock::start(), Limiter::default());
        let mut wide = rule();
        wide.rate = Rate::new(200, Duration::from_secs(300)).ok();
        let subject = subject(1);
        for now_ms in 0..200 {
            limiter.admit(&wide, &subject, now_ms);
        }
        Journal::new(folder.path()).finish(&limiter, clock).unwrap();
        let bytes = fs::metadata(folder.path().join(FILE)).unwrap().len();
        assert!(bytes > 200 * 8, "{bytes}");
        let restored = load(folder.path(), clock).unwrap();
        assert!(matches!(
            restored.admit(&wide, &subject, clock.now().monotonic_ms),
            Admission::Refused { .. }
        ));
    }

    #[test]
    fn garbage_is_set_aside_and_a_new_file_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (clock, limiter) = (Clock::start(), Limiter::default());
        for garbage in ["", "PCLIMIT9 of a later version", "{}"] {
            fs::write(folder.path().join(FILE), garbage).unwrap();
            assert!(load(folder.path(), clock).is_none());
            assert_eq!(names(folder.path()), [SET_ASIDE]);
            assert_eq!(fs::read_to_string(folder.path().join(SET_ASIDE)).unwrap(), garbage);
        }
        use_up(&limiter, clock, 1);
        Journal::new(folder.path()).write(&limiter, clock).unwrap();
        assert!(load(folder.path(), clock).is_some());
    }

    #[test]
    fn after_a_failure_everything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (clock, limiter) = (Clock::start(), Limiter::default());
        let mut journal = Journal::new(folder.path());
        use_up(&limiter, clock, 1);
        journal.write(&limiter, clock).unwrap();
        // A folder in the place of the file cannot be replaced by a file.
        journal.is_stale = true;
        fs::remove_file(folder.path().join(FILE)).unwrap();
        fs::create_dir_all(folder.path().join(FILE).join("in the way")).unwrap();
        use_up(&limiter, clock, 2);
        let why = journal.write(&limiter, clock).unwrap_err();
        assert!(format!("{why:#}").contains(FILE), "{why:#}");
        fs::remove_dir_all(folder.path().join(FILE)).unwrap();
        journal.write(&limiter, clock).unwrap();
        let restored = load(folder.path(), clock).unwrap();
        let now_ms = clock.now().monotonic_ms;
        assert!(!is_admitted(&restored, 1, now_ms) && !is_admitted(&restored, 2, now_ms));
    }
}
