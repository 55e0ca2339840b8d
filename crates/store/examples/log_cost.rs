//! Measures what a logged request costs: CPU of the writer per row, bytes on disk per row, and how long
//! the readers take. Owns the load; must not share code with the tests.
//!
//! `cargo run --release -p portcullis-store --example log_cost [-- ROWS [FOLDER]]`; a folder that is
//! named is kept.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_model::{
    ClientIp, Location, Protocol, Reason, RecordText, RequestId, RequestRecord, TextFields, UnixMs,
    VerdictKind,
};
use portcullis_store::{Enrich, Log, LogReader, LogSettings, TopBy};

const DEFAULT_ROWS: u64 = 2_000_000;
const CLIENTS: u64 = 50_000;
const PATHS: u64 = 500;
const USER_AGENTS: [&str; 2] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36",
];
/// A day of traffic, so that times take as many bytes as they do in practice.
const SPAN_MS: u64 = 8 * 3_600_000;

/// A location like those of a city database; clients of a /16 share one.
struct Cities;

impl Enrich for Cities {
    fn location(&mut self, client: ClientIp) -> Location {
        let text = client.to_string();
        let block: u32 = text.split('.').nth(1).and_then(|part| part.parse().ok()).unwrap_or(0);
        Location {
            country: Some("DE".to_owned()),
            city: Some(format!("City {block}")),
            region: Some("Region".to_owned()),
            latitude: Some(52.5 + f64::from(block)),
            longitude: Some(13.4),
            asn: Some(64_496 + block),
            isp: Some(format!("Operator {block}")),
        }
    }

    fn is_suspicious(&mut self, _: &RequestRecord) -> bool {
        false
    }
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
}

struct Load {
    random: Random,
    pages: Vec<(String, String)>,
    start: u64,
    rows: u64,
}

impl Load {
    fn new(rows: u64) -> Self {
        let pages = (0..PATHS)
            .map(|n| (format!("/catalogue/section-{}/item-{n}.html", n % 23), format!("page={n}&sort=price")))
            .collect();
        let now = std::time::SystemTime::now();
        let now = u64::try_from(UnixMs::from_system(now).0).unwrap_or(0);
        Self { random: Random(0x9E37_79B9_7F4A_7C15), pages, start: now - SPAN_MS, rows }
    }

    fn record(&mut self, n: u64) -> RequestRecord {
        let random = &mut self.random;
        let (path, query) = &self.pages[random.below(PATHS) as usize];
        let user_agent = USER_AGENTS[random.below(2) as usize];
        let client = 0x0A00_0000 + (random.below(CLIENTS) * 257) as u32;
        let status = if random.below(20) == 0 { 404 } else { 200 };
        let time = self.start + n * SPAN_MS / self.rows;
        RequestRecord {
            id: RequestId::new(UnixMs(time as i64), random.next() as u32),
            client: ClientIp::new(std::net::Ipv4Addr::from_bits(client).into()),
            protocol: Protocol::Http11,
            status,
            bytes_in: 0,
            bytes_out: 300 + random.below(60_000),
            latency_us: 200 + random.below(80_000),
            verdict: VerdictKind::Admitted,
            reason: Reason::None,
            login: None,
            text: RecordText::new(TextFields {
                method: b"GET",
                host: b"shop.example.com",
                path: path.as_bytes(),
                query: query.as_bytes(),
                user_agent: user_agent.as_bytes(),
                referer: b"https://shop.example.com/",
                user: b"",
            }),
        }
    }
}

/// CPU seconds of the thread with this name, from /proc (clock ticks of 10 ms).
fn thread_cpu(name: &str) -> f64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return f64::NAN };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
        .filter(|stat| stat.contains(&format!("({name})")))
        .filter_map(|stat| {
            let fields: Vec<f64> =
                stat.rsplit(") ").next()?.split(' ').skip(11).take(2).flat_map(str::parse).collect();
            Some(fields.iter().sum::<f64>() / 100.0)
        })
        .sum()
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = run();
    println!("{what:<44} {:>10.1} ms", start.elapsed().as_secs_f64() * 1e3);
    value
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows = std::env::args().nth(1).map_or(Ok(DEFAULT_ROWS), |text| text.parse())?;
    if let Some(folder) = std::env::args_os().nth(2) {
        return measure(Path::new(&folder), rows);
    }
    let folder = std::env::temp_dir().join(format!("portcullis-log-cost-{}", std::process::id()));
    let result = measure(&folder, rows);
    fs::remove_dir_all(&folder)?;
    result
}

