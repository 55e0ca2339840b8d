//! Measures detection on labelled access logs: reads them as `replay` does, lets a `Timeline` judge them, and prints
//! how many attackers were found and how many others were flagged. Must not know any of the logs.

mod cases;
mod corpus;
mod figures;
mod judge;
mod table;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::figures::Figures;
use crate::judge::Judge;

/// The quality of detection, measured on labelled access logs.
///
/// FOLDER has NAME.log.gz (any format that replay reads) with labels/NAME.csv (ip, label, why, requests,
/// requests_in_busiest_hour) for each site, and crowdsec-hub/cases.json with the logs that it names; either may be
/// absent. The README beside this program explains the figures.
#[derive(Parser)]
struct Arguments {
    folder: PathBuf,
    /// Only these sites.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Sites that are shown, but neither pooled nor part of the means.
    #[arg(long, value_name = "NAME")]
    apart: Vec<String>,
    /// Below each site, who was judged against its label.
    #[arg(long)]
    list: Option<List>,
}

/// Whom to list.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum List {
    /// Humans that were flagged.
    Humans,
    /// Bots that were flagged.
    Bots,
    /// Attackers that were not flagged.
    Missed,
    /// Expert cases that failed.
    Cases,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let names = corpus::names(&arguments.folder, &arguments.only)?;
    let cases = arguments.folder.join("crowdsec-hub/cases.json");
    let has_cases = cases.is_file() && arguments.only.is_empty();
    ensure!(
        !names.is_empty() || has_cases,
        "{} holds neither NAME.log.gz with labels/NAME.csv nor crowdsec-hub/cases.json",
        arguments.folder.display()
    );
    let judge = Judge::new();
    if !names.is_empty() {
        sites(&arguments, &names, &judge)?;
    }
    if has_cases {
        let passed = cases::run(&cases, &judge).with_context(|| cases.display().to_string())?;
        table::cases(&passed, arguments.list == Some(List::Cases));
    }
    if let Some(bytes) = peak_memory() {
        println!("\npeak memory {} MiB", bytes >> 20);
    }
    Ok(())
}

fn sites(arguments: &Arguments, names: &[String], judge: &Judge) -> Result<()> {
    table::heading();
    let mut all: Vec<Figures> = Vec::new();
    let (started, mut records) = (Instant::now(), 0);
    for name in names {
        let site = corpus::read(&arguments.folder, name, judge)?;
        let figures = Figures::of(&site);
        table::line(name, &figures);
        if let Some(list) = arguments.list {
            table::list(&site, list);
        }
        records += site.records;
        if !arguments.apart.contains(name) {
            all.push(figures);
        }
    }
    table::summary(&all);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "\n{records} requests read and judged in {seconds:.1} s, {:.0} per second",
        records as f64 / seconds
    );
    Ok(())
}

/// The most memory that the process has had, in bytes; `None` where there is no `/proc`.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}
