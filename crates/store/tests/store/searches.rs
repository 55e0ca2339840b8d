//! What is found by the sums of zones is what is found by looking at every row.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_model::{
    ClientIp, Location, Reason, RecordText, RequestRecord, TextFields, UnixMs, VerdictKind,
};
use portcullis_store::{
    Enrich, FieldRetention, Log, LogFilter, LogReader, LogRow, LogSettings, OverviewSpan, Page, StatusFilter,
    Subject, TopCount,
};
use rusqlite::Connection;

use crate::support::{assert_sound, ip, now, request_to};

const MINUTE: i64 = 60_000;
const ALL: usize = usize::MAX;

/// A small generator with a fixed seed (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }

    /// Small numbers far more often than large ones.
    fn skewed(&mut self, bound: u64) -> u64 {
        self.below(bound) * self.below(bound) / bound * self.below(bound) / bound
    }
}

/// A country for each second octet, an ASN for each third; nothing is known of IPv6.
struct Atlas;

impl Enrich for Atlas {
    fn location(&mut self, client: ClientIp) -> Location {
        let text = client.to_string();
        let octet = |n: usize| text.split('.').nth(n).and_then(|octet| octet.parse::<u32>().ok());
        let Some((second, third)) = octet(1).zip(octet(2)) else { return Location::default() };
        Location {
            country: Some(["PT", "NL", "US", "BR"][second as usize % 4].to_owned()),
            asn: Some(64_500 + third),
            isp: Some(format!("Net {third}")),
            ..Location::default()
        }
    }

    fn is_suspicious(&mut self, record: &RequestRecord) -> bool {
        record.text.path().contains("admin")
    }
}

fn record(random: &mut Random, n: u32, time: UnixMs) -> RequestRecord {
    let client = match random.below(20) {
        0 => format!("2001:db8:{:x}::{:x}", random.skewed(5), random.skewed(40)),
        _ => format!("10.{}.{}.{}", random.skewed(9), random.skewed(4), random.skewed(200)),
    };
    let path = match random.below(30) {
        0 => format!("/scan/{:x}.php", random.below(1 << 40)),
        1 => format!("/admin/{}", random.skewed(9)),
        _ => format!("/page/{}", random.skewed(900)),
    };
    let query = match random.below(9) {
        0 => format!("Token={:x}", random.below(1 << 40)),
        1 => format!("p={}", random.skewed(90)),
        _ => String::new(),
    };
    let agent = match random.below(40) {
        0 => String::new(),
        1 => format!("Scanner/{}", random.below(9_000)),
        _ => format!("Browser/{}.0", random.skewed(50)),
    };
    let user = if random.below(9) == 0 { format!("user{}", random.skewed(300)) } else { String::new() };
    let (verdict, reason, status) = match random.below(40) {
        0 => (VerdictKind::Blocked, Reason::Block(random.skewed(9) as i64), 403),
        1 => (VerdictKind::Limited, Reason::Limit("login".into()), 429),
        2 => (VerdictKind::Admitted, Reason::None, 500),
        3..6 => (VerdictKind::Admitted, Reason::None, 404),
        _ => (VerdictKind::Admitted, Reason::None, 200),
    };
    RequestRecord {
        verdict,
        reason,
        latency_us: random.skewed(900_000),
        bytes_out: random.below(9_000),
        text: RecordText::new(TextFields {
            method: if random.below(7) == 0 { b"POST" } else { b"GET" },
            host: if random.below(5) == 0 { b"b.example.com" } else { b"a.example.com" },
            path: path.as_bytes(),
            query: query.as_bytes(),
            user_agent: agent.as_bytes(),
            user: user.as_bytes(),
            ..TextFields::default()
        }),
        ..request_to(n, time, &client, "/", status)
    }
}

/// Slices of about 9,000 rows: two zones and a part of one.
fn settings() -> LogSettings {
    LogSettings { max_bytes: 32 << 20, ..LogSettings::default() }
}

