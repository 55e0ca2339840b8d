//! What is erased is gone from every byte of the files, and nothing else is.

use std::ops::ControlFlow;
use std::path::Path;

use portcullis_model::{BlockSource, Finding, RecordText, RequestRecord, Severity, TextFields, UnixMs};
use portcullis_store::{
    FieldRetention, FindingFilter, GeoAnswer, Log, LogReader, LogSettings, NewBlock, NoEnrichment, State,
    Subject,
};

use crate::support::{ip, now, request_to, start};

const GONE: &str = "203.0.113.9";

fn address(text: &str) -> Subject {
    Subject::Address(vec![ip(text)])
}

/// A request with texts of its own, by a user.
fn visit(n: u32, at: UnixMs, client: &str, user: &str, path: &str, agent: &str) -> RequestRecord {
    let text = RecordText::new(TextFields {
        method: b"GET",
        host: b"example.com",
        path: path.as_bytes(),
        query: format!("from={client}").as_bytes(),
        user_agent: agent.as_bytes(),
        referer: b"https://example.com/",
        user: user.as_bytes(),
    });
    RequestRecord { text, ..request_to(n, at, client, path, 200) }
}

fn offer(log: &Log, records: impl IntoIterator<Item = RequestRecord>) {
    let recorder = log.recorder();
    for record in records {
        assert!(recorder.offer(record));
    }
    log.flusher().flush().unwrap();
}

/// How often the bytes stand in the files of a folder.
fn traces(folder: &Path, bytes: &str) -> usize {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.map(|file| file.windows(bytes.len()).filter(|window| *window == bytes.as_bytes()).count()).sum()
}

fn rows_of(folder: &Path, subject: &Subject) -> usize {
    let mut count = 0;
    LogReader::open(folder)
        .unwrap()
        .visit_subject(subject, &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    count
}

/// Many clients in no order, so that SQLite moves the index of addresses about, in several slices.
fn crowd(log: &Log) -> u64 {
    let mut n = 0;
    for round in 0..3 {
        let clients = (0..3_000_u32).map(|n| {
            let n = n.wrapping_mul(2_654_435_761) % 60_000;
            format!("198.{}.{}.{}", 18 + n / 60_000, n / 250, n % 250)
        });
        offer(
            log,
            clients.map(|client| {
                n += 1;
                visit(n, now(), &client, "bob", &format!("/page/{}", n % 50), "Browser/1")
            }),
        );
        offer(
            log,
            (0..20).map(|k| {
                n += 1;
                visit(n, now(), GONE, "alice", &format!("/private/{}", k % 4), "OnlyAlice/1")
            }),
        );
        // Her address in a request of somebody else.
        n += 1;
        offer(
            log,
            [visit(
                n,
                now(),
                "198.18.0.1",
                "admin",
                &format!("/admin/ban/{GONE}?round={round}"),
                "Browser/1",
            )],
        );
    }
    u64::from(n)
}

#[test]
fn an_erased_address_is_in_no_byte_of_the_log_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = start(folder.path());
    let all = crowd(&log);
    assert!(traces(folder.path(), GONE) > 0 && traces(folder.path(), "OnlyAlice") > 0);
    assert_eq!(rows_of(folder.path(), &address(GONE)), 60);

    let erased = log.eraser().erase(address(GONE)).unwrap();
    assert_eq!((erased.requests, erased.clients), (60, 1));
    for trace in [GONE, "OnlyAlice", "/private/", "alice"] {
        assert_eq!(traces(folder.path(), trace), 0, "{trace}, while the log is open");
    }
    let reader = LogReader::open(folder.path()).unwrap();
    assert_eq!(reader.count().unwrap(), all - 60);
    assert_eq!(rows_of(folder.path(), &address("198.18.0.1")), 3, "others keep their rows");
    let others: Vec<String> =
        reader.rows(&Default::default(), 10_000).unwrap().into_iter().map(|row| row.path).collect();
    assert!(others.iter().any(|path| path.starts_with("/admin/ban/[erased]")), "without her address");

    // She comes again, and is a client like any other.
    offer(&log, (0..3).map(|n| visit(90_000 + n, now(), GONE, "alice", "/again", "OnlyAlice/1")));
    assert_eq!(rows_of(folder.path(), &address(GONE)), 3);
    let rows = LogReader::open(folder.path()).unwrap().rows(&Default::default(), 3).unwrap();
    assert!(rows.iter().all(|row| row.path == "/again" && row.user_agent == "OnlyAlice/1"), "{rows:?}");
    log.shutdown();
    let log = start(folder.path());
    assert_eq!(log.eraser().erase(address(GONE)).unwrap().requests, 3, "after a restart too");
    log.shutdown();
    assert_eq!(traces(folder.path(), GONE), 0);
}

