//! Locks, damage, crashes, versions.

use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_model::{ClientIp, Location, RequestRecord, UnixMs};
use portcullis_store::{Enrich, Log, LogReader, LogSettings, NoEnrichment, State, StoreError, give_to_owner};
use rusqlite::Connection;

use crate::support::{assert_sound, count, now, plain, request, request_to, start, write};

#[test]
fn a_locked_database_loses_nothing_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    write(&log, (0..10).map(|n| request(n, now())));
    let blocker = Connection::open(dir.path().join("log.db")).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let recorder = log.recorder();
    for n in 10..5_000 {
        assert!(recorder.offer(request_to(n, now(), "192.0.2.1", &format!("/{}", n % 7), 200)));
    }
    // Long enough for the writer's own waiting to run out.
    let patience = std::time::Instant::now() + Duration::from_secs(60);
    while log.stats().write_errors() == 0 {
        assert!(std::time::Instant::now() < patience, "the writer never noticed the lock");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(log.stats().is_failing());
    blocker.execute_batch("ROLLBACK").unwrap();
    log.flusher().flush().unwrap();
    assert!(!log.stats().is_failing());
    assert_eq!((log.stats().written(), log.stats().dropped()), (5_000, 0));
    let connection = plain(dir.path());
    let distinct: i64 =
        connection.query_row("SELECT count(DISTINCT id) FROM request_log", [], |row| row.get(0)).unwrap();
    assert_eq!((distinct, count(dir.path())), (5_000, 5_000));
}

#[test]
fn a_batch_that_fails_half_way_is_written_whole_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    write(&log, [request_to(0, now(), "192.0.2.1", "/known", 200)]);
    // A trigger stands in for a disk that fails in the middle of a batch.
    let other = Connection::open(dir.path().join("log.db")).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER fail BEFORE INSERT ON requests_1 WHEN NEW.rowid = 500
             BEGIN SELECT RAISE(ABORT, 'disk on fire'); END",
        )
        .unwrap();
    let recorder = log.recorder();
    for n in 1..1_000 {
        assert!(recorder.offer(request_to(
            n,
            now(),
            &format!("10.0.0.{}", n % 200),
            &format!("/{}", n % 50),
            200
        )));
    }
    let patience = std::time::Instant::now() + Duration::from_secs(60);
    while log.stats().write_errors() == 0 {
        assert!(std::time::Instant::now() < patience, "the writer never failed");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(count(dir.path()), 1, "nothing of a failed batch is there");
    other.execute_batch("DROP TRIGGER fail").unwrap();
    log.flusher().flush().unwrap();
    let reader = LogReader::open(dir.path()).unwrap();
    let mut expected = 0;
    reader
        .visit(UnixMs(0), UnixMs(i64::MAX), &mut |row| {
            assert_eq!(row.id.random(), expected);
            if expected > 0 {
                assert_eq!(row.path, format!("/{}", expected % 50));
                assert_eq!(row.client.to_string(), format!("10.0.0.{}", expected % 200));
            }
            expected += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(expected, 1_000);
}

#[test]
fn a_forgotten_reader_stops_the_write_ahead_log_from_growing_without_bound() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings { max_bytes: 256 << 20, ..LogSettings::default() };
    let log = Log::start(dir.path(), settings, Box::new(NoEnrichment)).unwrap();
    write(&log, [request(0, now())]);
    let forgotten = plain(dir.path());
    forgotten.execute_batch("BEGIN; SELECT count(*) FROM slices").unwrap();
    let long = "x".repeat(2_000);
    let recorder = log.recorder();
    let (mut offered, mut taken) = (1_u64, 1_u64);
    let patience = std::time::Instant::now() + Duration::from_secs(120);
    while !log.stats().is_failing() {
        assert!(std::time::Instant::now() < patience, "the write-ahead log grows on");
        for n in 0..500 {
            offered += 1;
            taken += u64::from(recorder.offer(request_to(
                n,
                now(),
                "192.0.2.1",
                &format!("/{offered}{long}"),
                200,
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let wal = std::fs::metadata(dir.path().join("log.db-wal")).unwrap().len();
    assert!(wal < 192 << 20, "{wal} bytes");
    // The queue is bounded by bytes too.
    for n in 0..60_000 {
        offered += 1;
        taken += u64::from(recorder.offer(request_to(n, now(), "192.0.2.1", &format!("/{n}{long}"), 200)));
    }
    assert!(log.stats().dropped() > 20_000);
    drop(forgotten);
    log.flusher().flush().unwrap();
    assert_eq!((log.stats().written(), log.stats().dropped()), (taken, offered - taken));
    assert_eq!(LogReader::open(dir.path()).unwrap().count().unwrap(), taken);
}

#[test]
fn a_damaged_log_is_moved_aside_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log.db"), b"this is certainly no database, nor was it ever one").unwrap();
    let log = start(dir.path());
    write(&log, [request(1, now())]);
    assert_eq!(count(dir.path()), 1);
    let kept: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with("log.db.corrupt-"))
        .collect();
    assert_eq!(kept.len(), 1);
    assert!(std::fs::read(kept[0].path()).unwrap().starts_with(b"this is certainly"));
}

#[test]
fn a_log_that_is_deleted_while_running_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    write(&log, [request(1, now())]);
    for name in ["log.db", "log.db-wal", "log.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(name));
    }
    write(&log, [request(2, now())]);
    assert_eq!(count(dir.path()), 1);
    assert_eq!(log.stats().written(), 2);
}

#[test]
fn a_log_that_breaks_while_running_is_replaced_and_logging_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    write(&log, (0..20_000).map(|n| request_to(n, now(), "192.0.2.1", &format!("/{n}"), 200)));
    let path = dir.path().join("log.db");
    // Empty the write-ahead log, then overwrite everything after the header, as a broken disk would.
    Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xA5; length - 100], 100).unwrap();
    drop(file);
    write(&log, (0..20_000).map(|n| request(n, now())));
    // What was written before is in the file that was kept; what came after is complete, unless it went
    // into pages that the writer still had in memory.
    assert_eq!(log.stats().queued(), 0);
    assert_eq!(log.stats().dropped(), 0);
    log.shutdown();
    let log = start(dir.path());
    write(&log, [request(1, now())]);
    assert!(count(dir.path()) >= 1);
    drop(log);
    assert_sound(dir.path(), "log.db");
}

