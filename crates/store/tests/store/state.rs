//! Blocks, allows, findings and the rest of the state database.

use std::time::Duration;

use ipnet::IpNet;
use portcullis_model::{BlockSource, Finding, FindingStatus, Location, Party, Severity, UnixMs, VerdictKind};
use portcullis_store::{
    BlockChange, FindingFilter, GeoAnswer, LimitEvent, MAX_TASK_RUNS, NewBlock, NewPartyBlock, NewTaskRun,
    PartyChange, Seq, State, StoreError,
};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{assert_sound, ip};

const DAY_MS: i64 = 24 * 3_600_000;

fn state() -> (TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    (dir, state)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn block(network: &str, at: i64, expires: Option<i64>) -> NewBlock {
    NewBlock {
        network: net(network),
        reason: format!("since {at}"),
        source: BlockSource::Cli,
        created_at: UnixMs(at),
        expires_at: expires.map(UnixMs),
        finding_id: None,
    }
}

fn finding(severity: Severity, last_seen: i64) -> Finding {
    Finding {
        client: ip("192.0.2.1"),
        user: None,
        reason: "probing".to_owned(),
        severity,
        request_count: 10,
        first_seen: UnixMs(last_seen - 10),
        last_seen: UnixMs(last_seen),
        detected_at: UnixMs(last_seen + 1),
        details: json!({"summary": format!("at {last_seen}")}),
    }
}

#[test]
fn a_block_survives_a_restart_with_all_its_fields() {
    let (dir, mut state) = state();
    let new = NewBlock { finding_id: Some(7), ..block("2001:db8::/32", 100, Some(900)) };
    let added = state.add_block(new, "ana").unwrap();
    drop(state);
    let state = State::open_read_only(dir.path()).unwrap();
    let stored = state.block(added.id).unwrap().unwrap();
    assert_eq!((stored.block, stored.removed_at), (added.clone(), None));
    assert_eq!(state.active_blocks(UnixMs(899)).unwrap(), std::slice::from_ref(&added));
    let audit = state.audit(UnixMs(0), 9).unwrap();
    assert_eq!((audit[0].actor.as_str(), audit[0].action.as_str()), ("ana", "block"));
    assert_eq!(audit[0].subject, "2001:db8::/32");
}

#[test]
fn an_expired_block_is_not_in_force_but_still_explained() {
    let (_dir, mut state) = state();
    let added = state.add_block(block("192.0.2.1/32", 100, Some(200)), "ana").unwrap();
    assert_eq!(state.active_blocks(UnixMs(199)).unwrap().len(), 1);
    assert_eq!(state.active_blocks(UnixMs(200)).unwrap(), []);
    assert_eq!(state.covering(ip("192.0.2.1"), UnixMs(200)).unwrap(), []);
    assert_eq!(state.remove_block(&net("192.0.2.1/32"), "ana", UnixMs(201)).unwrap(), []);
    assert!(state.block(added.id).unwrap().is_some());
    // A new block of the same network takes the place of the expired one.
    let second = state.add_block(block("192.0.2.1/32", 300, None), "ana").unwrap();
    assert_eq!(state.block(added.id).unwrap().unwrap().removed_by.as_deref(), Some("expired"));
    assert_eq!(state.active_blocks(UnixMs(301)).unwrap(), [second]);
}

#[test]
fn a_removed_block_stays_readable_and_a_replaced_one_says_so() {
    let (_dir, mut state) = state();
    let first = state.add_block(block("192.0.2.0/24", 100, None), "ana").unwrap();
    let second = state.add_block(block("192.0.2.0/24", 200, None), "ben").unwrap();
    assert_eq!(state.active_blocks(UnixMs(201)).unwrap(), std::slice::from_ref(&second));
    let old = state.block(first.id).unwrap().unwrap();
    assert_eq!((old.removed_at, old.removed_by.as_deref()), (Some(UnixMs(200)), Some("replaced")));

    assert_eq!(
        state.remove_block(&net("192.0.2.0/24"), "eve", UnixMs(300)).unwrap(),
        std::slice::from_ref(&second)
    );
    assert_eq!(state.remove_block(&net("192.0.2.0/24"), "eve", UnixMs(301)).unwrap(), []);
    let old = state.block(second.id).unwrap().unwrap();
    assert_eq!((old.removed_at, old.removed_by.as_deref()), (Some(UnixMs(300)), Some("eve")));
    assert_eq!(state.active_blocks(UnixMs(302)).unwrap(), []);
    let recent: Vec<i64> =
        state.recent_blocks(9).unwrap().into_iter().map(|stored| stored.block.id).collect();
    assert_eq!(recent, [second.id, first.id]);
}

#[test]
fn covering_finds_every_prefix_around_an_address() {
    let (_dir, mut state) = state();
    for network in
        ["192.0.2.1/32", "192.0.2.0/24", "192.0.0.0/16", "0.0.0.0/0", "192.0.3.0/24", "2001:db8::/32"]
    {
        state.add_block(block(network, 1, None), "ana").unwrap();
        state.add_allow(net(network), "friend", BlockSource::Cli, "ana", UnixMs(1)).unwrap();
    }
    let networks = |blocks: Vec<portcullis_model::Block>| {
        blocks.into_iter().map(|block| block.network.to_string()).collect::<Vec<_>>()
    };
    let around = networks(state.covering(ip("192.0.2.1"), UnixMs(2)).unwrap());
    assert_eq!(around, ["192.0.2.1/32", "192.0.2.0/24", "192.0.0.0/16", "0.0.0.0/0"]);
    assert_eq!(networks(state.covering(ip("2001:db8:7::1"), UnixMs(2)).unwrap()), ["2001:db8::/32"]);
    assert_eq!(state.allows_covering(ip("192.0.2.1")).unwrap().len(), 4);
    assert_eq!(state.allows_covering(ip("2001:db9::1")).unwrap(), []);
}

#[test]
fn allows_are_added_replaced_removed_and_remembered() {
    let (_dir, mut state) = state();
    let first = state.add_allow(net("192.0.2.0/24"), "office", BlockSource::Cli, "ana", UnixMs(1)).unwrap();
    let second = state.add_allow(net("192.0.2.0/24"), "lab", BlockSource::Cli, "ana", UnixMs(2)).unwrap();
    assert_eq!(state.allows().unwrap(), std::slice::from_ref(&second));
    assert_eq!(state.allow(first.id).unwrap().unwrap().removed_by.as_deref(), Some("replaced"));
    assert_eq!(
        state.remove_allow(&net("192.0.2.0/24"), "eve", UnixMs(3)).unwrap(),
        std::slice::from_ref(&second)
    );
    assert_eq!(state.remove_allow(&net("192.0.2.0/24"), "eve", UnixMs(3)).unwrap(), []);
    assert_eq!(state.allow(second.id).unwrap().unwrap().removed_at, Some(UnixMs(3)));
    assert_eq!(state.allow(99).unwrap(), None);
}

#[test]
fn the_configurations_entries_follow_the_file_and_leave_others_alone() {
    let (_dir, mut state) = state();
    let entries = |list: &[(&str, &str)]| {
        list.iter().map(|(network, reason)| (net(network), (*reason).to_owned())).collect::<Vec<_>>()
    };
    state.add_block(block("192.0.2.9/32", 1, None), "ana").unwrap();
    state
        .sync_config(
            &entries(&[("192.0.2.1/32", "a"), ("192.0.2.2/32", "b"), ("192.0.2.9/32", "file")]),
            &entries(&[("198.51.100.0/24", "office")]),
            UnixMs(10),
        )
        .unwrap();
    let before = state.active_blocks(UnixMs(11)).unwrap();
    let shown = |blocks: &[portcullis_model::Block]| {
        blocks.iter().map(|b| format!("{} {} {}", b.network.addr(), b.reason, b.source)).collect::<Vec<_>>()
    };
    let of_ana = "192.0.2.9 since 1 cli".to_owned();
    assert_eq!(
        shown(&before),
        [of_ana.clone(), "192.0.2.1 a config".to_owned(), "192.0.2.2 b config".to_owned()]
    );
    assert_eq!(state.allows().unwrap().len(), 1);

    let seq = state.changes(Seq::default()).unwrap().seq;
    let same = entries(&[("192.0.2.1/32", "a"), ("192.0.2.2/32", "b")]);
    let office = entries(&[("198.51.100.0/24", "office")]);
    state.sync_config(&same, &office, UnixMs(20)).unwrap();
    assert_eq!(state.changes(seq).unwrap().seq, seq, "a file that did not change changes nothing");

    state
        .sync_config(&entries(&[("192.0.2.1/32", "new reason"), ("192.0.2.3/32", "c")]), &[], UnixMs(30))
        .unwrap();
    let after = state.active_blocks(UnixMs(31)).unwrap();
    assert_eq!(
        shown(&after),
        [of_ana, "192.0.2.1 new reason config".to_owned(), "192.0.2.3 c config".to_owned()]
    );
    assert_eq!(state.allows().unwrap(), []);
    assert_eq!(state.block(before[2].id).unwrap().unwrap().removed_by.as_deref(), Some("config"));
}

#[test]
fn changes_bring_a_reader_up_to_date_step_by_step() {
    let (dir, mut state) = state();
    let reader = State::open_read_only(dir.path()).unwrap();
    let start = reader.changes(Seq::default()).unwrap();
    assert!(start.is_empty());

    let first = state.add_block(block("192.0.2.1/32", 1, None), "ana").unwrap();
    let one = reader.changes(start.seq).unwrap();
    assert_eq!(one.blocks, [BlockChange::Added(first.clone())]);
    assert!(one.allows.is_none() && !one.settings_changed);

    let second = state.add_block(block("192.0.2.1/32", 2, None), "ana").unwrap();
    let two = reader.changes(one.seq).unwrap();
    let removed =
        |block: &portcullis_model::Block| BlockChange::Removed { id: block.id, network: block.network };
    assert_eq!(two.blocks, [removed(&first), BlockChange::Added(second.clone())]);

    state.remove_block(&second.network, "ana", UnixMs(3)).unwrap();
    state.add_allow(net("198.51.100.0/24"), "x", BlockSource::Cli, "ana", UnixMs(3)).unwrap();
    state.set_setting("detection.auto_block", "false", "ana", UnixMs(3)).unwrap();
    let three = reader.changes(two.seq).unwrap();
    assert_eq!(three.blocks, [removed(&second)]);
    assert!(three.allows == Some(state.allows().unwrap()) && three.settings_changed);
    assert!(reader.changes(three.seq).unwrap().is_empty());

    // Somebody who comes later sees what is in force, not what was.
    let all = reader.changes(Seq::default()).unwrap();
    assert_eq!((all.blocks.len(), all.seq), (0, three.seq));
}

#[test]
fn many_blocks_are_one_change_and_one_audit_entry() {
    let (dir, mut state) = state();
    let blocks = (0..10_000_u32).map(|n| NewBlock {
        network: IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(0x0A00_0000 + n))),
        ..block("10.0.0.0/32", 5, None)
    });
    assert_eq!(state.add_blocks(blocks, "import").unwrap(), 10_000);
    assert_eq!(state.changes(Seq::default()).unwrap().blocks.len(), 10_000);
    assert_eq!(state.active_blocks(UnixMs(6)).unwrap().len(), 10_000);
    assert_eq!(state.audit(UnixMs(0), 99).unwrap().len(), 1);
    drop(state);
    assert_sound(dir.path(), "state.db");
}

