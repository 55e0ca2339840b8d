//! Rows, their columns, the view, and the hand-over.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use portcullis_model::{
    Protocol, Reason, RecordText, RequestId, RequestRecord, TextFields, UnixMs, VerdictKind,
};
use portcullis_store::{
    Enrich, Log, LogFilter, LogReader, LogSettings, LoggedRequest, NoEnrichment, State, StoreError,
};

use crate::support::{
    Lisbon, assert_sound, count, ip, lisbon, now, plain, request, request_to, start, text, write,
};

fn full(id: RequestId) -> RequestRecord {
    RequestRecord {
        id,
        client: ip("198.51.100.7"),
        protocol: Protocol::Http2,
        status: 429,
        bytes_in: 12,
        bytes_out: 34_567,
        latency_us: 890_123,
        verdict: VerdictKind::Limited,
        reason: Reason::Limit("login".into()),
        login: None,
        text: RecordText::new(TextFields {
            method: b"POST",
            host: b"shop.example.com",
            path: b"/suspicious",
            query: b"a=1&b=2",
            user_agent: b"Mozilla/5.0",
            referer: b"https://example.com/",
            user: b"alice",
        }),
    }
}

/// The columns of the view in their order, with every value as text.
fn view(dir: &std::path::Path) -> Vec<Vec<(String, String)>> {
    let connection = plain(dir);
    let mut statement = connection.prepare("SELECT * FROM request_log").unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let rows = statement.query_map([], |row| {
        (0..names.len())
            .map(|n| {
                let value = match row.get_ref(n)? {
                    rusqlite::types::ValueRef::Null => "NULL".to_owned(),
                    rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                    rusqlite::types::ValueRef::Real(number) => number.to_string(),
                    rusqlite::types::ValueRef::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                    rusqlite::types::ValueRef::Blob(_) => "BLOB".to_owned(),
                };
                Ok((names[n].clone(), value))
            })
            .collect()
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn every_column_is_in_the_view_and_in_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogSettings::default(), Box::new(Lisbon)).unwrap();
    let id = RequestId::new(UnixMs(1_767_225_599_120), 0xFEDC_BA98);
    // Three times: inline, interned, and from the dictionary.
    write(&log, [full(id), full(id), full(id)]);

    let expected = [
        ("id", id.to_string()),
        ("time", "2025-12-31T23:59:59.120Z".to_owned()),
        ("time_ms", "1767225599120".to_owned()),
        ("ip", "198.51.100.7".to_owned()),
        ("method", "POST".to_owned()),
        ("host", "shop.example.com".to_owned()),
        ("path", "/suspicious".to_owned()),
        ("query", "a=1&b=2".to_owned()),
        ("status", "429".to_owned()),
        ("bytes_in", "12".to_owned()),
        ("bytes_out", "34567".to_owned()),
        ("latency_us", "890123".to_owned()),
        ("user_agent", "Mozilla/5.0".to_owned()),
        ("referer", "https://example.com/".to_owned()),
        ("protocol", "HTTP/2".to_owned()),
        ("user", "alice".to_owned()),
        ("country", "PT".to_owned()),
        ("city", "Lisbon".to_owned()),
        ("region", "Lisboa".to_owned()),
        ("latitude", "38.72".to_owned()),
        ("longitude", "-9.14".to_owned()),
        ("isp", "Tejo \"Net\"".to_owned()),
        ("asn", "64500".to_owned()),
        ("verdict", "limited".to_owned()),
        ("reason", "limit:login".to_owned()),
        ("is_suspicious", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    assert_eq!(view(dir.path()), vec![expected.to_vec(); 3]);

    let rows = LogReader::open(dir.path()).unwrap().rows(&LogFilter::default(), 9).unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!(row.location, lisbon());
        assert_eq!((row.id, row.client, row.verdict), (id, ip("198.51.100.7"), VerdictKind::Limited));
        // What --json prints has the view's names and values.
        let json = serde_json::to_value(&row).unwrap();
        for (name, value) in &expected {
            let shown = match &json[name] {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Bool(flag) => u8::from(*flag).to_string(),
                other => other.to_string(),
            };
            assert_eq!(&shown, value, "{name}");
        }
        assert_eq!(json.as_object().unwrap().len(), expected.len());
    }
}

#[test]
fn what_is_missing_is_empty_or_null() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    let mut record = request(1, UnixMs(0));
    record.text = RecordText::new(TextFields::default());
    (record.protocol, record.status, record.verdict) = (Protocol::Unknown, 0, VerdictKind::Malformed);
    write(&log, [record]);
    let row: HashMap<_, _> = view(dir.path()).remove(0).into_iter().collect();
    for name in ["method", "host", "path", "query", "user_agent", "referer", "protocol", "user", "reason"] {
        assert_eq!(row[name], "", "{name}");
    }
    for name in ["country", "city", "region", "latitude", "longitude", "isp", "asn"] {
        assert_eq!(row[name], "NULL", "{name}");
    }
    assert_eq!(row["is_suspicious"], "0");
}

#[test]
fn the_views_id_is_the_text_of_the_request_id() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    let times =
        [0, 1, 7, 8, 31, 32, 1_767_225_599_120, now().0, (1 << 48) - 1, 0x5555_5555_5555, 0x2AAA_AAAA_AAAA];
    let randoms =
        [0, 1, 0x3FFF_FFFF, 0x4000_0000, 0x7FFF_FFFF, 0x8000_0000, 0xC000_0001, u32::MAX, 0x5A5A_A5A5];
    let ids: Vec<RequestId> = times
        .into_iter()
        .flat_map(|time| randoms.map(|random| RequestId::new(UnixMs(time), random)))
        .collect();
    write(&log, ids.iter().map(|id| RequestRecord { id: *id, ..request(0, UnixMs(0)) }));
    let shown: Vec<String> = view(dir.path()).into_iter().map(|row| row[0].1.clone()).collect();
    assert_eq!(shown, ids.iter().map(RequestId::to_string).collect::<Vec<_>>());
    let reader = LogReader::open(dir.path()).unwrap();
    for id in ids {
        assert_eq!(reader.find(id).unwrap().map(|row| row.id), Some(id));
    }
}