fn fill(log: &Log, random: &mut Random, rows: std::ops::Range<u32>) {
    let start = now().minus(Duration::from_secs(3 * 3_600)).0;
    let recorder = log.recorder();
    for n in rows {
        // One in a hundred took up to an hour.
        let late = if random.below(100) == 0 { random.below(3_600_000) as i64 } else { 0 };
        let time = start + i64::from(n) * 200 - late;
        let record = record(random, n, UnixMs(time));
        while !recorder.offer(record.clone()) {
            log.flusher().flush().unwrap();
        }
        if n % 4_000 == 0 {
            log.flusher().flush().unwrap();
        }
    }
    log.flusher().flush().unwrap();
}

/// The filter once more, in other words.
fn passes(filter: &LogFilter, row: &LogRow) -> bool {
    let has = |wanted: &Option<String>, got: &str| {
        wanted.as_deref().is_none_or(|wanted| got.to_lowercase().contains(&wanted.to_lowercase()))
    };
    let is = |wanted: &Option<String>, got: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(got))
    };
    let path = filter.path.as_deref().is_none_or(|pattern| match pattern.split_once('*') {
        Some((head, tail)) => {
            row.path.len() >= head.len() + tail.len()
                && row.path.starts_with(head)
                && row.path.ends_with(tail)
        }
        None => row.path.starts_with(pattern),
    });
    path && filter.network.is_none_or(|network| network.contains(&row.client.ip()))
        && is(&filter.method, &row.method)
        && is(&filter.host, &row.host)
        && has(&filter.query, &row.query)
        && has(&filter.user_agent, &row.user_agent)
        && filter.user.as_deref().is_none_or(|user| user == row.user)
        && filter.verdict.is_none_or(|verdict| verdict == row.verdict)
        && filter.reason.as_deref().is_none_or(|reason| row.reason.starts_with(reason))
        && filter.is_suspicious.is_none_or(|wanted| wanted == row.is_suspicious)
        && filter.country.is_none() | is(&filter.country, row.location.country.as_deref().unwrap_or("-"))
        && filter.asn.is_none_or(|asn| row.location.asn == Some(asn))
        && filter.since.is_none_or(|since| row.time() >= since)
        && filter.until.is_none_or(|until| row.time() < until)
        && filter.status.is_none_or(|status| match status {
            StatusFilter::Exact(status) => status == row.status,
            StatusFilter::Class(class) => u16::from(class) == row.status / 100,
        })
}

/// Asks for one or two things that a row has, or that none has.
fn filter(random: &mut Random, rows: &[LogRow]) -> LogFilter {
    let mut filter = LogFilter::default();
    for _ in 0..=random.below(2) {
        let row = &rows[random.below(rows.len() as u64) as usize];
        let part = |text: &str| {
            let from = text.len() / 3;
            Some(text.get(from..).unwrap_or("").to_uppercase())
        };
        let network = |bits: u8| ipnet::IpNet::new(row.client.ip(), bits).map(|network| network.trunc()).ok();
        match random.below(24) {
            0 => filter.network = Some(row.client.ip().into()),
            1 => filter.network = network(24),
            2 => filter.network = network(if row.client.ip().is_ipv4() { 14 } else { 44 }),
            3 => filter.network = "192.0.2.0/24".parse().ok(),
            4 => filter.method = Some("post".to_owned()),
            5 => filter.host = Some(row.host.to_uppercase()),
            6 => filter.path = Some(row.path.clone()),
            7 => filter.path = row.path.get(..row.path.len() - 1).map(str::to_owned),
            8 => filter.path = Some("/scan/*.php".to_owned()),
            9 => filter.path = Some("/nowhere".to_owned()),
            10 => filter.query = part(&row.query),
            11 => filter.query = Some("no such".to_owned()),
            12 => filter.user_agent = part(&row.user_agent),
            13 => filter.user_agent = Some("scanner/7".to_owned()),
            14 => filter.user = Some(row.user.clone()),
            15 => filter.user = Some("nobody".to_owned()),
            16 => filter.status = Some(StatusFilter::Class(4)),
            17 => filter.status = Some(StatusFilter::Exact(row.status)),
            18 => filter.verdict = Some(row.verdict),
            19 => filter.reason = Some("limit:".to_owned()),
            20 => filter.is_suspicious = Some(random.below(2) == 0),
            21 => filter.country = row.location.country.as_deref().map(str::to_lowercase),
            22 => filter.asn = row.location.asn,
            _ => {
                filter.since = Some(row.time());
                filter.until = Some(UnixMs(row.time().0 + 20 * MINUTE));
            }
        }
    }
    filter
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// All pages of a filter, of so many rows each.
fn turn(reader: &LogReader, filter: &LogFilter, limit: usize) -> Vec<LogRow> {
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let Page { rows, next, is_complete, .. } = reader.page(filter, before, limit, soon()).unwrap();
        assert!(is_complete && rows.len() <= limit);
        found.extend(rows);
        match next {
            Some(next) => before = Some(next.to_string().parse().unwrap()),
            None => return found,
        }
    }
}

