//! One load against one contestant, and what it cost.
//!
//! Owns the figure: CPU time per answered request. Throughput and latency come along, but drift on a
//! machine that is shared; CPU time per request hardly does.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::load::{self, HOST, Load, USER_AGENTS, Until};
use crate::process::Program;

const SCRIPT: &str = include_str!("clients.lua");
/// After the load: work that is still to be done for its requests, such as writing the log, counts too.
const AFTERMATH: Duration = Duration::from_millis(1_500);

/// Who sends the load.
#[derive(Clone, Debug)]
pub enum Generator {
    Wrk { script: PathBuf },
    BuiltIn,
}

/// The size of each load.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub connections: usize,
    pub span: Duration,
}

/// Addresses, for the built-in generator and as a file for wrk.
#[derive(Clone, Debug)]
pub struct Clients {
    addresses: Arc<[Ipv4Addr]>,
    file: PathBuf,
}

impl Clients {
    /// # Errors
    /// When the file cannot be written.
    pub fn new(name: &str, addresses: Vec<Ipv4Addr>, dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join(format!("{name}.txt"));
        let lines: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        fs::write(&file, lines).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { addresses: addresses.into(), file })
    }
}

/// What one load cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub answered: u64,
    /// Answers that were neither 2xx nor 3xx.
    pub refused: u64,
    /// Requests without an answer.
    pub failed: u64,
    pub took: Duration,
    pub p50: Duration,
    pub p99: Duration,
    /// User and system time of the contestant.
    pub cpu: Duration,
}

impl Sample {
    /// Microseconds of CPU time per answered request.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answered.max(1) as f64
    }

    /// Answered requests per second.
    pub fn throughput(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Generator {
    /// wrk, or the built-in one where there is no wrk.
    ///
    /// # Errors
    /// When wrk's script cannot be written.
    pub fn find(dir: &Path) -> anyhow::Result<Self> {
        // It has no option that ends with success; that it starts is enough.
        if Command::new("wrk").arg("--version").output().is_err() {
            return Ok(Self::BuiltIn);
        }
        let script = dir.join("clients.lua");
        fs::write(&script, SCRIPT)?;
        Ok(Self::Wrk { script })
    }

    /// What it is, for the report.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Wrk { .. } => "wrk, 1 thread",
            Self::BuiltIn => "built-in (no wrk found), 1 thread",
        }
    }

    /// Sends one load to `address` and reads what it cost `program`.
    ///
    /// # Errors
    /// When the load cannot be sent or the program is gone.
    pub fn measure(
        &self,
        program: &Program,
        address: SocketAddr,
        clients: &Clients,
        size: Size,
    ) -> anyhow::Result<Sample> {
        let before = program.cpu()?;
        let mut sample = match self {
            Self::Wrk { script } => wrk(script, address, clients, size)?,
            Self::BuiltIn => built_in(address, clients, size)?,
        };
        std::thread::sleep(AFTERMATH);
        sample.cpu = program.cpu()?.saturating_sub(before);
        Ok(sample)
    }
}

fn built_in(address: SocketAddr, clients: &Clients, size: Size) -> anyhow::Result<Sample> {
    let load = Load {
        target: address,
        connections: size.connections,
        clients: Arc::clone(&clients.addresses),
        until: Until::Elapsed(size.span),
        seed: 1,
    };
    let answers = load::run(&load)?;
    Ok(Sample {
        answered: answers.answered(),
        refused: answers.refused(),
        failed: answers.failed,
        took: answers.took,
        p50: answers.percentile(0.5),
        p99: answers.percentile(0.99),
        cpu: Duration::ZERO,
    })
}

fn wrk(script: &Path, address: SocketAddr, clients: &Clients, size: Size) -> anyhow::Result<Sample> {
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{}", size.connections), &format!("-d{}s", size.span.as_secs().max(1))])
        .arg("-s")
        .arg(script)
        .arg(format!("http://{address}/"))
        .arg("--")
        .arg(&clients.file)
        .arg(HOST)
        .args(USER_AGENTS)
        .output()
        .context("cannot start wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match result_of(&text) {
        Some(sample) => Ok(sample),
        None => bail!("wrk gave no result:\n{text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// The line that `done()` in the script prints.
fn result_of(text: &str) -> Option<Sample> {
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "))?;
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[answered, refused, failed, took, p50, p99] = numbers.as_slice() else { return None };
    Some(Sample {
        answered,
        refused,
        failed,
        took: Duration::from_micros(took),
        p50: Duration::from_micros(p50),
        p99: Duration::from_micros(p99),
        cpu: Duration::ZERO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_s_result_is_read_among_its_other_lines() {
        let sample = result_of("Running 6s test\nRESULT 600000 3 1 6000000 700 2100\nbye\n").unwrap();
        assert_eq!((sample.answered, sample.refused, sample.failed), (600_000, 3, 1));
        assert_eq!(sample.p99, Duration::from_micros(2_100));
        assert_eq!(sample.throughput() as u64, 100_000);
        assert_eq!(result_of("Running\nRESULT 1 2\n"), None);
    }

    #[test]
    fn cost_is_cpu_time_over_answers() {
        let sample = Sample {
            answered: 100_000,
            refused: 0,
            failed: 0,
            took: Duration::from_secs(2),
            p50: Duration::ZERO,
            p99: Duration::ZERO,
            cpu: Duration::from_secs(2),
        };
        assert!((sample.cpu_us() - 20.0).abs() < 1e-9);
    }
}