#[test]
fn hostile_strings_survive_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    let hostile = [
        "/\0/nul",
        "'); DROP TABLE slices; --",
        "\"\\`${x}%s",
        "\u{1b}[2J\u{202e}",
        "<script>alert(1)</script>",
        "=1+1",
        "123",
        "0",
        "/\u{fffd}\u{1f600}",
    ];
    // Each twice in each column, so that both forms of storage meet it.
    let records: Vec<_> = (0..2)
        .flat_map(|_| hostile)
        .map(|nasty| {
            let bytes = nasty.as_bytes();
            RequestRecord {
                reason: Reason::Limit(nasty.into()),
                text: RecordText::new(TextFields {
                    method: bytes,
                    host: bytes,
                    path: bytes,
                    query: bytes,
                    user_agent: bytes,
                    referer: bytes,
                    user: bytes,
                }),
                ..request(1, UnixMs(5))
            }
        })
        .collect();
    write(&log, records.clone());
    let mut seen = Vec::new();
    let reader = LogReader::open(dir.path()).unwrap();
    reader
        .visit(UnixMs(0), UnixMs(9), &mut |row| {
            for text in [row.host, row.path, row.query, row.user_agent, row.referer, row.user] {
                assert_eq!(text, row.path);
            }
            assert_eq!(row.reason, format!("limit:{}", row.path));
            seen.push((row.method.to_owned(), row.path.to_owned()));
            ControlFlow::Continue(())
        })
        .unwrap();
    let offered: Vec<_> =
        records.iter().map(|r| (r.text.method().to_owned(), r.text.path().to_owned())).collect();
    assert_eq!(seen, offered);
    for (row, record) in view(dir.path()).iter().zip(&records) {
        assert_eq!(row[6].1, record.text.path());
    }
    // A method that ends where another one's host begins is another shape.
    assert!(reader.rows(&LogFilter::default(), 99).unwrap().iter().all(|row| row.host == row.path));
}

#[test]
fn bytes_that_are_no_text_are_stored_as_replacement_characters() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    let broken = RecordText::new(TextFields { path: b"/\xff\xfe", ..TextFields::default() });
    write(&log, [RequestRecord { text: broken, ..request(1, UnixMs(5)) }]);
    assert_eq!(view(dir.path())[0][6].1, "/\u{fffd}\u{fffd}");
}

/// Holds the writer up until it is let go.
struct Gate(std::sync::mpsc::Receiver<()>);

impl Enrich for Gate {
    fn location(&mut self, _: portcullis_model::ClientIp) -> portcullis_model::Location {
        let _ = self.0.recv();
        portcullis_model::Location::default()
    }

    fn is_suspicious(&mut self, _: &RequestRecord) -> bool {
        false
    }
}