#[test]
fn sealed_slices_are_erased_too_and_a_dropped_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = LogSettings { max_bytes: 32 << 20, ..LogSettings::default() };
    let log = Log::start(folder.path(), settings, Box::new(NoEnrichment)).unwrap();
    for round in 0..40_u32 {
        offer(
            &log,
            (0..1_500).map(|n| {
                let n = round * 10_000 + n;
                let client = if n % 100 == 0 { GONE } else { "198.18.7.7" };
                visit(n, now(), client, "", &format!("/{n}/{}", "x".repeat(300)), "Browser/1")
            }),
        );
    }
    assert!(log.stats().slices() > 10, "{} slices", log.stats().slices());
    let erased = log.eraser().erase(address(GONE)).unwrap();
    assert!(erased.requests > 0 && erased.clients > 5, "{erased:?}");
    assert_eq!(traces(folder.path(), GONE), 0);
    log.shutdown();
    assert_eq!(traces(folder.path(), GONE), 0);
}

#[test]
fn a_users_requests_go_from_whatever_address_and_the_word_stays() {
    let folder = tempfile::tempdir().unwrap();
    let log = start(folder.path());
    offer(
        &log,
        [
            visit(1, now(), "203.0.113.9", "alice", "/a", "A/1"),
            visit(2, now(), "203.0.113.10", "alice", "/a", "A/1"),
            visit(3, now(), "203.0.113.10", "o'bob", "/users/alice", "A/1"),
            visit(4, now(), "203.0.113.11", "", "/alice", "A/1"),
        ],
    );
    let erased = log.eraser().erase(Subject::User("alice".to_owned())).unwrap();
    assert_eq!((erased.requests, erased.clients), (2, 1), "the address that was hers alone goes too");
    assert_eq!(traces(folder.path(), "203.0.113.9"), 0);
    let rows = LogReader::open(folder.path()).unwrap().rows(&Default::default(), 9).unwrap();
    let left: Vec<_> = rows.iter().map(|row| (row.path.as_str(), row.user.as_str())).collect();
    assert_eq!(left, [("/alice", ""), ("/users/alice", "o'bob")]);
    assert_eq!(log.eraser().erase(Subject::User("o'bob".to_owned())).unwrap().requests, 1);
    assert_eq!(log.eraser().erase(Subject::User("' OR '1'='1".to_owned())).unwrap().requests, 0);
    // A name is a value and never text of a statement, which would end there.
    assert_eq!(log.eraser().erase(Subject::User("o\0'bob".to_owned())).unwrap().requests, 0);
}

