//! What the commands ask the log.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use portcullis_model::{Reason, RequestId, RequestRecord, UnixMs, VerdictKind};
use portcullis_store::{
    Log, LogCursor, LogFilter, LogReader, LogSettings, LoggedRequest, State, StatusFilter, StoreError, TopBy,
};
use tempfile::TempDir;

use crate::support::{Lisbon, ip, now, request, request_to, start, text, write};

/// 20,000 requests over five zones: one per millisecond, by ten clients, every tenth to a missing page.
fn busy() -> (TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogSettings::default(), Box::new(Lisbon)).unwrap();
    write(
        &log,
        (0..20_000).map(|n| {
            let client = format!("198.51.100.{}", n % 10);
            let (path, status) = if n % 10 == 3 { ("/missing", 404) } else { ("/page", 200) };
            request_to(n, UnixMs(1_000_000 + i64::from(n)), &client, path, status)
        }),
    );
    (dir, log)
}

fn paths(rows: &[portcullis_store::LogRow]) -> Vec<&str> {
    rows.iter().map(|row| row.path.as_str()).collect()
}

#[test]
fn a_folder_that_cannot_be_looked_into_is_not_called_empty() {
    let dir = tempfile::tempdir().unwrap();
    let no_folder = dir.path().join("file");
    std::fs::write(&no_folder, "").unwrap();
    for error in [LogReader::open(&no_folder).err(), State::open_read_only(&no_folder).err()] {
        assert!(matches!(error, Some(StoreError::Hidden { .. })), "{error:?}");
    }
}

#[test]
fn a_folder_without_a_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let error = LogReader::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::NoLog(_)));
    let text = error.to_string();
    assert!(text.contains("no log at ") && text.contains("log.db yet"), "{text}");
    assert!(!dir.path().join("log.db").exists(), "reading creates nothing");
}

#[test]
fn a_visit_sees_exactly_its_window_in_order() {
    let (dir, _log) = busy();
    let reader = LogReader::open(dir.path()).unwrap();
    for (from, to) in
        [(0, i64::MAX), (1_000_000, 1_000_001), (1_004_095, 1_008_193), (1_019_999, 1_030_000), (5, 9)]
    {
        let mut times = Vec::new();
        let mut note = |row: &LoggedRequest<'_>| {
            times.push(row.id.time().0);
            ControlFlow::Continue(())
        };
        let count = reader.visit(UnixMs(from), UnixMs(to), &mut note).unwrap();
        let expected: Vec<i64> = (1_000_000..1_020_000).filter(|at| (from..to).contains(at)).collect();
        assert_eq!(times, expected, "{from}..{to}");
        assert_eq!(count, expected.len() as u64);
    }
    assert_eq!(reader.count().unwrap(), 20_000);
    assert_eq!(reader.span().unwrap(), Some((UnixMs(1_000_000), UnixMs(1_019_999))));
}

#[test]
fn a_request_that_took_an_hour_is_found_by_its_start() {
    let (dir, log) = busy();
    // It began before all others and ended after them.
    let slow = RequestRecord { latency_us: 3_600_000_000, ..request(77, UnixMs(400_000)) };
    write(&log, [slow.clone()]);
    write(&log, (0..9_000).map(|n| request(n, UnixMs(2_000_000 + i64::from(n)))));
    let reader = LogReader::open(dir.path()).unwrap();
    assert_eq!(reader.find(slow.id).unwrap().unwrap().latency_us, 3_600_000_000);
    let mut seen = 0;
    let mut count = |_: &LoggedRequest<'_>| {
        seen += 1;
        ControlFlow::Continue(())
    };
    reader.visit(UnixMs(300_000), UnixMs(500_000), &mut count).unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn a_visit_ends_where_it_is_broken_off() {
    let (dir, _log) = busy();
    let reader = LogReader::open(dir.path()).unwrap();
    let mut seen = 0;
    let mut ten = |_: &LoggedRequest<'_>| {
        seen += 1;
        if seen == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert_eq!(reader.visit(UnixMs(0), UnixMs(i64::MAX), &mut ten).unwrap(), 10);
    assert_eq!(seen, 10);
}