fn measure(folder: &Path, rows: u64) -> Result<(), Box<dyn std::error::Error>> {
    let settings = LogSettings { max_bytes: 1 << 40, ..LogSettings::default() };
    let log = Log::start(folder, settings.clone(), Box::new(Cities))?;
    let recorder = log.recorder();
    let stats = log.stats();
    let mut load = Load::new(rows);
    let mut sample = load.record(0);
    for n in 0..rows {
        let record = load.record(n);
        if n == rows / 2 {
            sample = record.clone();
        }
        // The measurement is of rows written, so it waits where the gateway would drop.
        while stats.queued() as usize >= settings.queue - 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        recorder.offer(record);
    }
    log.flusher().flush()?;
    let cpu = thread_cpu("portcullis-log");
    println!("{rows} rows written, {} dropped", stats.dropped());
    println!("CPU of the writer per row                    {:>10.3} µs", cpu * 1e6 / rows as f64);
    let file = |name: &str| fs::metadata(folder.join(name)).map_or(0, |meta| meta.len());
    println!(
        "log.db-wal while running                     {:>10.1} MiB",
        file("log.db-wal") as f64 / 1048576.0
    );
    log.shutdown();
    println!("bytes per row, live slice                    {:>10.1}", file("log.db") as f64 / rows as f64);

    readers(folder, &sample, rows, "no index")?;

    // A bound below the slice's size makes the next request roll it, and maintenance index it.
    let small = LogSettings { retention: Duration::from_secs(64 * 3_600), ..settings.clone() };
    let log = Log::start(folder, small.clone(), Box::new(Cities))?;
    let before = thread_cpu("portcullis-log");
    let shrunk = LogSettings { max_bytes: 64 * file("log.db") / 2, ..small };
    log.apply(&shrunk);
    log.recorder().offer(load.record(rows));
    log.flusher().flush()?;
    log.recorder().offer(load.record(rows));
    log.flusher().flush()?;
    let sealing = thread_cpu("portcullis-log") - before;
    println!("CPU to seal and index, per row               {:>10.3} µs", sealing * 1e6 / rows as f64);
    println!("slices                                       {:>10}", log.stats().slices());
    log.shutdown();
    println!("bytes per row, sealed slice                  {:>10.1}", file("log.db") as f64 / rows as f64);
    readers(folder, &sample, rows, "indexed")
}

fn readers(
    folder: &Path,
    sample: &RequestRecord,
    rows: u64,
    what: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let reader = timed("open", || LogReader::open(folder))?;
    let start = Instant::now();
    let mut bytes = 0;
    let visited = reader.visit(UnixMs(0), UnixMs(i64::MAX), &mut |request| {
        bytes += request.path.len() + request.user_agent.len();
        ControlFlow::Continue(())
    })?;
    let rate = visited as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("visit ({what}), {visited} rows, {bytes} bytes of text   {rate:>10.2} M rows/s");
    let found = timed(&format!("find ({what})"), || reader.find(sample.id))?;
    assert!(found.is_some(), "the sample of {rows} rows is in the log");
    let mut other = sample.id.random();
    other ^= 1;
    timed(&format!("find what is not there ({what})"), || {
        reader.find(RequestId::new(sample.id.time(), other))
    })?;
    let end = UnixMs(i64::MAX);
    let report = timed(&format!("client_report ({what})"), || {
        reader.client_report(sample.client, UnixMs(0), end, &|_| false)
    })?;
    println!("  of {} requests", report.requests);
    timed(&format!("top paths ({what})"), || reader.top(TopBy::Path, UnixMs(0), 10))?;
    timed(&format!("count ({what})"), || reader.count())?;
    timed(&format!("200 newest rows ({what})"), || reader.rows(&Default::default(), 200))?;
    Ok(())
}
