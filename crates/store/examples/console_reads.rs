//! Measures how long the console waits for the log: pages of each kind of filter, overviews of each span. Owns the load
//! and the targets; must not share code with the tests.
//!
//! `cargo run --release -p portcullis-store --example console_reads [-- ROWS FOLDER [SLICES]]`; the log is kept in
//! FOLDER and used again by the next run. Ends with status 1 when a target is missed.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis_model::{
    ClientIp, Location, Protocol, Reason, RecordText, RequestId, RequestRecord, TextFields, UnixMs,
    VerdictKind,
};
use portcullis_store::{Enrich, Log, LogFilter, LogReader, LogSettings, OverviewSpan, StatusFilter};

const DEFAULT_ROWS: u64 = 10_000_000;
const DEFAULT_SLICES: u64 = 64;
const CLIENTS: u64 = 50_000;
const PATHS: u64 = 5_000;
const QUERIES: u64 = 3_000;
const AGENTS: u64 = 300;
const USERS: u64 = 500;
const NETWORKS: u64 = 200;
const HOSTS: [&str; 4] = ["shop.example.com", "www.example.com", "api.example.com", "static.example.com"];
const DAY_MS: u64 = 24 * 3_600_000;
const SPAN_MS: u64 = 29 * DAY_MS;
const PAGE: usize = 50;
const PAGE_TARGET_MS: f64 = 300.0;
const OVERVIEW_TARGET_MS: f64 = 500.0;
const TOP: usize = 10;
/// Rows of each rare value, evenly over the log.
const RARE: u64 = 3;
/// Room for a row with all that belongs to it, for the division into slices.
const ROW_BYTES: u64 = 86;

/// Countries and ASNs by the second octet; the rare client's are its own.
struct Atlas;

impl Enrich for Atlas {
    fn location(&mut self, client: ClientIp) -> Location {
        let text = client.to_string();
        let octet: u32 = text.split('.').nth(1).and_then(|part| part.parse().ok()).unwrap_or(0);
        let letter = |n: u32| char::from(b'A' + (n % 26) as u8);
        let country =
            if is_rare(&text) { "ZZ".to_owned() } else { format!("{}{}", letter(octet / 20), letter(octet)) };
        Location {
            country: Some(country),
            city: Some(format!("City {octet}")),
            region: None,
            latitude: Some(f64::from(octet) / 3.0),
            longitude: Some(f64::from(octet) / 2.0),
            asn: Some(if is_rare(&text) { 65_000 } else { 64_000 + octet }),
            isp: Some(format!("Operator {octet}")),
        }
    }

    fn is_suspicious(&mut self, record: &RequestRecord) -> bool {
        record.verdict.is_refusal()
    }
}

fn is_rare(client: &str) -> bool {
    client.starts_with("203.0.113.")
}

/// A small generator with a fixed seed (xorshift64*, Vigna 2016), so that runs can be compared.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    /// Small numbers far more often than large ones, as with people and pages.
    fn skewed(&mut self, bound: u64) -> u64 {
        let share = self.below(1 << 30) as f64 / f64::from(1 << 30);
        ((share * share * share) * bound as f64) as u64
    }
}

struct Load {
    random: Random,
    start: u64,
    rows: u64,
    login: Arc<str>,
}

impl Load {
    fn new(rows: u64) -> Self {
        let now = u64::try_from(UnixMs::from_system(SystemTime::now()).0).unwrap_or(0);
        Self { random: Random(0x9E37_79B9_7F4A_7C15), start: now - SPAN_MS, rows, login: "login".into() }
    }