#[test]
fn a_finding_is_brought_up_to_date_and_its_severity_never_falls() {
    let (_dir, mut state) = state();
    let id = state.save_finding(&finding(Severity::High, 1_000)).unwrap();
    let weaker = Finding { request_count: 99, ..finding(Severity::Low, 2_000) };
    assert_eq!(state.save_finding(&weaker).unwrap(), id);
    let stored = state.finding(id).unwrap().unwrap();
    assert_eq!((stored.status, stored.finding.severity), (FindingStatus::Open, Severity::High));
    assert_eq!((stored.finding.request_count, stored.finding.first_seen), (99, UnixMs(990)));
    assert_eq!(stored.finding.last_seen, UnixMs(2_000));
    assert_eq!(stored.finding.details, json!({"summary": "at 1000"}), "the details explain the severity");

    let stronger = Finding { reason: "exploit".to_owned(), ..finding(Severity::Critical, 3_000) };
    assert_eq!(state.save_finding(&stronger).unwrap(), id);
    let stored = state.finding(id).unwrap().unwrap().finding;
    assert_eq!((stored.severity, stored.reason.as_str()), (Severity::Critical, "exploit"));
    assert_eq!(stored.details, json!({"summary": "at 3000"}));

    let next_day = state.save_finding(&finding(Severity::Low, 3_001 + DAY_MS)).unwrap();
    assert_ne!(next_day, id);
    let other = Finding { client: ip("192.0.2.2"), ..finding(Severity::Low, 3_000) };
    assert!(![id, next_day].contains(&state.save_finding(&other).unwrap()));
}

