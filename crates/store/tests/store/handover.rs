//! A log that changes hands between two processes, here two writers of one folder.

use std::time::Duration;

use portcullis_store::{Log, LogSettings, NoEnrichment, StoreError};
use rusqlite::Connection;

use crate::support::{assert_sound, count, now, request, start, write};

#[test]
fn a_released_log_can_be_written_by_another_and_what_waits_is_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let old = start(dir.path());
    write(&old, (0..10).map(|n| request(n, now())));
    old.recorder().offer(request(10, now()));
    old.release().unwrap();
    assert_eq!(count(dir.path()), 11, "a release commits what was offered before");

    let new = start(dir.path());
    for n in 11..20 {
        assert!(old.recorder().offer(request(n, now())), "a released log still takes requests");
    }
    let recorder = new.recorder();
    assert!(old.hand_over(Duration::ZERO, &mut |record| recorder.offer(record.clone())));
    write(&new, (20..30).map(|n| request(n, now())));
    assert_eq!(count(dir.path()), 30);
    let stats = old.stats();
    assert_eq!((stats.handed_over(), stats.queued(), stats.dropped()), (9, 0, 0));
    old.shutdown();
    new.shutdown();
    assert_sound(dir.path(), "log.db");
}

#[test]
fn a_log_that_nobody_took_goes_on_with_what_has_waited() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    log.release().unwrap();
    let other = start(dir.path());
    assert!(matches!(log.resume(), Err(StoreError::InUse(_))), "the other one has it");
    write(&other, (0..5).map(|n| request(n, now())));
    for n in 5..9 {
        assert!(log.recorder().offer(request(n, now())));
    }
    other.shutdown();
    log.resume().unwrap();
    write(&log, [request(9, now())]);
    assert_eq!((count(dir.path()), log.stats().dropped()), (10, 0));
    log.shutdown();
    assert_sound(dir.path(), "log.db");
}

#[test]
fn what_nobody_takes_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    log.release().unwrap();
    for n in 0..5 {
        log.recorder().offer(request(n, now()));
    }
    assert!(!log.hand_over(Duration::ZERO, &mut |_| false));
    let stats = log.stats();
    assert_eq!((stats.dropped(), stats.queued()), (1, 4));
    log.shutdown();
    assert_eq!((stats.dropped(), stats.queued(), count(dir.path())), (5, 0, 0));
}

#[test]
fn a_log_that_cannot_be_written_is_not_released() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings { flush_interval: Duration::from_secs(60), ..LogSettings::default() };
    let log = Log::start(dir.path(), settings, Box::new(NoEnrichment)).unwrap();
    let blocker = Connection::open(dir.path().join("log.db")).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    log.recorder().offer(request(0, now()));
    assert!(log.release().is_err());
    blocker.execute_batch("ROLLBACK").unwrap();
    log.flusher().flush().unwrap();
    assert_eq!((count(dir.path()), log.stats().dropped()), (1, 0));
}