    fn record(&mut self, n: u64) -> RequestRecord {
        let is_rare = n % (self.rows / RARE) == self.rows / RARE / 2;
        let random = &mut self.random;
        let number = random.skewed(CLIENTS);
        let address = match is_rare {
            true => Ipv4Addr::new(203, 0, 113, 7),
            false => {
                Ipv4Addr::new(10, (number % NETWORKS) as u8, (number / 250 % 250) as u8, (number % 250) as u8)
            }
        };
        let (verdict, reason, status) = match random.below(1_000) {
            0..25 => (VerdictKind::Blocked, Reason::Block(1 + (number % 90) as i64), 403),
            25..35 => (VerdictKind::Limited, Reason::Limit(Arc::clone(&self.login)), 429),
            35..75 => (VerdictKind::Admitted, Reason::None, 404),
            75..80 => (VerdictKind::Admitted, Reason::None, 500),
            80..140 => (VerdictKind::Admitted, Reason::None, 304),
            _ => (VerdictKind::Admitted, Reason::None, 200),
        };
        let path = match random.below(100) {
            _ if is_rare => "/only/three/times".to_owned(),
            // Scanners ask for something else each time.
            0 => format!("/{:x}/{:x}.php", random.next(), random.next() % 4_096),
            _ => {
                let page = random.skewed(PATHS);
                format!("/catalogue/section-{}/item-{page}.html", page % 23)
            }
        };
        let query = match random.below(20) {
            _ if is_rare => "token=needle-in-the-haystack".to_owned(),
            0 => format!("session={:016x}", random.next()),
            1..5 => format!("page={}&sort=price", random.skewed(QUERIES)),
            _ => String::new(),
        };
        let agent = match is_rare {
            true => "RareCrawler/1.0".to_owned(),
            false => format!(
                "Mozilla/5.0 (X11; Linux x86_64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0",
                v = random.skewed(AGENTS)
            ),
        };
        let user = match random.below(20) {
            _ if is_rare => "rare.user@example.com".to_owned(),
            0 => format!("user{}@example.com", random.skewed(USERS)),
            _ => String::new(),
        };
        let time = self.start + n * (SPAN_MS / 1_000) / self.rows * 1_000 + random.below(1_000);
        RequestRecord {
            id: RequestId::new(UnixMs(time as i64), random.next() as u32),
            client: ClientIp::new(address.into()),
            protocol: Protocol::Http11,
            status,
            bytes_in: 0,
            bytes_out: 300 + random.below(60_000),
            latency_us: 200 + random.skewed(800_000),
            verdict,
            reason,
            login: None,
            text: RecordText::new(TextFields {
                method: if random.below(10) == 0 { b"POST" } else { b"GET" },
                host: HOSTS[random.skewed(HOSTS.len() as u64) as usize].as_bytes(),
                path: path.as_bytes(),
                query: query.as_bytes(),
                user_agent: agent.as_bytes(),
                referer: b"https://shop.example.com/",
                user: user.as_bytes(),
            }),
        }
    }
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rows = arguments.next().map_or(Ok(DEFAULT_ROWS), |text| text.parse())?;
    let kept = arguments.next();
    let slices = arguments.next().map_or(Ok(DEFAULT_SLICES), |text| text.parse())?;
    let folder = kept.as_ref().map_or_else(
        || std::env::temp_dir().join(format!("portcullis-console-reads-{}", std::process::id())),
        |folder| Path::new(folder).to_path_buf(),
    );
    if !folder.join("log.db").exists() {
        write(&folder, rows, slices)?;
    }
    let is_met = measure(&folder);
    if kept.is_none() {
        fs::remove_dir_all(&folder)?;
    }
    Ok(if is_met? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(folder: &Path, rows: u64, slices: u64) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    // A slice takes one 64th of the bound, and only so many are wanted; nothing is to be dropped.
    let settings = LogSettings {
        max_bytes: rows * ROW_BYTES / slices * 64,
        // Rows come as fast as they are written.
        flush_interval: Duration::from_millis(1),
        ..LogSettings::default()
    };
    let log = Log::start(folder, settings.clone(), Box::new(Atlas))?;
    let (recorder, stats) = (log.recorder(), log.stats());
    let mut load = Load::new(rows);
    for n in 0..rows {
        let record = load.record(n);
        // Nearly empty: sealed slices are indexed in quiet moments.
        while stats.queued() as usize >= settings.queue / 32 {
            std::thread::sleep(Duration::from_millis(1));
        }
        recorder.offer(record);
    }
    log.flusher().flush()?;
    // What is left to index is indexed in the quiet that comes.
    log.apply(&settings);
    log.flusher().flush()?;
    log.shutdown();
    println!("{rows} rows written in {:.0} s, {} dropped", started.elapsed().as_secs_f64(), stats.dropped());
    Ok(())
}

struct Table {
    is_met: bool,
}

impl Table {
    fn row(&mut self, what: &str, ms: f64, target: f64, note: &str) {
        let is_met = ms <= target;
        self.is_met &= is_met;
        let verdict = if is_met { "ok" } else { "TOO SLOW" };
        println!("{what:<44} {ms:>9.1} ms  {verdict:<8}  {note}");
    }
}

fn measure(folder: &Path) -> Result<bool, Box<dyn std::error::Error>> {
    let reader = LogReader::open(folder)?;
    let size = fs::metadata(folder.join("log.db"))?.len();
    let count = reader.count()?;
    println!("{count} rows, {:.1} bytes each", size as f64 / count as f64);
    let mut table = Table { is_met: true };
    let (_, newest) = reader.span()?.ok_or("an empty log")?;
    for (what, filter) in filters(newest) {
        pages(&reader, what, &filter, &mut table)?;
    }
    for (what, days) in
        [("last hour", 1.0 / 24.0), ("last day", 1.0), ("last week", 7.0), ("last month", 30.0)]
    {
        let from = UnixMs(newest.0 - (days * DAY_MS as f64) as i64);
        overviews(&reader, what, from, newest, &mut table)?;
    }
    clients(&reader, newest, &mut table)?;
    Ok(table.is_met)
}

/// Every kind of filter: what comes all the time, what comes rarely, what never comes.
fn filters(newest: UnixMs) -> Vec<(&'static str, LogFilter)> {
    let none = LogFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let network = |text: &str| text.parse().ok();
    let ago = |days: u64| Some(UnixMs(newest.0 - (days * DAY_MS) as i64));
    vec![
        ("no filter", none()),
        ("status 2xx", LogFilter { status: Some(StatusFilter::Class(2)), ..none() }),
        ("status 500", LogFilter { status: Some(StatusFilter::Exact(500)), ..none() }),
        ("status 501, never", LogFilter { status: Some(StatusFilter::Exact(501)), ..none() }),
        ("blocked", LogFilter { verdict: Some(VerdictKind::Blocked), ..none() }),
        ("reason limit:login", LogFilter { reason: text("limit:login"), ..none() }),
        ("reason block:77", LogFilter { reason: text("block:77"), ..none() }),
        ("suspicious", LogFilter { is_suspicious: Some(true), ..none() }),
        ("method POST", LogFilter { method: text("POST"), ..none() }),
        ("host", LogFilter { host: text("api.example.com"), ..none() }),
        ("host, never", LogFilter { host: text("nowhere.example.com"), ..none() }),
        ("busy address", LogFilter { network: network("10.0.0.0/32"), ..none() }),
        ("ordinary address", LogFilter { network: network("10.145.49.95/32"), ..none() }),
        ("address, 3 times", LogFilter { network: network("203.0.113.7/32"), ..none() }),
        ("address, never", LogFilter { network: network("192.0.2.1/32"), ..none() }),
        ("network /24", LogFilter { network: network("10.145.49.0/24"), ..none() }),
        ("network /24, 3 times", LogFilter { network: network("203.0.113.0/24"), ..none() }),
        ("country", LogFilter { country: text("BF"), ..none() }),
        ("country, 3 times", LogFilter { country: text("ZZ"), ..none() }),
        ("country, never", LogFilter { country: text("YY"), ..none() }),
        ("ASN", LogFilter { asn: Some(64_123), ..none() }),
        ("ASN, 3 times", LogFilter { asn: Some(65_000), ..none() }),
        ("path prefix", LogFilter { path: text("/catalogue/"), ..none() }),
        ("path pattern", LogFilter { path: text("/cat*-7/*4999.html"), ..none() }),
        ("path of scanners", LogFilter { path: text("*.php"), ..none() }),
        ("path, 3 times", LogFilter { path: text("/only/three/times"), ..none() }),
        ("path, never", LogFilter { path: text("/wp-login.php"), ..none() }),
        ("query contains", LogFilter { query: text("page=2999"), ..none() }),
        ("query, 3 times", LogFilter { query: text("needle-in-the-haystack"), ..none() }),
        ("query, never", LogFilter { query: text("union select"), ..none() }),
        ("user agent contains", LogFilter { user_agent: text("firefox/299"), ..none() }),
        ("user agent, 3 times", LogFilter { user_agent: text("rarecrawler"), ..none() }),
        ("user agent, never", LogFilter { user_agent: text("sqlmap"), ..none() }),
        ("user", LogFilter { user: text("user499@example.com"), ..none() }),
        ("user, 3 times", LogFilter { user: text("rare.user@example.com"), ..none() }),
        ("user, never", LogFilter { user: text("nobody"), ..none() }),
        ("a day three weeks ago", LogFilter { since: ago(21), until: ago(20), ..none() }),
        (
            "500 for one path",
            LogFilter {
                path: text("/catalogue/section-1/item-24.html"),
                status: Some(StatusFilter::Exact(500)),
                ..none()
            },
        ),
        (
            "busy address and rare path",
            LogFilter { network: network("10.0.0.0/32"), path: text("/only"), ..none() },
        ),
    ]
}

fn pages(
    reader: &LogReader,
    what: &str,
    filter: &LogFilter,
    table: &mut Table,
) -> Result<(), Box<dyn std::error::Error>> {
    let deadline = || Instant::now() + Duration::from_secs(60);
    let started = Instant::now();
    let page = reader.page(filter, None, PAGE, deadline())?;
    let first = started.elapsed().as_secs_f64() * 1e3;
    let mut note = format!("{} rows", page.rows.len());
    if let Some(next) = page.next {
        let started = Instant::now();
        let page = reader.page(filter, Some(next), PAGE, deadline())?;
        let next = started.elapsed().as_secs_f64() * 1e3;
        note = format!("{note}, the next {} in {next:.1} ms", page.rows.len());
    }
    table.row(what, first, PAGE_TARGET_MS, &note);
    Ok(())
}

fn overviews(
    reader: &LogReader,
    what: &str,
    from: UnixMs,
    to: UnixMs,
    table: &mut Table,
) -> Result<(), Box<dyn std::error::Error>> {
    let deadline = || Instant::now() + Duration::from_secs(60);
    let started = Instant::now();
    let overview = reader.overview(OverviewSpan { from, to, buckets: 120 }, TOP, deadline())?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    let note = format!("{} requests, {} buckets", overview.totals.requests, overview.series.len());
    table.row(&format!("overview, {what}"), took, OVERVIEW_TARGET_MS, &note);
    let started = Instant::now();
    let countries = reader.by_country(from, to, deadline())?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    table.row(&format!("map, {what}"), took, OVERVIEW_TARGET_MS, &format!("{} countries", countries.len()));
    Ok(())
}

fn clients(reader: &LogReader, newest: UnixMs, table: &mut Table) -> Result<(), Box<dyn std::error::Error>> {
    for (what, address) in [("busy", "10.0.0.0"), ("ordinary", "10.145.49.95"), ("rare", "203.0.113.7")] {
        let client = address.parse()?;
        let started = Instant::now();
        let report = reader.client_report(client, UnixMs(0), UnixMs(i64::MAX), &|_| false)?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        let note = format!("{} requests", report.requests);
        table.row(&format!("report of a {what} client"), took, OVERVIEW_TARGET_MS, &note);
        let since = UnixMs(newest.0 - DAY_MS as i64);
        let started = Instant::now();
        let similar =
            reader.similar_clients(client, since, TOP, Instant::now() + Duration::from_millis(400))?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        let note = format!("complete: {}", similar.is_complete);
        table.row(&format!("similar clients of a {what} one"), took, OVERVIEW_TARGET_MS, &note);
    }
    Ok(())
}
