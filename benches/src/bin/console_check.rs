//! How long the console's pages take on a large log, and what they do to the requests beside them.
//!
//! Owns the questions and the targets. The log is made by the store's example `console_reads`, once, and read by a real
//! gateway; pages are asked for over HTTP, signed in, as a browser does.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use portcullis_benches::lists;
use portcullis_benches::load::{self, Answers, Load, Until};
use portcullis_benches::report::median;
use portcullis_testkit::{Client, Gateway, GatewayConfig, Request, Upstream};

/// Targets of the project.
const PAGE_MS: f64 = 300.0;
const OVERVIEW_MS: f64 = 500.0;
const P99_GROWTH: f64 = 1.10;

/// A page, what it asks, and in which time it is to come.
const PAGES: [(&str, f64); 22] = [
    ("/?range=hour", OVERVIEW_MS),
    ("/?range=day", OVERVIEW_MS),
    ("/?range=week", OVERVIEW_MS),
    ("/?range=month", OVERVIEW_MS),
    ("/requests", PAGE_MS),
    ("/requests?ip=10.1.1.1", PAGE_MS),
    ("/requests?ip=203.0.113.7", PAGE_MS),
    ("/requests?ip=192.0.2.1", PAGE_MS),
    ("/requests?ip=203.0.113.0%2F24", PAGE_MS),
    ("/requests?path=%2Fnever%2Fasked%2Ffor", PAGE_MS),
    ("/requests?path=*rare*", PAGE_MS),
    ("/requests?status=404", PAGE_MS),
    ("/requests?status=418", PAGE_MS),
    ("/requests?verdict=limited", PAGE_MS),
    ("/requests?country=ZZ", PAGE_MS),
    ("/requests?asn=65000", PAGE_MS),
    ("/requests?host=nowhere.example", PAGE_MS),
    ("/requests?method=DELETE", PAGE_MS),
    ("/requests?user=nobody", PAGE_MS),
    ("/requests?agent=seldom", PAGE_MS),
    ("/requests?suspicious=yes", PAGE_MS),
    ("/clients/203.0.113.7", PAGE_MS),
];
/// Between two pages while requests are measured: somebody who looks around quickly.
const LOOK_AROUND: Duration = Duration::from_millis(300);

/// Times of the console's pages on a large log, and the proxy's p99 with and without somebody looking.
#[derive(Parser)]
struct Options {
    /// The folder of a log that `cargo run --release -p portcullis-store --example console_reads -- 10000000 FOLDER` has
    /// made; its state.db is replaced.
    #[arg(long)]
    data: PathBuf,
    /// How often each page is asked for.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Loads with and without somebody looking, in turns.
    #[arg(long, default_value_t = 5)]
    loads: usize,
    /// Seconds of each load.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Connections of the load. Two keep a machine of two cores busy and leave it some room; from about eight on nothing is
    /// left, and whatever else runs is seen in the p99.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// The gateway; default: beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    if !options.data.join("log.db").is_file() {
        bail!("{} holds no log.db; see --help", options.data.display());
    }
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let file = options.data.join(name);
        if file.exists() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("portcullis"),
    };
    let binary = binary.canonicalize().with_context(|| format!("there is no {}", binary.display()))?;
    let upstream = Upstream::start();
    let config = GatewayConfig::new(&binary.to_string_lossy())
        .upstream(&upstream)
        .behind_local_proxy()
        .server("threads = 1")
        .section("[detection]\nlive = false")
        .section("[log]\nretention = \"3650d\"\nmax_size = \"64GiB\"")
        .console()
        .data(&options.data);
    let gateway = Gateway::start(config);
    let cookie = sign_in(&gateway)?;
    let pages = measure_pages(&gateway, &cookie, options.rounds);
    let requests = measure_requests(&gateway, &cookie, options)?;
    println!("{}", if pages && requests { "PASS" } else { "FAIL" });
    Ok(pages && requests)
}