/// Random filters find what a look at every row finds.
fn compare(dir: &Path, random: &mut Random, times: usize) {
    let reader = LogReader::open(dir).unwrap();
    let all = reader.rows(&LogFilter::default(), ALL).unwrap();
    assert_eq!(all.len() as u64, reader.count().unwrap());
    for _ in 0..times {
        let filter = filter(random, &all);
        let expected: Vec<&LogRow> = all.iter().filter(|row| passes(&filter, row)).collect();
        let limit = (expected.len() / 3).max(5);
        let found = turn(&reader, &filter, limit);
        let ids = |rows: &mut dyn Iterator<Item = &LogRow>| rows.map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(&mut found.iter()), ids(&mut expected.iter().copied()), "{filter:?}");
        assert!(found.iter().zip(&expected).all(|(found, expected)| found == *expected));
    }
    compare_overview(&reader, &all, random);
    compare_similar(&reader, &all, random);
}

/// Neighbours are counted as the rows say.
fn compare_similar(reader: &LogReader, all: &[LogRow], random: &mut Random) {
    let own = &all[random.below(all.len() as u64) as usize];
    let similar = reader.similar_clients(own.client, UnixMs(0), ALL, soon()).unwrap();
    let mut network: BTreeMap<ClientIp, u64> = BTreeMap::new();
    let of_asn = all.iter().filter(|row| row.location.asn.is_some() && row.location.asn == own.location.asn);
    let mut asn: BTreeMap<ClientIp, u64> = BTreeMap::new();
    of_asn.for_each(|row| *asn.entry(row.client).or_default() += 1);
    for row in
        all.iter().filter(|row| row.client != own.client && row.client.network() == own.client.network())
    {
        *network.entry(row.client).or_default() += 1;
    }
    let found: BTreeMap<ClientIp, u64> =
        similar.network.iter().map(|found| (found.client, found.requests)).collect();
    assert_eq!(found, network);
    for found in &similar.asn {
        assert!(found.client != own.client && found.requests <= asn[&found.client]);
    }
    assert!(similar.user_agent.iter().all(|found| found.client != own.client));
}

