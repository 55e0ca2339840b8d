//! The data folder: rows that are lost, a disk that fills, clocks that disagree, who may read it.

use std::time::Duration;

use portcullis_model::UnixMs;

use super::facts::Facts;
use super::{Finding, Gravity};
use crate::cli::output::{bytes, count, number};
use crate::cli::time;

/// Rows may be this much ahead of the clock: a request is dated before it is looked at.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// A disk that is full sooner is an error.
const VERY_SOON: Duration = Duration::from_secs(2 * 86_400);
/// Below this a database cannot be kept at work.
const LEAST_FREE: u64 = 256 << 20;
/// From this stretch of traffic on a day can be foretold.
const TELLING_SPAN: Duration = Duration::from_secs(600);
/// Rows of a log from which its bytes per row are known; a small one is mostly empty pages.
const TELLING_ROWS: u64 = 50_000;
/// Bytes of a row where the log is too small to tell; measured on ordinary traffic.
const USUAL_ROW: u64 = 60;

/// Databases that cannot be read.
pub(super) fn databases(facts: &Facts<'_>) -> Vec<Finding> {
    let remedy = "Read it as the user that the gateway runs as. If it is damaged: stop the gateway, put a backup in \
                  its place or move it away, and start the gateway again.";
    let broken = facts.unreadable.iter();
    broken.map(|error| Finding::new("databases", Gravity::Error, error.clone(), remedy)).collect()
}

/// Rows that were lost, and a log that cannot be written.
pub(super) fn log_health(facts: &Facts<'_>) -> Vec<Finding> {
    const CHECK: &str = "log";
    let Some(status) = &facts.gateway else { return Vec::new() };
    let since = time::relative(UnixMs(status.started_at), facts.now);
    if status.log_is_failing && facts.running().is_some() {
        return vec![Finding::new(
            CHECK,
            Gravity::Error,
            format!(
                "the log cannot be written; {} have been lost since the gateway started {since}",
                count(status.rows_lost, "row")
            ),
            "Look at the disk of the data folder and at the gateway's own log. Traffic flows; writing goes on by \
             itself when the cause is gone.",
        )];
    }
    if status.rows_lost == 0 {
        return Vec::new();
    }
    vec![
        Finding::new(
            CHECK,
            Gravity::Warning,
            format!(
                "{} found no room in the log's queue since the gateway started {since} ({} failed to be written)",
                count(status.rows_lost, "row"),
                count(status.log_write_errors, "batch")
            ),
            "The disk was too slow for the traffic, or failed for a while. A longer queue bridges that, in [log]:",
        )
        .write(format!("queue = {}", facts.config.log.queue.saturating_mul(4))),
    ]
}

/// A disk that the log fills before retention or its maximum stop it.
pub(super) fn disk(facts: &Facts<'_>) -> Vec<Finding> {
    const CHECK: &str = "disk";
    let Some(disk) = facts.disk else { return Vec::new() };
    if disk.free < LEAST_FREE {
        return vec![Finding::new(
            CHECK,
            Gravity::Error,
            format!("{} of {} are free on the disk of the data folder", bytes(disk.free), bytes(disk.total)),
            "Make room, or put the data folder on another disk (data = ...).",
        )];
    }
    let Some(log) = facts.log else { return Vec::new() };
    if facts.traffic.span < TELLING_SPAN {
        return Vec::new();
    }
    let per_row = if log.rows < TELLING_ROWS { USUAL_ROW } else { (log.bytes / log.rows).max(1) };
    let rows_a_day = facts.traffic.rows as f64 / facts.traffic.span.as_secs_f64() * 86_400.0;
    let bytes_a_day = rows_a_day * per_row as f64;
    let retention = &facts.config.log;
    let days_kept = retention.retention.as_secs_f64() / 86_400.0;
    let grows_to = (bytes_a_day * days_kept).min(retention.max_bytes as f64);
    let growth = grows_to - log.bytes as f64;
    if growth < disk.free as f64 {
        return Vec::new();
    }
    let days = disk.free as f64 / bytes_a_day;
    let left = Duration::from_secs_f64(days * 86_400.0);
    let room = (disk.free / 2 + log.bytes) >> 20;
    vec![
        Finding::new(
            CHECK,
            if left < VERY_SOON { Gravity::Error } else { Gravity::Warning },
            format!(
                "the log grows by {} a day ({} rows) and would grow to {}, but {} are free: the disk is full in {}",
                bytes(bytes_a_day as u64),
                number(rows_a_day as u64),
                bytes(grows_to as u64),
                bytes(disk.free),
                time::span(left)
            ),
            "Keep less, in [log]; or make room:",
        )
        .write(format!("max_size = \"{room}MiB\"")),
    ]
}

/// Rows from the future: the clock was put back, or is wrong.
pub(super) fn clock(facts: &Facts<'_>) -> Vec<Finding> {
    let Some(log) = facts.log else { return Vec::new() };
    let ahead = log.last.since(facts.now);
    if ahead <= CLOCK_SLACK {
        return Vec::new();
    }
    vec![Finding::new(
        "clock",
        Gravity::Error,
        format!("the newest request in the log is {} ahead of this machine's clock", time::span(ahead)),
        "The clock was put back, or is wrong now: have it synchronised (timedatectl set-ntp true). Windows of the \
         detector and --since are wrong until then; limits and blocks in force are not.",
    )]
}