#[test]
fn a_dismissed_finding_is_not_reopened_by_the_same_reason_within_a_day() {
    let (_dir, mut state) = state();
    let id = state.save_finding(&finding(Severity::Low, 1_000)).unwrap();
    state.set_finding_status(id, FindingStatus::Dismissed, "ana", UnixMs(1_500)).unwrap();
    assert_eq!(state.save_finding(&finding(Severity::High, 2_000)).unwrap(), id);
    let stored = state.finding(id).unwrap().unwrap();
    assert_eq!((stored.status, stored.finding.severity), (FindingStatus::Dismissed, Severity::Low));

    let other_reason = Finding { reason: "exploit".to_owned(), ..finding(Severity::High, 2_000) };
    let new = state.save_finding(&other_reason).unwrap();
    assert_ne!(new, id);
    assert_eq!(state.finding(new).unwrap().unwrap().status, FindingStatus::Open);
    assert_ne!(state.save_finding(&finding(Severity::Low, 1_001 + DAY_MS)).unwrap(), id);
}

#[test]
fn findings_are_filtered_and_linked() {
    let (_dir, mut state) = state();
    let low = state.save_finding(&finding(Severity::Low, 1_000)).unwrap();
    let other = Finding { client: ip("192.0.2.2"), ..finding(Severity::High, 5_000) };
    let high = state.save_finding(&other).unwrap();
    state.link_block(high, 42).unwrap();
    state.set_finding_status(high, FindingStatus::Confirmed, "ana", UnixMs(1)).unwrap();
    let ids = |filter: FindingFilter| {
        state.findings(&filter).unwrap().into_iter().map(|stored| stored.id).collect::<Vec<_>>()
    };
    let all = FindingFilter::default;
    assert_eq!(ids(all()), [high, low]);
    assert_eq!(ids(FindingFilter { client: Some(ip("192.0.2.1")), ..all() }), [low]);
    assert_eq!(ids(FindingFilter { min_severity: Some(Severity::Medium), ..all() }), [high]);
    assert_eq!(ids(FindingFilter { status: Some(FindingStatus::Open), ..all() }), [low]);
    assert_eq!(ids(FindingFilter { since: Some(UnixMs(2_000)), ..all() }), [high]);
    assert_eq!(ids(FindingFilter { limit: 1, ..all() }), [high]);
    assert_eq!(state.finding(high).unwrap().unwrap().block_id, Some(42));
    let missing = state.link_block(99, 1).unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { id: 99, .. }));
    assert!(state.set_finding_status(99, FindingStatus::Open, "ana", UnixMs(1)).is_err());
}