#[test]
fn the_state_forgets_an_address_in_every_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::open(folder.path()).unwrap();
    let block = |network: &str, reason: &str| NewBlock {
        network: network.parse().unwrap(),
        reason: reason.to_owned(),
        source: BlockSource::Cli,
        created_at: now(),
        expires_at: None,
        finding_id: None,
    };
    for n in 0..500_u32 {
        state.add_block(block(&format!("198.18.{}.{}/32", n % 7, n / 7), "crowd"), "t").unwrap();
    }
    state.add_block(block("203.0.113.9/32", "scans"), "t").unwrap();
    state.add_block(block("203.0.113.90/32", "a friend of 203.0.113.9"), "t").unwrap();
    let answer = GeoAnswer { source: "ipinfo".to_owned(), location: Default::default(), fetched_at: now() };
    state.keep_geo_answer(ip(GONE), &answer).unwrap();
    state
        .save_finding(&Finding {
            client: ip(GONE),
            user: None,
            reason: "scanner".to_owned(),
            severity: Severity::High,
            request_count: 1,
            first_seen: now(),
            last_seen: now(),
            detected_at: now(),
            details: serde_json::json!({"summary": "203.0.113.9 scans"}),
        })
        .unwrap();
    let found = state.rows_about(&address(GONE)).unwrap();
    let tables: Vec<&str> = found.iter().map(|found| found.table.as_str()).collect();
    assert_eq!(tables, ["audit", "blocks", "findings", "geo_cache"]);

    let lifted = state.lift_blocks(&address(GONE), |_| None, ("t", now())).unwrap();
    assert_eq!(lifted.len(), 1);
    assert!(state.covering(ip(GONE), now()).unwrap().is_empty(), "it is not in force any more");
    let erased = state
        .erase(&address(GONE), &[], ("cli:test", now()), |erased| {
            ("receipt 1".to_owned(), format!("{} tables", erased.deleted.len()))
        })
        .unwrap();
    assert_eq!(
        erased.deleted,
        [("blocks".to_owned(), 1), ("findings".to_owned(), 1), ("geo_cache".to_owned(), 1)]
    );
    assert!(state.compact().unwrap());
    assert_eq!(state.rows_about(&address(GONE)).unwrap(), []);
    assert_eq!(traces(folder.path(), "203.0.113.9"), traces(folder.path(), "203.0.113.90"));
    assert!(state.findings(&FindingFilter::default()).unwrap().is_empty());
    let reasons: Vec<String> =
        state.recent_blocks(1).unwrap().into_iter().map(|stored| stored.block.reason).collect();
    assert_eq!(reasons, ["a friend of [erased]"]);
    let receipt = state.audit(UnixMs(0), 1).unwrap().remove(0);
    assert_eq!((&*receipt.action, &*receipt.subject, &*receipt.detail), ("erase", "receipt 1", "3 tables"));
}

/// Users call themselves what they like: like a word of the database, a path, or somebody's address.
#[test]
fn a_user_who_is_called_like_something_else_takes_nothing_of_others_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::open(folder.path()).unwrap();
    let block = |network: &str, source| NewBlock {
        network: network.parse().unwrap(),
        reason: "scans".to_owned(),
        source,
        created_at: now(),
        expires_at: None,
        finding_id: None,
    };
    state.add_block(block("203.0.113.9/32", BlockSource::Detector), "detector").unwrap();
    state.add_block(block("203.0.113.10/32", BlockSource::Import), "t").unwrap();
    state.save_finding(&finding(None, "other")).unwrap();
    let known_since = state.note_task("report", now()).unwrap();
    let alert = portcullis_store::NewAlert {
        first_at: now(),
        last_at: now(),
        severity: Severity::High,
        events: 1,
        body: r#"{"events":1,"worst":"high","samples":[{"title":"user high was blocked"}]}"#.to_owned(),
    };
    state.add_alert(&["mail"], &alert, &|_| None).unwrap();
    let log = start(folder.path());
    offer(&log, [visit(1, now(), "198.51.100.1", "bob", "/wp-login.php", "curl/8")]);
    let words = [
        "detector",
        "import",
        "open",
        "other",
        "report",
        "mail",
        "high",
        "events",
        "203.0.113.9",
        "203.0.113.9/32",
        "/wp-login.php",
        "curl/8",
    ];
    for word in words {
        let subject = Subject::User(word.to_owned());
        assert_eq!(state.lift_blocks(&subject, |_| None, ("t", now())).unwrap(), [], "{word}");
        let erased = state.erase(&subject, &[], ("t", now()), |_| ("x".to_owned(), String::new())).unwrap();
        assert_eq!(erased.deleted, [], "{word}");
        let of_log = log.eraser().erase(subject).unwrap();
        assert_eq!((of_log.requests, of_log.texts), (0, 0), "{word}");
    }
    assert_eq!(state.active_blocks(now()).unwrap().len(), 2);
    assert_eq!(state.findings(&FindingFilter::default()).unwrap().len(), 1);
    assert_eq!(state.task_known_since("report").unwrap(), Some(known_since));
    let mail = state.alert_channel("mail").unwrap();
    assert_eq!(state.alerts_waiting(mail.done_id).unwrap().unwrap().1, 1);
    assert_eq!(
        state.alerts_after(0).unwrap()[0].alert.body,
        alert.body.replace("user high", "user [erased]"),
        "the mention goes, the rest can still be read"
    );
    let row = LogReader::open(folder.path()).unwrap().rows(&Default::default(), 1).unwrap().remove(0);
    assert_eq!((&*row.path, &*row.user_agent), ("/wp-login.php", "curl/8"));
    log.shutdown();
}

