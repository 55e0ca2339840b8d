//! Changes by one connection, noticed by another.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use portcullis_model::{BlockSource, UnixMs};
use portcullis_store::{BlockChange, Changes, NewBlock, State, StateWatcher};

/// Far longer than a change may take, for a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

fn block(network: &str) -> NewBlock {
    NewBlock {
        network: network.parse().unwrap(),
        reason: "test".to_owned(),
        source: BlockSource::Cli,
        created_at: UnixMs(1),
        expires_at: None,
        finding_id: None,
    }
}

fn watch(dir: &std::path::Path) -> (StateWatcher, mpsc::Receiver<Changes>) {
    let (sender, changes) = mpsc::channel();
    let on_change = Box::new(move |change| sender.send(change).unwrap());
    (StateWatcher::start(dir, Duration::from_millis(100), on_change).unwrap(), changes)
}

#[test]
fn a_block_added_by_another_connection_is_seen_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut cli = State::open(dir.path()).unwrap();
    let old = cli.add_block(block("192.0.2.1/32"), "ana").unwrap();
    let (_watcher, changes) = watch(dir.path());
    // What is in force is there when the watcher has started.
    assert_eq!(changes.try_recv().unwrap().blocks, [BlockChange::Added(old)]);

    // The best of a few: the bound is the product's, a slow moment is the machine's.
    let best = (2..12)
        .map(|n| {
            let added = cli.add_block(block(&format!("192.0.2.{n}/32")), "ana").unwrap();
            let start = Instant::now();
            let change = changes.recv_timeout(PATIENCE).unwrap();
            assert_eq!(change.blocks, [BlockChange::Added(added)]);
            start.elapsed()
        })
        .min();
    assert!(best.unwrap() < Duration::from_millis(250), "{best:?}");
}

#[test]
fn a_watcher_keeps_quiet_while_nothing_changes_and_survives_a_broken_database() {
    let dir = tempfile::tempdir().unwrap();
    let mut cli = State::open(dir.path()).unwrap();
    let (_watcher, changes) = watch(dir.path());
    assert!(changes.try_recv().unwrap().is_empty());
    assert!(changes.recv_timeout(Duration::from_millis(300)).is_err());

    // Schema damage that another connection can undo.
    let other = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    other.execute_batch("ALTER TABLE blocks RENAME TO broken").unwrap();
    assert!(changes.recv_timeout(Duration::from_millis(300)).is_err());
    other.execute_batch("ALTER TABLE broken RENAME TO blocks").unwrap();
    let added = cli.add_block(block("192.0.2.7/32"), "ana").unwrap();
    assert_eq!(changes.recv_timeout(PATIENCE).unwrap().blocks, [BlockChange::Added(added)]);
}

#[test]
fn a_database_that_is_put_in_the_place_of_the_old_one_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = State::open(dir.path()).unwrap();
    let old = before.add_block(block("192.0.2.1/32"), "ana").unwrap();
    before.add_block(block("192.0.2.2/32"), "ana").unwrap();
    let (_watcher, changes) = watch(dir.path());
    assert_eq!(changes.try_recv().unwrap().blocks.len(), 2);

    // As a person does who begins anew, or restores a backup: its change numbers begin anew too.
    drop(before);
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        std::fs::rename(dir.path().join(file), dir.path().join(format!("{file}.old"))).unwrap();
    }
    let mut after = State::open(dir.path()).unwrap();
    let new = after.add_block(block("198.51.100.0/24"), "ana").unwrap();

    // It may be seen in two steps: the empty database, then the block.
    let mut seen = Vec::new();
    while !seen.contains(&BlockChange::Added(new.clone())) {
        seen.extend(changes.recv_timeout(PATIENCE).unwrap().blocks);
    }
    let gone = BlockChange::Removed { id: old.id, network: old.network };
    assert!(seen.contains(&gone), "{seen:?}");
}

#[test]
fn what_is_noticed_has_been_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut cli = State::open(dir.path()).unwrap();
    let told = Arc::new(AtomicI64::new(-1));
    let tells = Arc::clone(&told);
    let on_change = Box::new(move |changes: Changes| {
        // Longer than a look: whoever waits must not be told too early.
        std::thread::sleep(Duration::from_millis(50));
        tells.store(changes.seq.0, Ordering::SeqCst);
    });
    let watcher = StateWatcher::start(dir.path(), Duration::from_millis(10), on_change).unwrap();
    for n in 1..6 {
        cli.add_block(block(&format!("192.0.2.{n}/32")), "ana").unwrap();
        let change = cli.latest_change().unwrap();
        let started = Instant::now();
        while watcher.noticed().up_to() < change {
            assert!(started.elapsed() < PATIENCE, "the change was never noticed");
            std::thread::yield_now();
        }
        assert!(told.load(Ordering::SeqCst) >= change.0);
    }
}
