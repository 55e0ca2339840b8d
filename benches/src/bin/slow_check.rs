//! What thousands of slow connections cost: ordinary requests, memory, and how long they last.
//!
//! Owns the questions and the targets; an attack itself is in `slow/run.rs`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use portcullis_benches::contestants;
use portcullis_benches::lists;
use portcullis_benches::measure::{Clients, Generator, Size};
use portcullis_benches::process::free_address;
use portcullis_benches::report::megabytes;
use portcullis_benches::slow::clients::{self, Slow};
use portcullis_benches::slow::run::{Attack, Ground, Outcome, SlowUpstream, config};
use portcullis_benches::slow::{Kind, Sources, tls, upstream};

/// Targets of the project.
const MIN_RATE: f64 = 0.95;
const MAX_GROWTH: u64 = 75 << 20;
const MAX_LATE: Duration = Duration::from_secs(15);
const MAX_CONNECTIONS: usize = 5_000;
const MAX_SECONDS: u64 = 60;

/// Slow connections of four kinds, each alone and all at once, beside ordinary requests. On loopback only.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// Slow connections of each kind.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// Seconds of each ordinary load.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections of the ordinary load.
    #[arg(long, default_value_t = 64)]
    ordinary: usize,
    /// Seconds until a slow connection is to be gone.
    #[arg(long, default_value_t = 10)]
    deadline: u64,
    /// Only these kinds, each alone.
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// The folder with portcullis; default: where this program is.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// More lines for [server].
    #[arg(long, default_value = "")]
    server: String,
}

#[derive(Subcommand)]
enum Part {
    /// One process of slow clients; started by the check itself.
    #[command(hide = true)]
    Clients(Slow),
    /// The server behind the gateway; started by the check itself.
    #[command(hide = true)]
    Upstream,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.part {
        Some(Part::Clients(slow)) => clients::run(slow).map(|()| true),
        Some(Part::Upstream) => upstream::run().map(|()| true),
        None => check(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("slow_check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(options: &Options) -> anyhow::Result<bool> {
    if options.connections == 0 || options.connections > MAX_CONNECTIONS {
        bail!("--connections must be from 1 to {MAX_CONNECTIONS}");
    }
    if [options.seconds, options.deadline].iter().any(|&n| n == 0 || n > MAX_SECONDS) {
        bail!("--seconds and --deadline must be from 1 to {MAX_SECONDS}");
    }
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let generator = Generator::find(folder.path())?;
    println!(
        "load        {}, {} connections, {} s; {} slow connections of each kind, deadline {} s",
        generator.describe(),
        options.ordinary,
        options.seconds,
        options.connections,
        options.deadline
    );
    println!(
        "targets     ordinary requests at {:.0} % of their rate, {:.0} MB more, gone {} s after the deadline, a row for each",
        MIN_RATE * 100.0,
        megabytes(MAX_GROWTH),
        MAX_LATE.as_secs()
    );
    let mut all_passed = true;
    println!("{}", header());
    for (name, kinds, sources) in attacks(&options.only) {
        let passed = attack(options, folder.path(), &generator, &name, kinds, sources)
            .with_context(|| format!("attack {name}"))?;
        all_passed &= passed;
    }
    println!("{}", if all_passed { "PASS" } else { "FAIL" });
    Ok(all_passed)
}

fn attacks(only: &[Kind]) -> Vec<(String, Vec<Kind>, Sources)> {
    let alone = |kind: &Kind| (kind.name().to_owned(), vec![*kind], Sources::Spread);
    if !only.is_empty() {
        return only.iter().map(alone).collect();
    }
    let mut attacks: Vec<_> = Kind::ALL.iter().map(alone).collect();
    attacks.push(("all at once".to_owned(), Kind::ALL.to_vec(), Sources::Spread));
    attacks.push(("all, one address each".to_owned(), Kind::ALL.to_vec(), Sources::One));
    attacks
}

/// A gateway of its own for each attack, so that none finds what another one left.
fn attack(
    options: &Options,
    dir: &Path,
    generator: &Generator,
    name: &str,
    kinds: Vec<Kind>,
    sources: Sources,
) -> anyhow::Result<bool> {
    let folder = name.replace([' ', ','], "-");
    let (certificate, key) = tls::write_certificate(dir)?;
    let server = SlowUpstream::start()?;
    let (plain, tls) = (free_address()?, free_address()?);
    let deadline = Duration::from_secs(options.deadline);
    let text = config(server.address, [plain, tls], (&certificate, &key), deadline, &options.server)?;
    let programs = options.programs.clone().map_or_else(contestants::programs, Ok)?;
    let gateway = contestants::configured_gateway(&programs, dir, &folder, &text, plain, &[])?;
    let visitors = Clients::new("visitors", lists::clients(lists::CLIENTS), dir)?;
    let ground = Ground {
        gateway: &gateway.contestant.program,
        plain,
        tls,
        certificate,
        generator,
        visitors: &visitors,
        load: Size { connections: options.ordinary, span: Duration::from_secs(options.seconds) },
    };
    let attack = Attack {
        kinds,
        connections_each: options.connections,
        sources,
        pause: Duration::from_secs(5),
        deadline,
    };
    // The first requests meet buffers and maps that have yet to grow.
    ground.warm_up()?;
    let outcome = ground.run(&attack)?;
    // The log's writer is at most a flush interval behind.
    std::thread::sleep(Duration::from_secs(1));
    let slow = "ip LIKE '127.%' AND ip <> '127.0.0.1'";
    let reasons = gateway.rows_by("status || ' ' || verdict || ', ' || reason", slow)?;
    let rows: u64 = reasons.iter().map(|(_, rows)| rows).sum();
    let passed = is_passed(&outcome) && rows == outcome.wanted as u64;
    println!("{}", line(name, &outcome, rows, passed));
    for (reason, rows) in reasons {
        println!("    {rows:>6} rows: {reason}");
    }
    gateway.finish()?;
    Ok(passed)
}

fn is_passed(outcome: &Outcome) -> bool {
    outcome.rate() >= MIN_RATE
        && outcome.growth() <= MAX_GROWTH
        && outcome.latest <= MAX_LATE
        && outcome.never_closed == 0
}

fn header() -> String {
    format!(
        "  {:<22} {:>6} {:>6} {:>6} {:>6}  {:>8} {:>8} {:>6} {:>6}  {:>7} {:>7} {:>7} {:>7}  {:>6} {:>6}",
        "slow connections",
        "began",
        "held",
        "later",
        "rows",
        "req/s",
        "with",
        "rate",
        "CPU",
        "MB",
        "most",
        "after",
        "kernel",
        "late s",
        "never"
    )
}

fn line(name: &str, outcome: &Outcome, rows: u64, passed: bool) -> String {
    let [before, most, after] = outcome.memory.map(megabytes);
    format!(
        "  {name:<22} {:>6} {:>6} {:>6} {rows:>6}  {:>8.0} {:>8.0} {:>5.1}% {:>6.2}  {before:>7.0} {most:>7.0} {after:>7.0} {:>7.0}  {:>6.1} {:>6}  {}",
        outcome.began,
        outcome.held[0],
        outcome.held[1],
        f64::midpoint(outcome.before.throughput(), outcome.after.throughput()),
        outcome.during.throughput(),
        outcome.rate() * 100.0,
        outcome.cost(),
        megabytes(outcome.kernel),
        outcome.latest.as_secs_f64(),
        outcome.never_closed,
        if passed { "pass" } else { "FAIL" },
    )
}