#[test]
fn with_a_full_queue_each_request_is_written_or_counted_as_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (open, gate) = std::sync::mpsc::channel();
    let settings = LogSettings { queue: 100, ..LogSettings::default() };
    let log = Log::start(dir.path(), settings, Box::new(Gate(gate))).unwrap();
    let offered = 8 * 5_000;
    let taken: usize = std::thread::scope(|scope| {
        let offer = |thread: u32| {
            let recorder = log.recorder();
            move || (0..5_000).filter(|n| recorder.offer(request(thread * 5_000 + n, now()))).count()
        };
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(offer(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(taken < offered, "the queue was to overflow");
    drop(open);
    log.flusher().flush().unwrap();
    let stats = log.stats();
    assert_eq!(stats.written(), taken as u64);
    assert_eq!(stats.written() + stats.dropped(), offered as u64);
    assert_eq!(stats.queued(), 0);
    assert_eq!(count(dir.path()), taken as u64);
}

#[test]
fn a_shutdown_commits_what_was_offered_and_refuses_what_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    let (recorder, stats) = (log.recorder(), log.stats());
    for n in 0..1_000 {
        assert!(recorder.offer(request(n, now())));
    }
    log.shutdown();
    assert!(!recorder.offer(request(1_000, now())));
    assert_eq!((stats.written(), stats.dropped()), (1_000, 1));
    assert_eq!(LogReader::open(dir.path()).unwrap().count().unwrap(), 1_000);
    assert_sound(dir.path(), "log.db");
    let wal = std::fs::metadata(dir.path().join("log.db-wal"));
    assert!(wal.map_or(0, |meta| meta.len()) == 0, "the write-ahead log is emptied at the end");
}

#[test]
fn a_restart_goes_on_in_the_same_slice() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let log = start(dir.path());
        write(
            &log,
            (0..5_000).map(|n| request_to(n, UnixMs(round * 10_000 + i64::from(n)), "192.0.2.1", "/p", 200)),
        );
        assert_eq!(log.stats().slices(), 1);
    }
    let reader = LogReader::open(dir.path()).unwrap();
    assert_eq!(reader.count().unwrap(), 15_000);
    // The zones, too, go on where they stopped.
    let mut inside = 0;
    let mut count = |_: &LoggedRequest<'_>| {
        inside += 1;
        ControlFlow::Continue(())
    };
    reader.visit(UnixMs(10_000), UnixMs(20_000), &mut count).unwrap();
    assert_eq!(inside, 5_000);
    let strings: i64 = plain(dir.path())
        .query_row("SELECT count(*) FROM strings WHERE text = '/p'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(strings, 1);
}

#[test]
fn random_paths_do_not_fill_the_dictionary() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    write(&log, (0..3_000).map(|n| request_to(n, now(), "192.0.2.1", &format!("/{n}"), 404)));
    let strings: i64 =
        plain(dir.path()).query_row("SELECT count(*) FROM strings", [], |row| row.get(0)).unwrap();
    // The empty string and the user agent.
    assert_eq!(strings, 2);
}

#[test]
fn a_row_is_readable_within_the_flush_interval_without_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    assert!(log.recorder().offer(request(1, now())));
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while count(dir.path()) == 0 {
        assert!(std::time::Instant::now() < patience, "the batch was never committed");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(log.stats().last_commit_ms() > 0);
}

#[test]
fn limited_requests_become_events_per_client_rule_endpoint_and_minute() {
    let dir = tempfile::tempdir().unwrap();
    drop(State::open(dir.path()).unwrap());
    let log = start(dir.path());
    let limited = |client: &str, path: &str, at: i64, verdict| RequestRecord {
        client: ip(client),
        verdict,
        reason: Reason::Limit("login".into()),
        text: text(path, "", ""),
        ..request(1, UnixMs(at))
    };
    let (hit, would) = (VerdictKind::Limited, VerdictKind::WouldLimit);
    write(
        &log,
        [
            limited("2001:db8::1", "/login", 60_000, hit),
            limited("2001:db8::2", "/login", 119_999, hit),
            limited("2001:db8::2", "/login", 120_000, hit),
            limited("2001:db8::2", "/login", 120_000, would),
            limited("192.0.2.1", "/login", 120_000, hit),
            request(7, UnixMs(120_000)),
        ],
    );
    // A second batch adds to the same minute.
    write(&log, [limited("2001:db8::3", "/login", 60_001, hit)]);
    let state = State::open_read_only(dir.path()).unwrap();
    let mut events: Vec<_> = state
        .limit_events(UnixMs(0), 99)
        .unwrap()
        .into_iter()
        .map(|e| (e.client.to_string(), e.minute.0, e.action, e.count))
        .collect();
    events.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(
        events,
        [
            ("192.0.2.1".to_owned(), 120_000, hit, 1),
            ("2001:db8::".to_owned(), 120_000, hit, 1),
            ("2001:db8::".to_owned(), 120_000, would, 1),
            ("2001:db8::".to_owned(), 60_000, hit, 3),
        ]
    );
}