#[test]
fn databases_of_a_newer_version_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path()));
    drop(State::open(dir.path()).unwrap());
    for name in ["log.db", "state.db"] {
        Connection::open(dir.path().join(name)).unwrap().pragma_update(None, "user_version", 99).unwrap();
    }
    let log = Log::start(dir.path(), LogSettings::default(), Box::new(NoEnrichment)).map(|_| ());
    let errors = [
        log,
        LogReader::open(dir.path()).map(|_| ()),
        State::open(dir.path()).map(|_| ()),
        State::open_read_only(dir.path()).map(|_| ()),
    ];
    for error in errors.map(Result::unwrap_err) {
        assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
        assert!(error.to_string().contains("schema version 99"), "{error}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let folder = file.join("data");
    let errors = [
        Log::start(&folder, LogSettings::default(), Box::new(NoEnrichment)).map(|_| ()).unwrap_err(),
        State::open(&folder).map(|_| ()).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(text.contains(folder.to_str().unwrap()) && text.contains("--data"), "{text}");
    }
}

#[test]
fn folder_and_files_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/data");
    let _log = start(&data);
    let _state = State::open(&data).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for name in ["log.db", "state.db"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
}

const CHILD_FOLDER: &str = "PORTCULLIS_STORE_TEST_FOLDER";

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "runs as the child of a_killed_gateway_keeps_every_committed_row"]
fn child_that_is_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let log = start(Path::new(&folder));
    for batch in 0_u32.. {
        write(
            &log,
            (0..1_000).map(|n| request_to(batch * 1_000 + n, now(), "192.0.2.1", &format!("/{n}"), 200)),
        );
        println!("committed {}", log.stats().written());
    }
}

