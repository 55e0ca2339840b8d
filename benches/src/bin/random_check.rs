//! Millions of requests of which nothing comes twice: memory stays bounded, nobody new is refused, and the one
//! who asks too often is.
//!
//! Owns the rules, the bounds and the two ways to ask: the decision itself, and the gateway through sockets.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use ipnet::IpNet;
use portcullis_benches::contestants;
use portcullis_benches::lists;
use portcullis_benches::load::MAX_CONNECTIONS;
use portcullis_benches::metrics;
use portcullis_benches::process::{Program, free_address, memory_of};
use portcullis_benches::random::{self, MAX_REQUESTS, Sender, Tallies, Words};
use portcullis_benches::report::megabytes;
use portcullis_benches::upstream::Upstream;
use portcullis_model::{ClientIp, UnixMs, normalise_path};
use portcullis_policy::{
    BlockChange, ClientIpSource, LimitRule, LiveState, Now, PrefixSet, RequestFacts, Snapshot, Verdict,
    client_ip, decide,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What everybody may do: so many requests per period.
const RATE: &str = "20/1m";
const RATE_COUNT: usize = 20;
const RATE_WINDOW_MS: u64 = 60_000;
/// What the limiter may hold; stated in `policy/src/limiter.rs`.
const MAX_LIMITER_BYTES: u64 = 64 << 20;
/// What the gateway may grow by: the limiter, the log's queue of 64 MiB, its dictionaries of 16 MiB, what it
/// knows of 131,072 clients, SQLite's cache, and the buffers of the connections.
const MAX_GROWTH: u64 = 256 << 20;
/// Blocked prefixes, which nobody here is in.
const BLOCKED_PREFIXES: usize = 100_000;
/// Requests per second of the decisions' own clock.
const SIMULATED_RATE: u64 = 20_000;
const REPORTS: u64 = 10;
const POLL: Duration = Duration::from_millis(200);

/// Random clients, forwarded headers, paths, queries, hosts and user agents, each of them new. On loopback only.
#[derive(Parser)]
struct Options {
    /// Requests through sockets.
    #[arg(long, default_value_t = 10_000_000)]
    requests: u64,
    /// Decisions without sockets.
    #[arg(long, default_value_t = 10_000_000)]
    decisions: u64,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Worker threads of the gateway.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The folder with portcullis; default: where this program is.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Where the databases are written; default: the system's temporary folder. Each request takes some 200 bytes.
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("random_check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    if options.requests.max(options.decisions) > MAX_REQUESTS {
        bail!("at most {MAX_REQUESTS} requests: the clients would come again");
    }
    if options.connections == 0 || options.connections > MAX_CONNECTIONS {
        bail!("--connections must be from 1 to {MAX_CONNECTIONS}");
    }
    let mut passed = true;
    if options.decisions > 0 {
        passed &= decisions(options.decisions)?;
    }
    if options.requests > 0 {
        let folder = match &options.folder {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        passed &= requests(options, folder.context("no temporary folder")?.path())?;
    }
    println!("\n{}", if passed { "PASS" } else { "FAIL" });
    Ok(passed)
}

/// Prints one finding; returns whether it is as it should be.
fn holds(is_so: bool, what: &str) -> bool {
    println!("  {} {what}", if is_so { "ok  " } else { "FAIL" });
    is_so
}

fn judge(tallies: &Tallies) -> bool {
    let [new, abuser, regular] = [&tallies.new, &tallies.abuser, &tallies.regular];
    let failed = tallies.failed.load(Ordering::Relaxed);
    println!();
    let checks = [
        holds(
            new.refused() == 0,
            &format!("clients never seen before: {} served, {} refused", new.served(), new.refused()),
        ),
        holds(
            regular.refused() == 0,
            &format!("a regular visitor: {} served, {} refused", regular.served(), regular.refused()),
        ),
        holds(
            abuser.served() + abuser.refused() < 4 * RATE_COUNT as u64
                || abuser.refused() > abuser.served() / 2,
            &format!("the abuser ({RATE}): {} served, {} refused", abuser.served(), abuser.refused()),
        ),
        holds(failed == 0, &format!("requests without an answer: {failed}")),
    ];
    checks.iter().all(|&check| check)
}

/// The way of a request through the crates that decide, with a clock of its own.
fn decisions(count: u64) -> anyhow::Result<bool> {
    println!("decisions   {count}, at {SIMULATED_RATE} per second of their clock");
    let before = memory_of(std::process::id())?.anonymous;
    let rules = rules()?;
    let state = LiveState::default();
    let start = Now { wall: UnixMs(1_800_000_000_000), monotonic_ms: 1_000_000 };
    let block = |(id, network)| BlockChange::Add { network, id, expires_at: None, spares_users: false };
    state.blocks.apply((1..).zip(lists::prefixes(BLOCKED_PREFIXES)).map(block), start);
    let trusted: PrefixSet<IpNet> =
        ["127.0.0.0/8"].iter().filter_map(|n| n.parse().ok()).map(|n: IpNet| (n, n)).collect();
    let peer = ClientIp::new(IpAddr::V4(Ipv4Addr::LOCALHOST));

    let tallies = Tallies::default();
    let mut abuse = Trailing::default();
    let mut most = 0;
    let began = Instant::now();
    println!(
        "\n  {:>12} {:>14} {:>14} {:>14} {:>9}",
        "decisions", "limiter keys", "limiter MB", "evictions", "MB"
    );
    for n in 0..count {
        let sender = Sender::of(n);
        let words = Words::of(n, sender);
        let elapsed_ms = n * 1_000 / SIMULATED_RATE;
        let now = Now {
            wall: UnixMs(start.wall.0 + i64::try_from(elapsed_ms)?),
            monotonic_ms: start.monotonic_ms + elapsed_ms,
        };
        let line = [words.forwarded.as_bytes()];
        let client = client_ip(peer, &trusted, &ClientIpSource::XForwardedFor, line.into_iter());
        let path = normalise_path(words.path.as_bytes());
        let facts = RequestFacts::new(client, "GET", &words.host, path);
        let is_admitted = matches!(decide(&rules, &state, &facts, now).verdict, Verdict::Admit);
        tallies.of(sender).count(is_admitted);
        if sender == Sender::Abuser && is_admitted {
            abuse.admit(now.monotonic_ms);
        }
        // As the gateway's schedule does, once a second.
        if n.is_multiple_of(SIMULATED_RATE) {
            state.limiter.sweep(now.monotonic_ms);
        }
        if (n + 1).is_multiple_of((count / REPORTS).max(1)) {
            let stats = state.limiter.stats();
            most = most.max(stats.bytes);
            println!(
                "  {:>12} {:>14} {:>14.1} {:>14} {:>9.0}",
                n + 1,
                stats.keys,
                megabytes(stats.bytes),
                stats.evictions,
                megabytes(memory_of(std::process::id())?.anonymous.saturating_sub(before)),
            );
        }
    }
    let per = began.elapsed().as_secs_f64() * 1e6 / count as f64;
    let mut passed = judge(&tallies);
    passed &= holds(
        abuse.most <= RATE_COUNT,
        &format!("the most that the abuser got in any minute: {}", abuse.most),
    );
    passed &= holds(
        most <= MAX_LIMITER_BYTES,
        &format!(
            "the limiter's memory: {:.1} MB of at most {:.1}",
            megabytes(most),
            megabytes(MAX_LIMITER_BYTES)
        ),
    );
    println!("       {per:.2} µs for each, its making included\n");
    Ok(passed)
}

fn rules() -> anyhow::Result<Snapshot> {
    let rule = LimitRule::per_client("everybody", RATE.parse().map_err(anyhow::Error::msg)?);
    Ok(Snapshot { limits: vec![Arc::new(rule)], ..Snapshot::default() })
}

/// How many requests were admitted in any trailing window.
#[derive(Default)]
struct Trailing {
    admitted: VecDeque<u64>,
    most: usize,
}

impl Trailing {
    fn admit(&mut self, now_ms: u64) {
        self.admitted.push_back(now_ms);
        while self.admitted.front().is_some_and(|&at| at + RATE_WINDOW_MS <= now_ms) {
            self.admitted.pop_front();
        }
        self.most = self.most.max(self.admitted.len());
    }
}

/// Through sockets, to a gateway that logs everything.
fn requests(options: &Options, dir: &Path) -> anyhow::Result<bool> {
    println!(
        "requests    {} through sockets, {} connections; gateway with {} worker threads",
        options.requests, options.connections, options.threads
    );
    let upstream = Upstream::start(dir)?;
    let (address, metrics) = (free_address()?, free_address()?);
    let text = config(upstream.address(), address, metrics, options.threads);
    let programs = options.programs.clone().map_or_else(contestants::programs, Ok)?;
    let blocks = lists::prefixes(BLOCKED_PREFIXES);
    let gateway = contestants::configured_gateway(&programs, dir, "random", &text, address, &blocks)?;
    let program = &gateway.contestant.program;
    let before = program.memory()?.anonymous;
    let began = Instant::now();
    let tallies = Arc::new(Tallies::default());
    let (count, connections, shared) = (options.requests, options.connections, Arc::clone(&tallies));
    let sender = std::thread::spawn(move || random::send(address, count, connections, &shared));
    let peak = follow(program, metrics, count, &tallies, || sender.is_finished())?;
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    let took = began.elapsed().as_secs_f64();

    let mut passed = judge(&tallies);
    let limiter = peak.limiter;
    passed &= holds(
        limiter <= MAX_LIMITER_BYTES,
        &format!(
            "the limiter's memory: {:.1} MB of at most {:.1}",
            megabytes(limiter),
            megabytes(MAX_LIMITER_BYTES)
        ),
    );
    let growth = peak.memory.saturating_sub(before);
    passed &= holds(
        growth <= MAX_GROWTH,
        &format!(
            "the gateway's memory: {:.0} MB before, {:.0} at the most: {:.0} MB more, of at most {:.0}",
            megabytes(before),
            megabytes(peak.memory),
            megabytes(growth),
            megabytes(MAX_GROWTH)
        ),
    );
    let (cpu, done) = (program.cpu()?, tallies.done());
    let finished = gateway.finish()?;
    let answered = done - tallies.failed.load(Ordering::Relaxed);
    passed &= holds(
        finished.new_rows() == answered,
        &format!("rows in the log: {} of {answered} requests that were answered", finished.new_rows()),
    );
    println!(
        "       {:.0} requests/s, {:.1} µs of CPU time each; log {:.0} B/row",
        done as f64 / took,
        cpu.as_secs_f64() * 1e6 / done.max(1) as f64,
        finished.log_bytes as f64 / finished.rows.max(1) as f64,
    );
    Ok(passed)
}

/// The most that was seen, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    memory: u64,
    limiter: u64,
}

fn follow(
    program: &Program,
    metrics: SocketAddr,
    count: u64,
    tallies: &Tallies,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<Peak> {
    let mut peak = Peak::default();
    let step = (count / REPORTS).max(1);
    let mut next = step;
    println!(
        "\n  {:>12} {:>14} {:>14} {:>14} {:>9} {:>9}",
        "requests", "limiter keys", "limiter MB", "evictions", "lost rows", "MB"
    );
    loop {
        let over = is_over();
        let memory = program.memory()?.anonymous;
        peak.memory = peak.memory.max(memory);
        if tallies.done() >= next || over {
            next = (tallies.done() / step + 1) * step;
            let figures = metrics::read(metrics)?;
            let figure = |name| metrics::value(&figures, name);
            let bytes = figure("portcullis_limiter_bytes").unwrap_or(f64::MAX);
            peak.limiter = peak.limiter.max(bytes as u64);
            println!(
                "  {:>12} {:>14} {:>14.1} {:>14} {:>9} {:>9.0}",
                tallies.done(),
                figure("portcullis_limiter_keys").unwrap_or(f64::NAN),
                bytes / 1e6,
                figure("portcullis_limiter_evictions_total").unwrap_or(f64::NAN),
                figure("portcullis_log_rows_lost_total").unwrap_or(f64::NAN),
                megabytes(memory),
            );
        }
        if over {
            return Ok(peak);
        }
        std::thread::sleep(POLL);
    }
}

fn config(upstream: SocketAddr, listen: SocketAddr, metrics: SocketAddr, threads: usize) -> String {
    format!(
        r#"mode = "enforce"

[[upstream]]
name = "app"
servers = ["http://{upstream}"]

[server]
listen = ["{listen}"]
threads = {threads}
trusted_proxies = ["127.0.0.1"]

[[limit]]
name = "everybody"
rate = "{RATE}"

[console]
listen = "off"

[metrics]
listen = "{metrics}"
"#
    )
}