#[test]
fn the_state_forgets_a_user_in_every_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::open(folder.path()).unwrap();
    state.save_finding(&finding(Some("alice"), "login_failures")).unwrap();
    state.save_finding(&finding(Some("alicia"), "login_failures")).unwrap();
    let block = portcullis_store::NewPartyBlock {
        party: portcullis_model::Party::User("alice".into()),
        reason: "user alice failed to log in".to_owned(),
        source: BlockSource::Detector,
        created_at: now(),
        expires_at: None,
        finding_id: None,
    };
    state.add_party_block(block, "detector").unwrap();
    let alice = Subject::User("alice".to_owned());
    state.lift_blocks(&alice, |_| None, ("t", now())).unwrap();
    assert!(state.active_party_blocks(now()).unwrap().is_empty());
    let erased = state.erase(&alice, &[], ("t", now()), |_| ("x".to_owned(), String::new())).unwrap();
    assert_eq!(erased.deleted, [("findings".to_owned(), 1), ("party_blocks".to_owned(), 1)]);
    assert_eq!(erased.altered, [("audit".to_owned(), 1)]);
    assert_eq!(state.rows_about(&alice).unwrap(), []);
    assert!(state.compact().unwrap());
    assert_eq!(traces(folder.path(), "alice"), 0);
}

/// Until the log is done minutes may pass, and the command may be killed.
#[test]
fn a_block_that_goes_on_under_another_address_does_so_from_the_moment_of_lifting() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::open(folder.path()).unwrap();
    let block = |network: &str| NewBlock {
        network: network.parse().unwrap(),
        reason: "scans".to_owned(),
        source: BlockSource::Cli,
        created_at: now(),
        expires_at: None,
        finding_id: None,
    };
    state.add_block(block("203.0.113.9/32"), "t").unwrap();
    // The stand-in is an address of the subject as well, since it was erased before.
    let subject = Subject::Address(vec![ip(GONE), ip("3fff:800::1")]);
    let keep = |_: &portcullis_model::Block| Some(block("3fff:800::1/128"));
    let in_force = |state: &State| -> Vec<String> {
        let blocks = state.active_blocks(now()).unwrap();
        blocks.into_iter().map(|block| block.network.to_string()).collect()
    };
    let lifted = state.lift_blocks(&subject, keep, ("t", now())).unwrap();
    assert_eq!(in_force(&state), ["3fff:800::1/128"]);
    drop(lifted);
    let lifted = state.lift_blocks(&subject, keep, ("t", now())).unwrap();
    assert_eq!(in_force(&state), ["3fff:800::1/128"], "the next try begins with what the first has left");
    let kept: Vec<i64> = lifted.into_iter().filter_map(|lifted| lifted.kept).collect();
    state.erase(&subject, &kept, ("t", now()), |_| ("x".to_owned(), String::new())).unwrap();
    assert_eq!(in_force(&state), ["3fff:800::1/128"]);
}