#[test]
fn every_request_is_found_by_its_id_and_others_are_not() {
    let (dir, _log) = busy();
    let reader = LogReader::open(dir.path()).unwrap();
    for n in [0_u32, 1, 4_095, 4_096, 4_097, 12_345, 19_999] {
        let id = RequestId::new(UnixMs(1_000_000 + i64::from(n)), n);
        assert_eq!(reader.find(id).unwrap().unwrap().id, id);
        let other = RequestId::new(id.time(), n + 1);
        assert_eq!(reader.find(other).unwrap(), None);
    }
    assert_eq!(reader.find(RequestId::new(UnixMs(9), 0)).unwrap(), None);
}

#[test]
fn filters_narrow_the_newest_rows() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogSettings::default(), Box::new(Lisbon)).unwrap();
    let blocked = RequestRecord {
        verdict: VerdictKind::Blocked,
        reason: Reason::Block(4),
        ..request_to(3, UnixMs(30), "2001:db8::1", "/c.php", 403)
    };
    write(
        &log,
        [
            request_to(1, UnixMs(10), "192.0.2.1", "/a", 200),
            request_to(2, UnixMs(20), "198.51.100.2", "/b/admin", 404),
            blocked,
            request_to(4, UnixMs(40), "192.0.2.200", "/d", 503),
        ],
    );
    let reader = LogReader::open(dir.path()).unwrap();
    let ask = |filter: LogFilter| {
        let rows = reader.rows(&filter, 99).unwrap();
        paths(&rows).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let none = LogFilter::default;
    assert_eq!(ask(none()), ["/d", "/c.php", "/b/admin", "/a"]);
    assert_eq!(ask(LogFilter { network: Some("192.0.2.0/24".parse().unwrap()), ..none() }), ["/d", "/a"]);
    assert_eq!(ask(LogFilter { network: Some("192.0.2.1/32".parse().unwrap()), ..none() }), ["/a"]);
    assert_eq!(ask(LogFilter { network: Some("192.0.2.9/32".parse().unwrap()), ..none() }), [""; 0]);
    assert_eq!(ask(LogFilter { network: Some("2001:db8::/32".parse().unwrap()), ..none() }), ["/c.php"]);
    assert_eq!(ask(LogFilter { path: Some("*.php".to_owned()), ..none() }), ["/c.php"]);
    assert_eq!(ask(LogFilter { path: Some("/b".to_owned()), ..none() }), ["/b/admin"]);
    assert_eq!(ask(LogFilter { status: Some(StatusFilter::Class(4)), ..none() }), ["/c.php", "/b/admin"]);
    assert_eq!(ask(LogFilter { status: Some(StatusFilter::Exact(503)), ..none() }), ["/d"]);
    assert_eq!(ask(LogFilter { status: Some(StatusFilter::Exact(201)), ..none() }), [""; 0]);
    assert_eq!(ask(LogFilter { verdict: Some(VerdictKind::Blocked), ..none() }), ["/c.php"]);
    assert_eq!(ask(LogFilter { country: Some("pt".to_owned()), ..none() }), ["/b/admin"]);
    let window = LogFilter { since: Some(UnixMs(20)), until: Some(UnixMs(40)), ..none() };
    assert_eq!(ask(window), ["/c.php", "/b/admin"]);
    assert_eq!(paths(&reader.rows(&none(), 2).unwrap()), ["/d", "/c.php"]);
    assert_eq!(reader.rows(&none(), 0).unwrap(), []);
}