#[test]
fn a_setting_that_is_taken_back_is_gone_and_whoever_watches_hears_of_it() {
    let (dir, mut state) = state();
    let reader = State::open_read_only(dir.path()).unwrap();
    assert_eq!(state.unset_setting("a", "ana", UnixMs(1)).unwrap(), None);
    state.set_setting("a", "1", "ana", UnixMs(1)).unwrap();
    let seq = reader.changes(Seq::default()).unwrap().seq;
    assert_eq!(state.unset_setting("a", "bea", UnixMs(2)).unwrap().as_deref(), Some("1"));
    assert!(reader.changes(seq).unwrap().settings_changed);
    assert_eq!((state.setting("a").unwrap(), state.settings().unwrap()), (None, Vec::new()));
    let entry = &state.audit(UnixMs(0), 1).unwrap()[0];
    assert_eq!((entry.action.as_str(), entry.actor.as_str(), entry.detail.as_str()), ("unset", "bea", "1"));
    state.set_setting("a", "2", "ana", UnixMs(3)).unwrap();
    assert_eq!(state.settings().unwrap()[0].value, "2");
}

#[test]
fn settings_tasks_and_locations_are_kept() {
    let (dir, mut state) = state();
    assert_eq!(state.setting("a").unwrap(), None);
    state.set_setting("a", "1", "ana", UnixMs(1)).unwrap();
    state.set_setting("a", "2", "ana", UnixMs(2)).unwrap();
    let run = |task: &str, at| NewTaskRun {
        task: task.to_owned(),
        started_at: UnixMs(at),
        finished_at: UnixMs(at + 1),
        succeeded: at != 2,
        summary: "3 findings".to_owned(),
    };
    state.record_task_run(&run("detect", 1)).unwrap();
    state.record_task_run(&run("detect", 2)).unwrap();
    state.record_task_run(&run("purge", 3)).unwrap();
    let place = Location { country: Some("PT".to_owned()), latitude: Some(38.5), ..Location::default() };
    let answer = |source: &str, location: &Location, at| GeoAnswer {
        source: source.to_owned(),
        location: location.clone(),
        fetched_at: UnixMs(at),
    };
    for (client, source, at) in
        [("192.0.2.1", "a", 40), ("192.0.2.1", "a", 50), ("192.0.2.1", "b", 60), ("192.0.2.2", "a", 55)]
    {
        state.keep_geo_answer(ip(client), &answer(source, &place, at)).unwrap();
    }
    state.change_geo_source("a", &mut |old| format!("{old:?}1")).unwrap();
    state.change_geo_source("a", &mut |old| format!("{}2", old.unwrap())).unwrap();
    drop(state);

    let mut state = State::open(dir.path()).unwrap();
    assert_eq!(state.setting("a").unwrap().as_deref(), Some("2"));
    let [setting] = &state.settings().unwrap()[..] else { panic!("one setting") };
    assert_eq!((setting.changed_at, setting.changed_by.as_deref()), (Some(UnixMs(2)), Some("ana")));
    assert_eq!(state.audit(UnixMs(0), 1).unwrap()[0].detail, "1 -> 2");
    let runs = state.task_runs(Some("detect"), 9).unwrap();
    assert_eq!(runs.iter().map(|run| run.succeeded).collect::<Vec<_>>(), [false, true]);
    assert_eq!(state.task_runs(None, 9).unwrap().len(), 3);
    let answers = state.geo_answers(ip("192.0.2.1")).unwrap();
    assert_eq!(answers, [answer("a", &place, 50), answer("b", &place, 60)]);
    assert_eq!(state.geo_answers(ip("192.0.2.3")).unwrap(), []);
    let newest = [(ip("192.0.2.2"), UnixMs(55)), (ip("192.0.2.1"), UnixMs(60))];
    assert_eq!(state.geo_answers_after(UnixMs(49), 9).unwrap(), newest);
    assert_eq!(state.geo_answers_after(UnixMs(60), 9).unwrap(), []);
    assert_eq!(state.geo_answers_before(UnixMs(56), 9).unwrap(), [ip("192.0.2.2")]);
    assert_eq!(state.geo_source("a").unwrap().as_deref(), Some("None12"));
    assert_eq!(state.geo_source("b").unwrap(), None);
    assert_eq!(state.trim_geo_answers(2).unwrap(), 1);
    assert_eq!(state.geo_answers(ip("192.0.2.1")).unwrap(), [answer("b", &place, 60)]);
    assert_eq!((state.trim_geo_answers(2).unwrap(), state.geo_answer_count().unwrap()), (0, 2));
}