/// Databases that other accounts of the machine may read.
pub(super) fn permissions(facts: &Facts<'_>) -> Vec<Finding> {
    let data = &facts.config.data;
    // What is inside a closed folder cannot be reached.
    let open = facts.private.iter().find(|(path, mode)| path == data && mode & 0o005 == 0o005);
    let Some((path, mode)) = open else { return Vec::new() };
    let mut inside = facts
        .private
        .iter()
        .filter(|(file, mode)| file != data && file.starts_with(data) && mode & 0o004 != 0);
    let Some((file, _)) = inside.next() else { return Vec::new() };
    vec![
        Finding::new(
            "permissions",
            Gravity::Warning,
            format!(
                "every account of this machine may read {} (mode {mode:o} of {}): addresses and paths of all visitors",
                file.display(),
                path.display()
            ),
            "Close the folder to others:",
        )
        .write(format!("chmod o-rwx {}", path.display())),
    ]
}

/// Traffic that the gateway counts and that does not arrive in this log: the wrong data folder.
pub(super) fn unwatched(facts: &Facts<'_>) -> Vec<Finding> {
    const MIN_REQUESTS: u64 = 1_000;
    let Some(status) = facts.running() else { return Vec::new() };
    let is_missing = facts.traffic.rows == 0 && status.requests >= MIN_REQUESTS && !status.log_is_failing;
    if !is_missing {
        return Vec::new();
    }
    vec![Finding::new(
        "log",
        Gravity::Error,
        format!(
            "the gateway has counted {} in the last hour, and the log has none of them",
            count(status.requests, "request")
        ),
        "log.db was probably moved or replaced while the gateway ran: start the gateway again.",
    )]
}

#[cfg(test)]
mod tests {
    use super::super::facts::LogFacts;
    use super::super::facts::tests::{config, healthy};
    use super::*;
    use crate::machine::DiskSpace;

    #[test]
    fn a_log_that_fills_the_disk_is_foretold() {
        let config = config("");
        let mut facts = healthy(&config);
        // 1,000 requests a second make about 5 GB a day, and 10 GiB are the maximum.
        facts.traffic.rows = 3_600_000;
        assert_eq!(disk(&facts), Vec::new(), "the maximum fits");
        facts.disk = Some(DiskSpace { free: 8 << 30, total: 100 << 30 });
        let found = disk(&facts);
        assert_eq!(found[0].gravity, Gravity::Error, "{found:?}");
        assert!(found[0].seen.contains("86,400,000 rows"), "{found:?}");
        assert_eq!(found[0].write.as_deref(), Some("max_size = \"4098MiB\""));
        facts.traffic.rows = 300_000;
        facts.disk = Some(DiskSpace { free: 4 << 30, total: 100 << 30 });
        assert_eq!(disk(&facts)[0].gravity, Gravity::Warning);
        facts.traffic.span = Duration::from_secs(60);
        assert_eq!(disk(&facts), Vec::new(), "one busy minute tells nothing");
        facts.disk = Some(DiskSpace { free: 1 << 20, total: 100 << 30 });
        assert_eq!(disk(&facts)[0].gravity, Gravity::Error);
    }

    #[test]
    fn rows_from_the_future_are_found() {
        let config = config("");
        let mut facts = healthy(&config);
        let last = facts.now.plus(Duration::from_secs(7_200));
        facts.log = Some(LogFacts { rows: 1, last, bytes: 1 });
        assert!(clock(&facts)[0].seen.contains("2 h ahead"), "{:?}", clock(&facts));
        facts.log = Some(LogFacts { rows: 1, last: facts.now.plus(CLOCK_SLACK), bytes: 1 });
        assert_eq!(clock(&facts), Vec::new());
    }

    #[test]
    fn lost_rows_and_a_failing_log_are_found() {
        let config = config("");
        let mut facts = healthy(&config);
        facts.gateway.as_mut().unwrap().rows_lost = 12_345;
        let found = log_health(&facts);
        assert!(found[0].seen.contains("12,345 rows") && found[0].gravity == Gravity::Warning, "{found:?}");
        facts.gateway.as_mut().unwrap().log_is_failing = true;
        assert_eq!(log_health(&facts)[0].gravity, Gravity::Error);
    }

    #[test]
    fn only_what_can_be_reached_by_others_is_open() {
        let config = config("data = \"d\"");
        let mut facts = healthy(&config);
        for (folder, file, is) in [(0o755, 0o644, true), (0o700, 0o644, false), (0o755, 0o600, false)] {
            facts.private = vec![("d".into(), folder), ("d/log.db".into(), file)];
            assert_eq!(!permissions(&facts).is_empty(), is, "{folder:o} {file:o}");
        }
    }

    #[test]
    fn a_log_that_gets_nothing_of_the_traffic_is_found() {
        let config = config("");
        let mut facts = healthy(&config);
        facts.traffic.rows = 0;
        assert_eq!(unwatched(&facts).len(), 1);
        facts.gateway.as_mut().unwrap().requests = 5;
        assert_eq!(unwatched(&facts), Vec::new());
    }
}