#[test]
fn a_tail_shows_each_row_once_across_calls_and_slices() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings { max_bytes: 16 << 20, ..LogSettings::default() };
    let log = Log::start(dir.path(), settings, Box::new(Lisbon)).unwrap();
    let start_of_test = now();
    let add = |log: &Log, range: std::ops::Range<u32>| {
        for part in range.clone().step_by(5_000) {
            write(
                log,
                (part..part + 5_000)
                    .map(|n| request_to(n, start_of_test, "192.0.2.1", &format!("/{n}"), 200)),
            );
        }
    };
    add(&log, 0..20_000);
    let reader = LogReader::open(dir.path()).unwrap();
    assert!(log.stats().slices() > 1, "the test needs several slices");
    let filter = LogFilter { path: Some("*7".to_owned()), ..LogFilter::default() };
    let mut seen = Vec::new();
    let mut cursor = LogCursor::default();
    for round in 0.. {
        let (rows, next) = reader.tail(&filter, cursor, 300).unwrap();
        seen.extend(rows.iter().map(|row| row.id.random()));
        cursor = next;
        if rows.len() < 300 {
            if round > 0 && seen.len() == 4_000 {
                break;
            }
            add(&log, 20_000..40_000);
        }
    }
    assert_eq!(seen, (0..40_000).filter(|n| n % 10 == 7).collect::<Vec<u32>>());
    assert_eq!(cursor, reader.end().unwrap());
    assert_eq!(reader.tail(&filter, cursor, 9).unwrap(), (Vec::new(), cursor));
}

#[test]
fn the_top_counts_requests_refusals_and_errors() {
    let (dir, log) = busy();
    let refused = RequestRecord {
        verdict: VerdictKind::Blocked,
        reason: Reason::Block(1),
        ..request_to(1, UnixMs(3_000_000), "198.51.100.3", "/page", 403)
    };
    write(&log, [refused]);
    let reader = LogReader::open(dir.path()).unwrap();
    let top = reader.top(TopBy::Ip, UnixMs(0), 3).unwrap();
    assert_eq!(top.len(), 3);
    assert_eq!((top[0].key.as_str(), top[0].requests), ("198.51.100.3", 2_001));
    assert_eq!((top[0].refused, top[0].errors, top[0].last_seen), (1, 2_000, UnixMs(3_000_000)));
    let top = reader.top(TopBy::Path, UnixMs(0), 9).unwrap();
    assert_eq!(
        top.iter().map(|row| (row.key.as_str(), row.requests)).collect::<Vec<_>>(),
        [("/page", 18_001), ("/missing", 2_000)]
    );
    assert_eq!(top[0].bytes_out, 1_800_100);
    let key = |by| reader.top(by, UnixMs(0), 1).unwrap().remove(0).key;
    assert_eq!(key(TopBy::Country), "PT");
    assert_eq!(key(TopBy::Asn), "AS64500 Tejo \"Net\"");
    assert_eq!(key(TopBy::Host), "example.com");
    assert_eq!(key(TopBy::UserAgent), "curl/8");
    assert_eq!(reader.top(TopBy::Ip, UnixMs(2_000_000), 9).unwrap().len(), 1);
}