#[test]
fn a_purge_takes_what_is_old_and_leaves_what_is_in_force() {
    let (_dir, mut state) = state();
    let removed = state.add_block(block("192.0.2.1/32", 0, None), "ana").unwrap();
    state.remove_block(&removed.network, "ana", UnixMs(0)).unwrap();
    let expired = state.add_block(block("192.0.2.2/32", 0, Some(DAY_MS)), "ana").unwrap();
    let forever = state.add_block(block("192.0.2.3/32", 0, None), "ana").unwrap();
    let old = state.save_finding(&finding(Severity::Low, 1_000)).unwrap();
    let event = LimitEvent {
        client: ip("192.0.2.1"),
        rule: "login".to_owned(),
        bound: "3/5m".to_owned(),
        endpoint: "/login".to_owned(),
        minute: UnixMs(0),
        count: 3,
        action: VerdictKind::Limited,
    };
    state.record_limit_events(&[event.clone(), LimitEvent { minute: UnixMs(80 * DAY_MS), ..event }]).unwrap();

    let purged = state.purge(UnixMs(0).plus(Duration::from_secs(90 * 86_400 + 1))).unwrap();
    assert_eq!((purged.blocks, purged.findings, purged.limit_events), (1, 1, 1));
    assert_eq!(state.block(removed.id).unwrap(), None);
    assert!(state.block(expired.id).unwrap().is_some(), "it ran out a day later");
    assert!(state.block(forever.id).unwrap().is_some());
    assert_eq!(state.finding(old).unwrap(), None);
    let left = state.limit_events(UnixMs(0), 9).unwrap();
    assert_eq!((left.len(), &*left[0].bound), (1, "3/5m"));
    let totals = state.limit_totals(UnixMs(0)).unwrap();
    assert_eq!((totals.len(), totals[0].count, totals[0].last), (1, 3, UnixMs(80 * DAY_MS)));
    assert!(state.limit_totals(UnixMs(81 * DAY_MS)).unwrap().is_empty());
    assert_eq!(state.active_blocks(UnixMs(91 * DAY_MS)).unwrap(), [forever]);
}

