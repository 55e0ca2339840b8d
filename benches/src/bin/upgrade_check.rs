//! Reloads and upgrades under constant load, failing upgrades among them, and what became of every request.
//!
//! Owns the sequence of events; clients, upstream and gateway are those of the tests. Fails unless every request was
//! answered with 2xx and has exactly one row in the log.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use portcullis_testkit::{Counts, Gateway, GatewayConfig, Load, Upstream, Visitors, eventually};

/// Two hundred reloads and twenty upgrades under load, five of the upgrades failing.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 200)]
    reloads: u32,
    #[arg(long, default_value_t = 20)]
    upgrades: u32,
    /// How many of the upgrades are meant to fail.
    #[arg(long, default_value_t = 5)]
    failing: u32,
    /// Clients that send without a pause, half of them on kept connections.
    #[arg(long, default_value_t = 16)]
    busy: usize,
    /// Clients on kept connections that are mostly idle.
    #[arg(long, default_value_t = 100)]
    idle: usize,
    /// The gateway; default: beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Between two events, so that each meets a steady load.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two requests of a busy client on new connections: more would use up the ports of this machine.
const NEW_CONNECTION_PAUSE: Duration = Duration::from_millis(5);
const IDLE_PAUSE: Duration = Duration::from_millis(100);

/// Ways in which the new process fails; each line is a program's.
const FAILURES: [(&str, &str); 5] = [
    ("a program that does not run", "exit 1"),
    ("one that ends at once", "[ \"$1\" = --version ] && exec $GATEWAY --version; exit 1"),
    ("one that hangs", "[ \"$1\" = --version ] && exec $GATEWAY --version; exec sleep 60"),
    (
        "one that cannot write",
        "[ \"$1\" = --version ] && exec $GATEWAY --version; ulimit -f 0; exec $GATEWAY \"$@\"",
    ),
    ("a broken configuration", "exec $GATEWAY \"$@\""),
];

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("portcullis"),
    };
    let binary = binary.canonicalize().with_context(|| format!("there is no {}", binary.display()))?;
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(GatewayConfig::new(&binary.to_string_lossy()).upstream(&upstream));
    let load = Load::start(
        gateway.address(),
        &[
            Visitors { count: options.busy.div_ceil(2), keep_alive: true, pause: Duration::ZERO },
            Visitors { count: options.busy / 2, keep_alive: false, pause: NEW_CONNECTION_PAUSE },
            Visitors { count: options.idle, keep_alive: true, pause: IDLE_PAUSE },
        ],
    );
    let began = Instant::now();
    let mut done = Done::default();
    for n in 0..options.upgrades.max(1) {
        let reloads = options.reloads * (n + 1) / options.upgrades.max(1) - done.reloads;
        for _ in 0..reloads {
            reload(&gateway, done.reloads)?;
            done.reloads += 1;
        }
        if n < options.upgrades {
            // Spread evenly, one of each kind after the other.
            let failing = options.failing * (n + 1) / options.upgrades > done.refused;
            upgrade(&mut gateway, &binary, failing, &mut done)?;
        }
        std::thread::sleep(PAUSE);
    }
    let took = began.elapsed();
    let counts = load.stop();
    report(&gateway, &done, counts, took)
}

#[derive(Default)]
struct Done {
    reloads: u32,
    upgraded: u32,
    refused: u32,
    /// From the command to its end, for those that succeeded.
    slowest: Duration,
}

/// Changes the configuration and waits until the change is in force.
fn reload(gateway: &Gateway, n: u32) -> anyhow::Result<()> {
    let applied = || gateway.metric("portcullis_config_reloads_total{outcome=\"applied\"}");
    let before = applied();
    let text = fs::read_to_string(gateway.config_file())?;
    let body = text.split("[pages]").next().unwrap_or_default();
    gateway.write_config(&format!("{body}[pages]\nname = \"number {n}\"\n"));
    gateway.hang_up();
    eventually("the reload", || (applied() > before).then_some(()));
    Ok(())
}

fn upgrade(gateway: &mut Gateway, binary: &Path, failing: bool, done: &mut Done) -> anyhow::Result<()> {
    if !failing {
        let began = Instant::now();
        let (output, _) = gateway.upgrade(&[]);
        if output.code != Some(0) {
            bail!("an upgrade failed that should not: {}{}", output.stdout, output.stderr);
        }
        done.slowest = done.slowest.max(began.elapsed());
        done.upgraded += 1;
        return Ok(());
    }
    let (name, lines) = FAILURES[done.refused as usize % FAILURES.len()];
    let program = gateway.folder().join("program");
    fs::write(&program, format!("#!/bin/sh\nGATEWAY='{}'\n{lines}\n", binary.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let text = fs::read_to_string(gateway.config_file())?;
    if name == "a broken configuration" {
        // Taken for a place that is in use, so that it is the new process that finds out.
        let address = gateway.address();
        gateway
            .write_config(&text.replace("listen = [\"127.0.0.1:0\"]", &format!("listen = [\"{address}\"]")));
    }
    let (output, _) = gateway.upgrade(&["--timeout", "2s", "--binary", &program.to_string_lossy()]);
    gateway.write_config(&text);
    if output.code != Some(1) {
        bail!("the upgrade to {name} should have failed: {}{}", output.stdout, output.stderr);
    }
    println!("failed as meant, {name}: {}", output.stderr.trim());
    done.refused += 1;
    Ok(())
}

fn report(gateway: &Gateway, done: &Done, counts: Counts, took: Duration) -> anyhow::Result<()> {
    let rows = eventually("all rows", || {
        let rows = gateway.data().count();
        (rows >= counts.good + counts.other).then_some(rows)
    });
    println!("reloads                {:>10}", done.reloads);
    println!("upgrades that served   {:>10}   the slowest took {:?}", done.upgraded, done.slowest);
    println!("upgrades that failed   {:>10}   as they were meant to", done.refused);
    println!("time                   {:>10.1} s", took.as_secs_f64());
    let rate = counts.good as f64 / took.as_secs_f64();
    println!(
        "requests               {:>10}   {rate:.0} per second, {} connections",
        counts.good, counts.connections
    );
    println!("slowest request        {:>10.1} ms", counts.slowest.as_secs_f64() * 1_000.0);
    println!("refused connections    {:>10}", counts.refused);
    println!("reset connections      {:>10}", counts.reset);
    println!("cut answers            {:>10}", counts.cut);
    println!("late answers           {:>10}", counts.late);
    println!("answers not 2xx        {:>10}", counts.other);
    println!("rows in the log        {rows:>10}");
    if counts.failed() > 0 || rows != counts.good {
        bail!("{} requests failed, {rows} rows for {} answers", counts.failed(), counts.good);
    }
    Ok(())
}