#[test]
fn a_killed_gateway_keeps_every_committed_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "failures::child_that_is_killed", "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let committed: u64 = lines
        .by_ref()
        .filter_map(|line| line.split_once("committed ").and_then(|(_, number)| number.trim().parse().ok()))
        .find(|rows| *rows >= 20_000)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = LogReader::open(dir.path()).unwrap().count().unwrap();
    assert!(kept >= committed, "{kept} of {committed} rows");
    assert_sound(dir.path(), "log.db");
    // And the next gateway goes on with it.
    let log = start(dir.path());
    write(&log, [request(1, now())]);
    assert_eq!(count(dir.path()), kept + 1);
}

/// Cannot bear the path /panic, or the client 192.0.2.66.
struct Fragile;

impl Enrich for Fragile {
    fn location(&mut self, client: ClientIp) -> Location {
        assert_ne!(client.to_string(), "192.0.2.66", "a look-up that panics");
        Location::default()
    }

    fn is_suspicious(&mut self, record: &RequestRecord) -> bool {
        assert_ne!(record.text.path(), "/panic", "a judgement that panics");
        false
    }
}

#[test]
fn a_panic_while_a_row_is_enriched_costs_the_enrichment_and_not_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogSettings::default(), Box::new(Fragile)).unwrap();
    write(
        &log,
        [
            request_to(0, now(), "192.0.2.1", "/panic", 200),
            request_to(1, now(), "192.0.2.66", "/", 200),
            request_to(2, now(), "192.0.2.1", "/", 200),
        ],
    );
    write(&log, [request(3, now())]);
    assert_eq!((count(dir.path()), log.stats().written(), log.stats().dropped()), (4, 4, 0));
    assert_eq!(log.stats().enrichment_panics(), 2);
    assert!(!log.stats().is_failing());
}

#[test]
fn a_log_that_cannot_be_maintained_counts_as_failing_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    write(&log, [request(0, UnixMs(now().0 - 60_000))]);
    let blocker = Connection::open(dir.path().join("log.db")).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The slice is too old at once, and cannot be closed.
    log.apply(&LogSettings { retention: Duration::from_secs(1), ..LogSettings::default() });
    let wait_until = |is_failing: bool| {
        let patience = std::time::Instant::now() + Duration::from_secs(60);
        while log.stats().is_failing() != is_failing {
            assert!(std::time::Instant::now() < patience, "is_failing is not {is_failing}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_until(true);
    // Nothing waits to be written, so there is nothing to conclude from.
    log.flusher().flush().unwrap();
    assert!(log.stats().is_failing());
    blocker.execute_batch("ROLLBACK").unwrap();
    wait_until(false);
    assert_eq!(count(dir.path()), 0, "the old row has gone");
}

#[test]
fn what_root_makes_in_the_folder_of_a_gateway_belongs_to_that_gateway() {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    const GATEWAY: u32 = 12_345;
    let dir = tempfile::tempdir().unwrap();
    if dir.path().metadata().unwrap().uid() != 0 || chown(dir.path(), Some(GATEWAY), Some(GATEWAY)).is_err() {
        // Nobody but root can give anything away.
        return;
    }
    let state = State::open_or_create(dir.path()).unwrap();
    drop(start(dir.path()));
    for name in ["state.db", "state.db-wal", "state.db-shm", "log.db", "log.lock"] {
        let owner = dir.path().join(name).metadata().unwrap_or_else(|error| panic!("{name}: {error}")).uid();
        assert_eq!(owner, GATEWAY, "{name}");
    }
    drop(state);
    // What the folder's owner has linked to is not given away.
    let (elsewhere, link) = (tempfile::NamedTempFile::new().unwrap(), dir.path().join("task.lock"));
    symlink(elsewhere.path(), &link).unwrap();
    give_to_owner(&link);
    assert_eq!(elsewhere.path().metadata().unwrap().uid(), 0);
    let made = dir.path().join("feeds");
    std::fs::create_dir(&made).unwrap();
    give_to_owner(&made);
    assert_eq!(made.metadata().unwrap().uid(), GATEWAY);
}