#[test]
fn a_network_that_begins_with_an_erased_address_stays_blocked() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::open(folder.path()).unwrap();
    for network in ["203.0.113.8/29", "203.0.113.8/32", "2001:db8::/32", "2001:db8::/64"] {
        let block = NewBlock {
            network: network.parse().unwrap(),
            reason: format!("scans from {network}"),
            source: BlockSource::Cli,
            created_at: now(),
            expires_at: None,
            finding_id: None,
        };
        state.add_block(block, "t").unwrap();
    }
    state.add_allow("203.0.113.8/30".parse().unwrap(), "", BlockSource::Cli, "t", now()).unwrap();
    for gone in ["203.0.113.8", "2001:db8::7"] {
        let subject = address(gone);
        state.lift_blocks(&subject, |_| None, ("t", now())).unwrap();
        state.erase(&subject, &[], ("t", now()), |_| ("x".to_owned(), String::new())).unwrap();
    }
    let left: Vec<(String, String)> = state
        .recent_blocks(9)
        .unwrap()
        .into_iter()
        .map(|stored| (stored.block.network.to_string(), stored.block.reason))
        .collect();
    let of = |network: &str, reason: &str| (network.to_owned(), reason.to_owned());
    assert_eq!(
        left,
        [of("2001:db8::/32", "scans from [erased]/32"), of("203.0.113.8/29", "scans from [erased]/29")]
    );
    assert_eq!(state.allows().unwrap().len(), 1);
}

fn finding(user: Option<&str>, reason: &str) -> Finding {
    Finding {
        client: ip("198.51.100.1"),
        user: user.map(str::to_owned),
        reason: reason.to_owned(),
        severity: Severity::High,
        request_count: 1,
        first_seen: now(),
        last_seen: now(),
        detected_at: now(),
        details: serde_json::json!({ "summary": "scans" }),
    }
}

#[test]
fn fields_go_before_their_rows_and_what_is_young_stays() {
    let folder = tempfile::tempdir().unwrap();
    let day = std::time::Duration::from_secs(86_400);
    let fields = FieldRetention {
        addresses: Some(day),
        user_agents: Some(day),
        queries: Some(day),
        users: Some(9 * day),
        ..FieldRetention::default()
    };
    let settings = LogSettings { fields, ..LogSettings::default() };
    let log = Log::start(folder.path(), settings.clone(), Box::new(NoEnrichment)).unwrap();
    let old = now().minus(2 * day);
    offer(
        &log,
        (0..30).map(|n| {
            visit(
                n,
                old,
                &format!("203.0.113.{}", n % 10),
                "alice",
                &format!("/old/{}", n % 3),
                "OldBrowser/1",
            )
        }),
    );
    offer(&log, [visit(90, old, "2001:db8:1:2::5", "alice", "/old/0", "OldBrowser/1")]);
    // Looks at once.
    log.apply(&settings);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while traces(folder.path(), "OldBrowser") > 0 {
        assert!(std::time::Instant::now() < deadline, "nothing is taken out");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    offer(&log, [visit(99, now(), "203.0.113.7", "bob", "/young", "YoungBrowser/1")]);
    let rows = LogReader::open(folder.path()).unwrap().rows(&Default::default(), 99).unwrap();
    let (young, old) = rows.split_first().unwrap();
    assert_eq!(
        (young.client, &*young.user_agent, &*young.query),
        (ip("203.0.113.7"), "YoungBrowser/1", "from=203.0.113.7")
    );
    assert_eq!(old.len(), 31);
    for row in old {
        let network = if row.client == ip("2001:db8:1::") { row.client } else { ip("203.0.113.0") };
        assert_eq!((row.client, &*row.user_agent, &*row.query), (network, "", ""));
        assert_eq!((&*row.user, &*row.referer), ("alice", "https://example.com/"), "what may stay longer");
        assert!(row.path.starts_with("/old/"));
    }
    assert_eq!(traces(folder.path(), "2001:db8:1:2::5") + traces(folder.path(), "203.0.113.5"), 0);
    assert_eq!(rows_of(folder.path(), &address("203.0.113.0")), 30, "found by the network");
    log.shutdown();
}