/// Sums are those of the rows.
fn compare_overview(reader: &LogReader, all: &[LogRow], random: &mut Random) {
    let newest = all.iter().map(|row| row.time().0).max().unwrap();
    for hours in [1, 2, 9] {
        let from = UnixMs(newest - hours * 60 * MINUTE - random.below(90_000) as i64);
        let span = OverviewSpan { from, to: UnixMs(newest + 1), buckets: 1 + random.below(99) as usize };
        let overview = reader.overview(span, ALL, soon()).unwrap();
        assert!(overview.is_complete && overview.from <= span.from && overview.to >= span.to);
        let within: Vec<&LogRow> =
            all.iter().filter(|row| row.time() >= overview.from && row.time() < overview.to).collect();
        assert_eq!(overview.totals.requests, within.len() as u64);
        assert_eq!(overview.totals.bytes_out, within.iter().map(|row| row.bytes_out).sum::<u64>());
        let refused = within.iter().filter(|row| row.verdict.is_refusal()).count() as u64;
        assert_eq!(overview.totals.refused(), refused);
        for (n, bucket) in overview.series.iter().enumerate() {
            assert_eq!(bucket.start.0, overview.from.0 + n as i64 * overview.bucket_ms);
            let end = UnixMs(bucket.start.0 + overview.bucket_ms);
            let rows = within.iter().filter(|row| row.time() >= bucket.start && row.time() < end);
            assert_eq!(bucket.traffic.requests, rows.count() as u64, "{n}");
        }
        let mut latencies: Vec<u64> = within.iter().map(|row| row.latency_us).collect();
        latencies.sort_unstable();
        let median = latencies[(latencies.len() - 1) / 2];
        let found = overview.totals.latencies.percentile(0.5).unwrap();
        assert!(found >= median && found <= median + median / 4 + 1, "{found} for {median}");
        assert_counts(&overview.countries, &within, |row| row.location.country.clone());
        assert_counts(&overview.hosts, &within, |row| Some(row.host.clone()));
        assert_counts(&overview.clients, &within, |row| Some(row.client.to_string()));
        let map = reader.by_country(span.from, span.to, soon()).unwrap();
        assert_eq!(map.iter().map(|count| count.requests).sum::<u64>(), {
            let to = UnixMs((span.to.0 + MINUTE - 1) / MINUTE * MINUTE);
            let length = ((span.to.0 - span.from.0) + MINUTE - 1) / MINUTE * MINUTE;
            let first = UnixMs(span.from.0 / length * length);
            all.iter().filter(|row| row.time() >= first && row.time() < to.max(first)).count() as u64
        });
    }
}

/// The counts that are told are exact, as these logs are small.
fn assert_counts(counts: &[TopCount], rows: &[&LogRow], key: impl Fn(&LogRow) -> Option<String>) {
    let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let (requests, refused) = expected.entry(key(row).unwrap_or_default()).or_default();
        *requests += 1;
        *refused += u64::from(row.verdict.is_refusal());
    }
    for count in counts.iter().take(20) {
        assert_eq!(expected.get(&count.key), Some(&(count.requests, count.refused)), "{}", count.key);
    }
    let most = expected.values().map(|(requests, _)| *requests).max();
    assert_eq!(counts.first().map(|count| count.requests), most);
}

/// How many of the full zones have sums, of how many, and how many slices have.
fn sums(dir: &Path) -> (i64, i64, i64) {
    let connection = Connection::open(dir.join("log.db")).unwrap();
    let one = |sql: &str| connection.query_row(sql, [], |row| row.get(0)).unwrap();
    (
        one("SELECT count(*) FROM zone_sums WHERE id & 15 = 1 AND (id & 4294967295) < 4294967280"),
        one("SELECT count(*) FROM zones"),
        one("SELECT count(*) FROM zone_sums WHERE id & 15 = 1 AND (id & 4294967295) >= 4294967280"),
    )
}