#[test]
fn reading_a_folder_without_state_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(State::open_read_only(dir.path()), Err(StoreError::NoState(_))));
}

#[test]
fn a_damaged_state_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    std::fs::write(&path, vec![b'x'; 8_192]).unwrap();
    let error = State::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 8_192]);
}

#[test]
fn runs_of_a_task_are_bounded_and_the_last_one_is_kept_for_good() {
    let (_dir, mut state) = state();
    let run = |task: &str, at: i64| NewTaskRun {
        task: task.to_owned(),
        started_at: UnixMs(at),
        finished_at: UnixMs(at),
        succeeded: at % 2 == 0,
        summary: String::new(),
    };
    state.record_task_run(&run("cleanup", 4)).unwrap();
    for at in 0..MAX_TASK_RUNS as i64 + 6 {
        state.record_task_run(&run("detect", at)).unwrap();
    }
    let runs = state.task_runs(Some("detect"), usize::MAX).unwrap();
    assert_eq!((runs.len(), runs.last().unwrap().started_at), (MAX_TASK_RUNS, UnixMs(6)));
    let purged = state.purge(UnixMs(400 * DAY_MS)).unwrap();
    assert_eq!(purged.task_runs, MAX_TASK_RUNS - 1);
    assert_eq!(state.task_runs(None, 9).unwrap().len(), 2, "the last one of each");
    assert_eq!(state.last_success("cleanup").unwrap(), Some(UnixMs(4)));
    assert_eq!(state.last_success("detect").unwrap(), None);
}