/// Makes the first account by the link that the gateway has printed; the answer is its cookie.
fn sign_in(gateway: &Gateway) -> anyhow::Result<String> {
    let link = gateway.console_url();
    let token = link.split_once("token=").context("the gateway printed no link to set it up")?.1;
    let form = format!("token={token}&name=bench&password=four+old+lamps&again=four+old+lamps");
    let request = Request::post("/setup", form)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Origin", &format!("http://{}", gateway.console()));
    let answer = Client::connect(gateway.console()).send(&request);
    let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    cookie.map(ToOwned::to_owned).with_context(|| format!("the set-up failed: {}", answer.text()))
}

fn open(gateway: &Gateway, cookie: &str, page: &str) -> (u16, usize, Duration) {
    let began = Instant::now();
    let answer = Client::connect(gateway.console()).send(&Request::get(page).header("Cookie", cookie));
    (answer.status(), answer.body.len(), began.elapsed())
}

/// Whether each page comes in its time. The middle of the rounds counts: the machine may be shared.
fn measure_pages(gateway: &Gateway, cookie: &str, rounds: usize) -> bool {
    println!(
        "  {:<44} {:>8} {:>8} {:>8} {:>8}  {:>7}",
        "page", "first ms", "median", "worst", "target", "KB"
    );
    let mut all_passed = true;
    for (page, target) in PAGES {
        let mut times = Vec::new();
        let mut size = 0;
        let mut is_shown = true;
        for _ in 0..rounds.max(1) {
            let (status, bytes, took) = open(gateway, cookie, page);
            is_shown &= status == 200;
            size = bytes;
            times.push(took.as_secs_f64() * 1e3);
        }
        let (first, middle) = (times[0], median(times.iter().copied()));
        let worst = times.iter().copied().fold(0.0, f64::max);
        let passed = is_shown && middle <= target;
        all_passed &= passed;
        println!(
            "  {page:<44} {first:>8.1} {middle:>8.1} {worst:>8.1} {target:>8.0}  {:>7.1} {}",
            size as f64 / 1e3,
            if passed { "" } else { "FAIL" }
        );
    }
    all_passed
}

/// Whether requests are answered as quickly while somebody looks around.
fn measure_requests(gateway: &Gateway, cookie: &str, options: &Options) -> anyhow::Result<bool> {
    let clients: Arc<[_]> = lists::clients(lists::CLIENTS).into();
    let one = |seed| Load {
        target: gateway.address(),
        connections: options.connections,
        clients: Arc::clone(&clients),
        until: Until::Elapsed(Duration::from_secs(options.seconds)),
        seed,
    };
    // The first requests meet buffers and maps that have yet to grow.
    load::run(&one(0))?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut pages = 0;
    for round in 1..=options.loads.max(1) as u64 {
        alone.push(load::run(&one(round))?);
        let is_over = AtomicBool::new(false);
        let (answers, opened) = std::thread::scope(|scope| {
            let looking = scope.spawn(|| look_around(gateway, cookie, &is_over));
            let answers = load::run(&one(round));
            is_over.store(true, Ordering::Relaxed);
            (answers, looking.join())
        });
        beside.push(answers?);
        pages += opened.unwrap_or(0);
    }
    let p99 =
        |all: &[Answers]| median(all.iter().map(|answers| answers.percentile(0.99).as_secs_f64() * 1e3));
    let rate = |all: &[Answers]| {
        median(all.iter().map(|answers| answers.answered() as f64 / answers.took.as_secs_f64()))
    };
    let growth = p99(&beside) / p99(&alone);
    println!(
        "  p99 alone {:.2} ms at {:.0} requests/s; with {pages} pages opened {:.2} ms at {:.0} requests/s: {growth:.2} times, \
         target {P99_GROWTH}",
        p99(&alone),
        rate(&alone),
        p99(&beside),
        rate(&beside)
    );
    Ok(growth <= P99_GROWTH && pages > 0)
}

/// Opens one page after the other until the load is over; returns how many.
fn look_around(gateway: &Gateway, cookie: &str, is_over: &AtomicBool) -> usize {
    let mut opened = 0;
    for (page, _) in PAGES.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let (status, ..) = open(gateway, cookie, page);
        opened += usize::from(status == 200);
        std::thread::sleep(LOOK_AROUND);
    }
    opened
}
