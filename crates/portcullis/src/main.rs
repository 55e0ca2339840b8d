//! The binary: reads the command line, sets up logging, does what was asked.
//! Must not do anything itself; commands are in `cli`, the gateway is wired in `app`.

mod acme;
mod alerts;
mod app;
mod bots;
mod certificates;
mod cli;
mod console;
mod counts;
mod demo;
mod demo_run;
mod detection;
mod feeds;
mod geo;
mod identity;
mod import;
mod machine;
mod metrics;
mod objections;
mod parties;
mod privacy;
mod replay;
mod report;
mod sentence;
mod serve;
mod settings;
mod status;
mod systemd;
mod tasks;
mod upgrade;

use std::process::ExitCode;
use std::time::SystemTime;

use portcullis_model::UnixMs;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pingora reports what the gateway reports itself, in other words and for each request.
const SERVER_LOG: &str = "warn,portcullis=info,pingora=off";
const COMMAND_LOG: &str = "warn,pingora=off";

fn main() -> ExitCode {
    let cli = match cli::Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    log_to_stderr(if cli.is_server() { SERVER_LOG } else { COMMAND_LOG }, cli.colours_stderr());
    cli.run(UnixMs::from_system(SystemTime::now()))
}

/// `RUST_LOG` wins over the default; what of it cannot be read is left out.
fn log_to_stderr(default: &str, colours: bool) {
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = EnvFilter::new(if directives.is_empty() { default } else { &directives });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        // It would be said on stderr, and a panic is what comes of that when the disk under it is full.
        .log_internal_errors(false)
        .init();
}