#[test]
fn a_task_is_known_since_it_was_first_noted() {
    let (_dir, mut state) = state();
    assert_eq!(state.task_known_since("report").unwrap(), None);
    assert_eq!(state.note_task("report", UnixMs(5)).unwrap(), UnixMs(5));
    assert_eq!(state.note_task("report", UnixMs(9)).unwrap(), UnixMs(5));
    assert_eq!(state.task_known_since("report").unwrap(), Some(UnixMs(5)));
}

fn party_block(party: Party, at: i64, expires: Option<i64>) -> NewPartyBlock {
    NewPartyBlock {
        party,
        reason: format!("since {at}"),
        source: BlockSource::Detector,
        created_at: UnixMs(at),
        expires_at: expires.map(UnixMs),
        finding_id: None,
    }
}

#[test]
fn a_block_of_a_user_is_numbered_among_the_blocks_and_told_to_the_gateway() {
    let (_dir, mut state) = state();
    let mallory = || Party::User("mallory".into());
    // Before there was any other block.
    let first = state.add_party_block(party_block(mallory(), 100, Some(900)), "detect").unwrap();
    let address = state.add_block(block("192.0.2.1/32", 110, None), "ana").unwrap();
    let second = state.add_party_block(party_block(mallory(), 120, None), "ana").unwrap();
    assert_eq!([first.id, address.id, second.id], [1, 2, 3]);
    assert_eq!(state.party_block(first.id).unwrap().unwrap().removed_by.as_deref(), Some("replaced"));
    assert_eq!(state.party_block(address.id).unwrap(), None);
    assert_eq!(state.block_of_user("mallory", UnixMs(130)).unwrap(), Some(second.clone()));
    assert_eq!(state.block_of_user("alice", UnixMs(130)).unwrap(), None);

    let all = state.changes(Seq::default()).unwrap();
    assert_eq!(all.parties, [PartyChange::Added(second.clone())]);
    assert_eq!(state.remove_party_block(&mallory(), "ana", UnixMs(140)).unwrap(), Some(second.clone()));
    assert_eq!(state.remove_party_block(&mallory(), "ana", UnixMs(141)).unwrap(), None);
    let gone = state.changes(all.seq).unwrap();
    assert_eq!(gone.parties, [PartyChange::Removed { id: second.id, party: mallory() }]);
    let recent: Vec<i64> =
        state.recent_party_blocks(9).unwrap().iter().map(|stored| stored.block.id).collect();
    assert_eq!(recent, [3, 1]);
}

#[test]
fn a_block_of_anonymous_clients_is_found_by_their_address() {
    let (_dir, mut state) = state();
    let network = net("2001:db8:1:2::/64");
    let agents = vec!["tool/1 \"quoted\"".into(), "".into()];
    let new = party_block(Party::Anonymous { network, agents }, 100, Some(200));
    let added = state.add_party_block(new, "detect").unwrap();
    let found = |ip_text: &str, now| state.block_of_anonymous(ip(ip_text), UnixMs(now)).unwrap();
    assert_eq!(found("2001:db8:1:2::77", 150), Some(added.clone()));
    assert_eq!(found("2001:db8:1:3::77", 150), None);
    assert_eq!(found("2001:db8:1:2::77", 200), None, "it has run out");
    assert_eq!(state.active_party_blocks(UnixMs(150)).unwrap(), [added]);
}

#[test]
fn findings_of_two_users_on_one_address_are_two() {
    let (_dir, mut state) = state();
    let of = |user: Option<&str>| Finding { user: user.map(str::to_owned), ..finding(Severity::High, 1_000) };
    let ids: Vec<i64> = [None, Some("mallory"), Some("eve"), Some("mallory"), None]
        .map(|user| state.save_finding(&of(user)).unwrap())
        .to_vec();
    assert_eq!(ids, [1, 2, 3, 2, 1]);
    assert_eq!(state.finding(2).unwrap().unwrap().finding.user.as_deref(), Some("mallory"));
}