#[test]
fn a_client_report_sums_up_one_client_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogSettings::default(), Box::new(Lisbon)).unwrap();
    let hour = 3_600_000;
    let me = "198.51.100.9";
    let limited = RequestRecord {
        verdict: VerdictKind::Limited,
        reason: Reason::Limit("login".into()),
        bytes_in: 7,
        ..request_to(5, UnixMs(2 * hour + 5), me, "/login", 429)
    };
    let other_agent =
        RequestRecord { text: text("/", "", "other"), ..request_to(6, UnixMs(2 * hour + 6), me, "/", 301) };
    write(
        &log,
        [
            request_to(1, UnixMs(hour - 1), me, "/before", 200),
            request_to(2, UnixMs(hour), me, "/admin", 404),
            request_to(3, UnixMs(hour + 1), me, "/admin", 404),
            request_to(4, UnixMs(2 * hour), me, "/x", 502),
            limited,
            other_agent,
            request_to(7, UnixMs(2 * hour), "192.0.2.1", "/admin", 404),
            request_to(8, UnixMs(3 * hour), me, "/after", 200),
        ],
    );
    let reader = LogReader::open(dir.path()).unwrap();
    let report = reader
        .client_report(ip(me), UnixMs(hour), UnixMs(3 * hour), &|path| path.starts_with("/admin"))
        .unwrap();
    assert_eq!((report.requests, report.answered), (5, 4));
    assert_eq!((report.client_errors, report.server_errors), (2, 1));
    assert!((report.error_rate - 0.5).abs() < 1e-9);
    assert_eq!((report.bytes_in, report.bytes_out, report.distinct_paths), (7, 500, 4));
    assert_eq!(
        (report.sensitive.count, report.sensitive.samples.as_slice()),
        (2, ["/admin".to_owned()].as_slice())
    );
    assert_eq!(report.verdicts, BTreeMap::from([("admitted", 4), ("limited", 1)]));
    assert_eq!(
        (report.statuses.redirect, report.statuses.client_error, report.statuses.server_error),
        (1, 3, 1)
    );
    assert_eq!(report.per_hour, [(UnixMs(hour), 2), (UnixMs(2 * hour), 3)]);
    assert_eq!(report.top_paths[0], ("/admin".to_owned(), 2));
    assert_eq!(report.user_agents, [("curl/8".to_owned(), 4), ("other".to_owned(), 1)]);
    assert_eq!((report.first_seen, report.last_seen), (Some(UnixMs(hour)), Some(UnixMs(2 * hour + 6))));
    assert_eq!(report.location.city.as_deref(), Some("Lisbon"));

    let nobody = reader.client_report(ip("203.0.113.1"), UnixMs(0), UnixMs(9 * hour), &|_| true).unwrap();
    assert_eq!((nobody.requests, nobody.first_seen), (0, None));
}

#[test]
fn an_open_reader_sees_what_is_committed_after_it_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    let reader = LogReader::open(dir.path()).unwrap();
    assert_eq!((reader.count().unwrap(), reader.span().unwrap()), (0, None));
    write(&log, [request(1, UnixMs(10))]);
    assert_eq!(reader.count().unwrap(), 1);
    drop(log);
    assert_eq!(reader.rows(&LogFilter::default(), 9).unwrap().len(), 1);
}

#[test]
fn similar_clients_share_a_network_an_asn_or_a_user_agent() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogSettings::default(), Box::new(Lisbon)).unwrap();
    let with_agent = |n, client: &str, agent: &str| RequestRecord {
        text: text("/", "", agent),
        ..request_to(n, UnixMs(50), client, "/", 200)
    };
    let refused =
        RequestRecord { verdict: VerdictKind::Blocked, ..with_agent(4, "192.0.2.77", "Scanner/1.0 (twin)") };
    write(
        &log,
        [
            with_agent(1, "198.51.100.1", "Scanner/1.0"),
            with_agent(2, "198.51.100.2", "Other/1"),
            with_agent(3, "192.0.2.66", "Scanner/1.0"),
            refused,
            with_agent(5, "192.0.2.66", "Scanner/1.0"),
            request_to(6, UnixMs(9), "198.51.100.3", "/", 200),
        ],
    );
    let reader = LogReader::open(dir.path()).unwrap();
    let soon = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let similar = reader.similar_clients(ip("198.51.100.1"), UnixMs(10), 9, soon).unwrap();
    let told = |found: &[portcullis_store::SimilarClient]| {
        found.iter().map(|found| (found.client.to_string(), found.requests)).collect::<Vec<_>>()
    };
    assert_eq!(told(&similar.network), [("198.51.100.2".to_owned(), 1)]);
    assert_eq!(told(&similar.asn), [("198.51.100.2".to_owned(), 1)]);
    assert_eq!(told(&similar.user_agent), [("192.0.2.66".to_owned(), 2)]);
    assert!(similar.is_complete);
    let unknown = reader.similar_clients(ip("203.0.113.1"), UnixMs(0), 9, soon).unwrap();
    assert_eq!(told(&unknown.network), []);
}
