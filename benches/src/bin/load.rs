//! A bounded load of exactly so many requests, and the proof that each of them is in the log.
//!
//! Owns the command line around `load.rs`. Sends to loopback only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use portcullis_benches::contestants::{self, Setup};
use portcullis_benches::lists;
use portcullis_benches::load::{self, Answers, Load, Until};
use portcullis_benches::upstream::Upstream;

/// Sends N requests over C connections for K client addresses and counts the answers.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends the load to a server on this machine.
    Send {
        /// Where it listens, such as 127.0.0.1:8080.
        target: SocketAddr,
        #[command(flatten)]
        size: Size,
    },
    /// Starts an upstream and the gateway, sends the load, and compares the rows in the log with the
    /// answers. Fails unless they are equal.
    CountCheck {
        #[command(flatten)]
        size: Size,
        /// The folder with portcullis; default: where this program is.
        #[arg(long)]
        programs: Option<PathBuf>,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct Size {
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Client addresses, sent in X-Forwarded-For.
    #[arg(long, default_value_t = 50_000)]
    clients: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const MAX_CLIENTS: usize = 1_000_000;

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Send { target, size } => send(target, size).map(|_| ()),
        Command::CountCheck { size, programs } => count_check(size, programs),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn send(target: SocketAddr, size: Size) -> anyhow::Result<Answers> {
    if !target.ip().is_loopback() {
        bail!("{target} is not on this machine's loopback; the load generator sends nowhere else");
    }
    if size.clients == 0 || size.clients > MAX_CLIENTS {
        bail!("--clients must be from 1 to {MAX_CLIENTS}");
    }
    let answers = load::run(&Load {
        target,
        connections: size.connections,
        clients: lists::clients(size.clients).into(),
        until: Until::Requests(size.requests),
        seed: size.seed,
    })?;
    let [informational, success, redirect, client, server] = answers.by_class;
    println!("answered    {}", answers.answered());
    println!("by class    1xx {informational}, 2xx {success}, 3xx {redirect}, 4xx {client}, 5xx {server}");
    println!("no answer   {}", answers.failed);
    println!("throughput  {:.0} requests/s", answers.answered() as f64 / answers.took.as_secs_f64());
    println!("latency     p50 {:?}, p99 {:?}", answers.percentile(0.5), answers.percentile(0.99));
    Ok(answers)
}

fn count_check(size: Size, programs: Option<PathBuf>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let programs = programs.map_or_else(contestants::programs, Ok)?;
    let upstream = Upstream::start(folder.path())?;
    let setup = Setup { name: "portcullis", blocks: &[], geo: None };
    let gateway = contestants::gateway(&programs, upstream.address(), folder.path(), setup)?;
    let answers = send(gateway.contestant.address, size)?;
    let finished = gateway.finish()?;
    println!("SELECT count(*) FROM request_log: {} of this load", finished.new_rows());
    if finished.new_rows() != answers.answered() || answers.failed > 0 {
        bail!(
            "{} answered, {} in the log, {} without an answer",
            answers.answered(),
            finished.new_rows(),
            answers.failed
        );
    }
    println!("equal");
    Ok(())
}
