//! Slices: rolled, indexed, dropped, and the file kept within its bound.

use std::ops::ControlFlow;
use std::time::Duration;

use portcullis_model::UnixMs;
use portcullis_store::{Log, LogFilter, LogReader, LogSettings, NoEnrichment};

use crate::support::{assert_sound, count, now, plain, request_to, write};

fn fill(log: &Log, rows: std::ops::Range<u32>, at: UnixMs) {
    for part in rows.clone().step_by(4_000) {
        let end = rows.end.min(part + 4_000);
        write(
            log,
            (part..end).map(|n| {
                let client = format!("10.0.{}.{}", n / 250 % 250, n % 250);
                request_to(
                    n,
                    at.plus(Duration::from_millis(n.into())),
                    &client,
                    &format!("/{}", n % 500),
                    200,
                )
            }),
        );
    }
}

#[test]
fn rows_older_than_the_retention_go() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogSettings::default(), Box::new(NoEnrichment)).unwrap();
    fill(&log, 0..5_000, now().minus(Duration::from_secs(7_200)));
    assert_eq!(count(dir.path()), 5_000);
    let hour = LogSettings { retention: Duration::from_secs(3_600), ..LogSettings::default() };
    log.apply(&hour);
    log.flusher().flush().unwrap();
    assert_eq!(count(dir.path()), 0);
    fill(&log, 0..100, now());
    log.apply(&hour);
    log.flusher().flush().unwrap();
    assert_eq!(count(dir.path()), 100, "younger rows stay");
    let tables: i64 = plain(dir.path())
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'requests_%'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1, "nothing is left of the dropped slice");
    drop(log);
    assert_sound(dir.path(), "log.db");
}

#[test]
fn the_log_stays_within_its_bytes_and_keeps_the_newest_rows() {
    let dir = tempfile::tempdir().unwrap();
    let max_bytes = 8 << 20;
    let settings = LogSettings { max_bytes, ..LogSettings::default() };
    let log = Log::start(dir.path(), settings, Box::new(NoEnrichment)).unwrap();
    let total = 260_000;
    let mut largest = 0;
    for part in (0..total).step_by(20_000) {
        fill(&log, part..part + 20_000, now());
        largest = largest.max(log.stats().bytes_on_disk());
    }
    assert!(largest <= max_bytes, "{largest} bytes");
    let reader = LogReader::open(dir.path()).unwrap();
    let kept = reader.count().unwrap();
    assert!((50_000..total.into()).contains(&kept), "{kept} rows are kept");
    assert_eq!(count(dir.path()), kept, "the view shows all slices");
    let newest = reader.rows(&LogFilter::default(), 1).unwrap().remove(0);
    assert_eq!(newest.id.random(), total - 1);
    // The kept rows are the newest without a gap.
    let mut expected = total - u32::try_from(kept).unwrap();
    reader
        .visit(UnixMs(0), UnixMs(i64::MAX), &mut |row| {
            assert_eq!(row.id.random(), expected);
            assert_eq!(row.path, format!("/{}", expected % 500));
            expected += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(expected, total);
    drop(log);
    assert_sound(dir.path(), "log.db");
}

#[test]
fn a_lowered_bound_shrinks_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogSettings::default(), Box::new(NoEnrichment)).unwrap();
    let slices = LogSettings { max_bytes: 64 << 20, ..LogSettings::default() };
    log.apply(&slices);
    fill(&log, 0..200_000, now());
    let before = log.stats().bytes_on_disk();
    assert!(before > 8 << 20);
    log.apply(&LogSettings { max_bytes: 4 << 20, ..slices });
    log.flusher().flush().unwrap();
    let after = log.stats().bytes_on_disk();
    assert!(after <= 4 << 20, "{before} -> {after} bytes");
    assert!(count(dir.path()) > 0);
    drop(log);
    assert_sound(dir.path(), "log.db");
}

#[test]
fn a_sealed_slice_gets_its_index_and_answers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings { max_bytes: 16 << 20, ..LogSettings::default() };
    let log = Log::start(dir.path(), settings.clone(), Box::new(NoEnrichment)).unwrap();
    fill(&log, 0..12_000, now());
    log.apply(&settings);
    log.flusher().flush().unwrap();
    let indexed: i64 = plain(dir.path())
        .query_row("SELECT count(*) FROM slices WHERE sealed_ms IS NOT NULL AND indexed", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert!(indexed >= 1);
    let reader = LogReader::open(dir.path()).unwrap();
    let client = "10.0.3.7".parse().unwrap();
    let report = reader.client_report(client, UnixMs(0), UnixMs(i64::MAX), &|_| false).unwrap();
    assert_eq!(report.requests, 1);
    let plain: i64 = plain(dir.path())
        .query_row("SELECT count(*) FROM request_log WHERE ip = '10.0.3.7'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(plain, 1);
}

#[test]
fn a_reader_of_a_dropped_slice_goes_on_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings { max_bytes: 16 << 20, ..LogSettings::default() };
    let log = Log::start(dir.path(), settings.clone(), Box::new(NoEnrichment)).unwrap();
    fill(&log, 0..60_000, now());
    assert!(log.stats().slices() > 3);
    let reader = LogReader::open(dir.path()).unwrap();
    let mut seen = 0_u64;
    let tiny = LogSettings { max_bytes: 2 << 20, ..settings };
    reader
        .visit(UnixMs(0), UnixMs(i64::MAX), &mut |_| {
            if seen == 0 {
                log.apply(&tiny);
                log.flusher().flush().unwrap();
            }
            seen += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!((1..60_000).contains(&seen), "{seen} rows seen");
    assert!(count(dir.path()) < 60_000);
}