#[test]
fn limit_events_stay_bounded_whatever_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    drop(State::open(dir.path()).unwrap());
    let log = start(dir.path());
    let at = UnixMs(60_000);
    write(
        &log,
        (0..3_000).map(|n| RequestRecord {
            verdict: VerdictKind::Limited,
            reason: Reason::Limit("login".into()),
            text: text(&format!("/{n}"), "", ""),
            ..request(n, at)
        }),
    );
    let events = State::open_read_only(dir.path()).unwrap().limit_events(UnixMs(0), 9_999).unwrap();
    assert!(events.len() < 3_000, "{}", events.len());
    assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 3_000);
    assert!(events.iter().any(|event| event.endpoint == "*"));
}

#[test]
fn a_flood_of_random_paths_leaves_few_limit_events_however_often_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    drop(State::open(dir.path()).unwrap());
    let log = start(dir.path());
    // Each call ends with the events in the state database, as each second of a flood does.
    for second in 0..5 {
        write(
            &log,
            (0..400).map(|n| RequestRecord {
                verdict: VerdictKind::Limited,
                reason: Reason::Limit("everything".into()),
                text: text(&format!("/{second}/{n}"), "", ""),
                ..request(n, UnixMs(60_000 + i64::from(second)))
            }),
        );
    }
    let events = State::open_read_only(dir.path()).unwrap().limit_events(UnixMs(0), 9_999).unwrap();
    assert!(events.len() <= 513, "{} events of one client, rule and minute", events.len());
    assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 2_000);
}

#[test]
fn a_second_gateway_is_told_that_the_log_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    let second = Log::start(dir.path(), LogSettings::default(), Box::new(NoEnrichment));
    let error = second.unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("--data"));
    log.shutdown();
    start(dir.path());
}

#[test]
fn a_location_that_comes_late_is_shown_by_all_rows_of_the_client() {
    let dir = tempfile::tempdir().unwrap();
    // Every row makes the slice full, so that there is a sealed one too.
    let settings =
        LogSettings { max_bytes: 32 << 20, retention: Duration::from_secs(64), ..LogSettings::default() };
    let log = Log::start(dir.path(), settings, Box::new(NoEnrichment)).unwrap();
    write(
        &log,
        [request_to(1, now(), "198.51.100.7", "/1", 200), request_to(2, now(), "198.51.100.8", "/2", 200)],
    );
    std::thread::sleep(Duration::from_millis(1_100));
    write(&log, [request_to(3, now(), "198.51.100.7", "/3", 200)]);
    let slices: i64 =
        plain(dir.path()).query_row("SELECT count(*) FROM slices", [], |row| row.get(0)).unwrap();
    assert_eq!(slices, 2);
    let since = UnixMs(now().0 - 60_000);
    let coverage = |reader: &LogReader| {
        let coverage = reader.coverage(since).unwrap();
        (coverage.clients, coverage.with_country)
    };
    assert_eq!(coverage(&LogReader::open(dir.path()).unwrap()), (2, 0));

    let locator = log.locator();
    assert!(locator.locate(ip("198.51.100.7"), &lisbon()));
    assert!(locator.locate(ip("203.0.113.1"), &lisbon()), "nobody has seen this client: nothing happens");
    log.flusher().flush().unwrap();

    let city = |path: &str| {
        let sql = "SELECT city FROM request_log WHERE path = ?1";
        plain(dir.path()).query_row(sql, [path], |row| row.get::<_, Option<String>>(0)).unwrap()
    };
    assert_eq!(
        [city("/1"), city("/2"), city("/3")],
        [Some("Lisbon".to_owned()), None, Some("Lisbon".to_owned())]
    );
    let reader = LogReader::open(dir.path()).unwrap();
    assert_eq!(coverage(&reader), (2, 1));
    assert_eq!(reader.clients_without_country(since, 9).unwrap(), [ip("198.51.100.8")]);
    // What comes afterwards finds the numbers as they are in the database.
    write(&log, (4..9).map(|n| request_to(n, now(), "198.51.100.7", "/4", 200)));
    assert_eq!(city("/4").as_deref(), Some("Lisbon"));
    log.shutdown();
    assert_sound(dir.path(), "log.db");
}