/// Waits until everything sealed has its sums.
fn settle(dir: &Path, log: &Log, settings: &LogSettings) {
    let until = soon();
    loop {
        log.apply(settings);
        log.flusher().flush().unwrap();
        let (with_sums, zones, slices) = sums(dir);
        if with_sums == zones && slices + 1 == i64::try_from(log.stats().slices()).unwrap() {
            return;
        }
        assert!(Instant::now() < until, "{with_sums} of {zones} zones have sums, {slices} slices");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn pages_and_sums_are_those_of_the_rows_whatever_happens_to_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let log = Log::start(dir.path(), settings(), Box::new(Atlas)).unwrap();
    fill(&log, &mut random, 0..3_000);
    compare(dir.path(), &mut random, 30);
    fill(&log, &mut random, 3_000..30_000);
    settle(dir.path(), &log, &settings());
    assert!(log.stats().slices() > 2, "the test needs several slices");
    compare(dir.path(), &mut random, 100);

    let busy = ip("10.0.0.0");
    let erased = log.eraser().erase(Subject::Address(vec![busy])).unwrap();
    assert!(erased.requests > 100);
    log.eraser().erase(Subject::User("user0".to_owned())).unwrap();
    compare(dir.path(), &mut random, 40);
    settle(dir.path(), &log, &settings());
    compare(dir.path(), &mut random, 40);

    // Another process goes on with the zone that is not full.
    log.shutdown();
    let log = Log::start(dir.path(), settings(), Box::new(Atlas)).unwrap();
    fill(&log, &mut random, 30_000..38_000);
    assert!(
        log.locator()
            .locate(ip("10.1.1.1"), &Location { country: Some("JP".to_owned()), ..Location::default() })
    );
    log.flusher().flush().unwrap();
    log.flusher().flush().unwrap();
    compare(dir.path(), &mut random, 40);

    let short = Duration::from_secs(3_600);
    let fields = FieldRetention { addresses: Some(short), queries: Some(short), ..FieldRetention::default() };
    let scrubbing = LogSettings { fields, ..settings() };
    settle(dir.path(), &log, &scrubbing);
    let scrubbed = || {
        let sql = "SELECT count(*) FROM slices WHERE scrubbed > 0 OR sealed_ms IS NULL OR max_ms > ?1";
        let young = [now().minus(short).0];
        let connection = Connection::open(dir.path().join("log.db")).unwrap();
        connection.query_row(sql, young, |row| row.get::<_, i64>(0)).unwrap() as u64
    };
    let until = soon();
    while scrubbed() < log.stats().slices() {
        assert!(Instant::now() < until, "nothing is taken out");
        settle(dir.path(), &log, &scrubbing);
    }
    compare(dir.path(), &mut random, 40);

    let kept = LogSettings { retention: Duration::from_secs(2 * 3_600), ..settings() };
    let before = log.stats().slices();
    settle(dir.path(), &log, &kept);
    assert!(log.stats().slices() <= before);
    compare(dir.path(), &mut random, 40);
    log.shutdown();
    assert_sound(dir.path(), "log.db");
}

#[test]
fn a_log_of_an_earlier_version_is_read_and_gets_its_sums() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(7);
    let log = Log::start(dir.path(), settings(), Box::new(Atlas)).unwrap();
    fill(&log, &mut random, 0..26_000);
    settle(dir.path(), &log, &settings());
    log.shutdown();
    let earlier = Connection::open(dir.path().join("log.db")).unwrap();
    earlier.execute_batch("DROP TABLE zone_sums; DROP TABLE string_marks; PRAGMA user_version = 2;").unwrap();
    drop(earlier);
    compare(dir.path(), &mut random, 30);
    let log = Log::start(dir.path(), settings(), Box::new(Atlas)).unwrap();
    compare(dir.path(), &mut random, 30);
    fill(&log, &mut random, 26_000..40_000);
    settle(dir.path(), &log, &settings());
    compare(dir.path(), &mut random, 40);
    log.shutdown();
    assert_sound(dir.path(), "log.db");
}

#[test]
fn a_search_that_is_out_of_time_says_how_far_it_came_and_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(9);
    let log = Log::start(dir.path(), settings(), Box::new(Atlas)).unwrap();
    fill(&log, &mut random, 0..30_000);
    let reader = LogReader::open(dir.path()).unwrap();
    let nobody = LogFilter { user: Some("nobody".to_owned()), ..LogFilter::default() };
    let (mut before, mut looks, mut searched_to) = (None, 0, UnixMs(i64::MAX));
    loop {
        let page = reader.page(&nobody, before, 9, Instant::now()).unwrap();
        looks += 1;
        assert_eq!(page.rows, []);
        assert!(page.searched_to <= searched_to);
        searched_to = page.searched_to;
        before = page.next;
        if page.next.is_none() {
            assert!(page.is_complete);
            break;
        }
        assert!(!page.is_complete && looks < 99);
    }
    assert!(looks > 3, "{looks} looks");
}