#[test]
fn only_a_gateway_that_starts_brings_an_older_database_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    old.execute_batch(include_str!("../../migrations/state/001_initial.sql")).unwrap();
    old.execute_batch(
        "INSERT INTO blocks (network, reason, source, created_at, seq) VALUES ('192.0.2.1/32', '', 'cli', 100, 1);
         UPDATE counter SET seq = 1; PRAGMA user_version = 1;",
    )
    .unwrap();
    let version = || old.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap();
    // An older gateway runs on it: neither those who read nor those who write may change its tables.
    for opened in [
        State::open_read_only(dir.path()),
        State::open_existing(dir.path()),
        State::open_or_create(dir.path()),
    ] {
        let error = opened.unwrap_err();
        assert!(matches!(error, StoreError::Older { found: 1, .. }), "{error}");
        assert!(error.to_string().contains("portcullis migrate"), "{error}");
        assert_eq!(version(), 1);
    }
    let mut state = State::open(dir.path()).unwrap();
    assert_eq!(state.active_party_blocks(UnixMs(200)).unwrap(), []);
    assert_eq!(state.active_blocks(UnixMs(200)).unwrap().len(), 1);
    let added = state.add_party_block(party_block(Party::User("mallory".into()), 200, None), "ana").unwrap();
    assert_eq!(added.id, 2, "the numbers go on");
    drop(State::open_read_only(dir.path()).unwrap());
}

#[test]
fn what_is_done_together_is_kept_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::open(dir.path()).unwrap();
    let reader = State::open_read_only(dir.path()).unwrap();
    let active = || reader.active_blocks(UnixMs(200)).unwrap().len();
    let failed: Result<(), StoreError> = state.together(|state| {
        state.add_block(block("192.0.2.1/32", 100, None), "detect")?;
        state.together(|state| state.add_block(block("192.0.2.2/32", 100, None), "detect"))?;
        assert_eq!(active(), 0, "nobody sees half of it");
        state.set_finding_status(99, FindingStatus::Dismissed, "ana", UnixMs(100))
    });
    assert!(matches!(failed, Err(StoreError::NotFound { .. })), "{failed:?}");
    assert_eq!(active(), 0);
    // The connection goes on, by itself and with another one.
    state.add_block(block("192.0.2.3/32", 100, None), "ana").unwrap();
    let kept: Result<_, StoreError> = state.together(|state| {
        state.add_block(block("192.0.2.4/32", 100, None), "detect")?;
        state.add_block(block("192.0.2.5/32", 100, None), "detect")
    });
    kept.unwrap();
    assert_eq!(active(), 3);
}

#[test]
fn what_a_request_and_the_hourly_run_found_of_one_client_is_one_explanation() {
    let (_dir, mut state) = state();
    let at_request = Finding {
        details: json!({ "found": "request", "score": 12.0, "score_history": [1], "forest": null, "held_down": "x" }),
        ..finding(Severity::High, 1_000)
    };
    let hourly = |severity| Finding {
        details: json!({ "found": "hourly", "summary": "more", "forest": { "model": "m" } }),
        ..finding(severity, 2_000)
    };
    let id = state.save_finding(&at_request).unwrap();
    for severity in [Severity::Medium, Severity::Critical] {
        assert_eq!(state.save_finding(&hourly(severity)).unwrap(), id);
        let details = state.finding(id).unwrap().unwrap().finding.details;
        assert_eq!(
            (&details["found"], &details["score_history"], &details["forest"]["model"]),
            (&json!("request"), &json!([1]), &json!("m")),
            "{details}"
        );
        let is_new = severity == Severity::Critical;
        assert_eq!(
            (details["summary"] == "more", details["held_down"] == "x"),
            (is_new, !is_new),
            "{details}"
        );
    }
}
