//! What the gateway costs beside a bare Pingora proxy and nginx, in one run.
//!
//! Owns the questions, their order and the conditions under which a run is void. The figure is CPU time
//! per request, taken in interleaved rounds; see `measure.rs`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use portcullis_benches::contestants::{self, Finished, Gateway, Nginx, Setup};
use portcullis_benches::lists;
use portcullis_benches::load::MAX_CONNECTIONS;
use portcullis_benches::measure::{Clients, Generator, Sample, Size};
use portcullis_benches::process::Program;
use portcullis_benches::report::{Series, against, median, megabytes, table};
use portcullis_benches::upstream::Upstream;

/// Targets of the project.
const MAX_RATIO_TO_BARE: f64 = 1.15;
const MAX_RATIO_TO_NGINX: f64 = 1.0;
const MAX_RATIO_REFUSED: f64 = 0.6;
const MAX_BYTES_PER_ROW: f64 = 60.0;
/// Blocks in the state of the gateway that is compared.
const BLOCKED_PREFIXES: usize = 100_000;
/// Addresses, and as many prefixes, of the gateway with the large lists.
const LARGE_LIST: usize = 1_000_000;
const MAX_ROUNDS: usize = 50;
const MAX_SECONDS: u64 = 60;

/// CPU time per request of Portcullis with everything on, beside a bare Pingora proxy and nginx doing the
/// same job. One worker thread each, on loopback. Needs Linux; uses nginx and wrk if they are installed.
#[derive(Parser)]
struct Options {
    /// Rounds; every contestant is loaded once in each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each load.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// A city database (MMDB) for the gateway and for nginx.
    #[arg(long)]
    geo: Option<PathBuf>,
    /// Leave out the comparison with a million blocked addresses and a million blocked prefixes.
    #[arg(long)]
    without_large_lists: bool,
    /// The folder with portcullis and bare_proxy; default: where this program is.
    #[arg(long)]
    programs: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side_by_side: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    if options.rounds == 0 || options.rounds > MAX_ROUNDS {
        bail!("--rounds must be from 1 to {MAX_ROUNDS}");
    }
    if options.seconds == 0 || options.seconds > MAX_SECONDS {
        bail!("--seconds must be from 1 to {MAX_SECONDS}");
    }
    if options.connections == 0 || options.connections > MAX_CONNECTIONS {
        bail!("--connections must be from 1 to {MAX_CONNECTIONS}");
    }
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let bench = Bench::new(options, folder.path())?;
    println!("upstream    {}", bench.upstream.describe());
    println!(
        "load        {}, {} connections, {} s",
        bench.generator.describe(),
        options.connections,
        options.seconds
    );
    println!("rounds      {}", options.rounds);
    bench.compare()?;
    if !options.without_large_lists {
        bench.compare_large_lists()?;
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    dir: &'a Path,
    programs: PathBuf,
    geo: Option<PathBuf>,
    upstream: Upstream,
    generator: Generator,
    admitted: Clients,
    refused: Clients,
}

/// One line of a table: who is loaded by whom.
struct Entry<'a> {
    series: Series,
    program: &'a Program,
    address: SocketAddr,
    clients: &'a Clients,
    expects: Expects,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    Served,
    Refused,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options, dir: &'a Path) -> anyhow::Result<Self> {
        let geo = match &options.geo {
            Some(file) => Some(
                file.canonicalize()
                    .with_context(|| format!("cannot read the city database {}", file.display()))?,
            ),
            None => None,
        };
        Ok(Self {
            options,
            dir,
            programs: options.programs.clone().map_or_else(contestants::programs, Ok)?,
            geo,
            upstream: Upstream::start(dir)?,
            generator: Generator::find(dir)?,
            admitted: Clients::new("admitted", lists::clients(lists::CLIENTS), dir)?,
            refused: Clients::new("refused", lists::refused_clients(lists::CLIENTS), dir)?,
        })
    }

    /// Everything on, beside the bare proxy and nginx.
    fn compare(&self) -> anyhow::Result<()> {
        let blocks = lists::prefixes(BLOCKED_PREFIXES);
        let upstream = self.upstream.address();
        let bare = contestants::bare_proxy(&self.programs, upstream, self.dir)?;
        let gateway = self.gateway("portcullis", &blocks)?;
        let nginx = contestants::nginx(upstream, self.dir, &blocks, self.geo.as_deref())?;
        let geo_note = if self.geo.is_some() { "" } else { " (no geo: no --geo)" };
        let mut entries = vec![
            self.entry("bare Pingora", &bare, Expects::Served),
            self.entry(&format!("portcullis, everything on{geo_note}"), &gateway.contestant, Expects::Served),
            self.entry("portcullis, blocked client", &gateway.contestant, Expects::Refused),
        ];
        if let Some(nginx) = &nginx {
            let name = if nginx.has_geo { "nginx, same job" } else { "nginx, same job (no geo)" };
            entries.push(self.entry(name, &nginx.contestant, Expects::Served));
        }
        let series = self.rounds(entries)?;
        println!("\nCPU time per request, one worker thread each, {BLOCKED_PREFIXES} blocked prefixes\n");
        print!("{}", table(&series));

        let [bare, admitted, refused, rest @ ..] = series.as_slice() else {
            bail!("a contestant is missing");
        };
        let memory = gateway.contestant.program.memory()?;
        let finished = self.checked("portcullis", gateway, admitted.answered() + refused.answered())?;
        println!();
        print!("{}", against("portcullis / bare Pingora", admitted.ratio(bare), MAX_RATIO_TO_BARE, ""));
        if let (Some(nginx), Some(running)) = (rest.first(), &nginx) {
            print!("{}", against("portcullis / nginx", admitted.ratio(nginx), MAX_RATIO_TO_NGINX, ""));
            print_nginx_log(nginx, running)?;
        }
        print!(
            "{}",
            against("blocked client / admitted client", refused.ratio(admitted), MAX_RATIO_REFUSED, "")
        );
        let per_row = finished.log_bytes as f64 / finished.rows.max(1) as f64;
        print!("{}", against("log on disk", per_row, MAX_BYTES_PER_ROW, "B/row"));
        println!(
            "  memory of the gateway after the load: {:.0} MB resident, {:.0} MB without mapped files",
            megabytes(memory.resident),
            megabytes(memory.anonymous)
        );
        Ok(())
    }

    /// The same gateway with two million blocks and with none.
    fn compare_large_lists(&self) -> anyhow::Result<()> {
        let blocks: Vec<_> =
            lists::addresses(LARGE_LIST).into_iter().chain(lists::prefixes(LARGE_LIST)).collect();
        let none = self.gateway("without_blocks", &[])?;
        let large = self.gateway("large_lists", &blocks)?;
        let loaded = large.contestant.program.memory()?;
        let series = self.rounds(vec![
            self.entry("portcullis, no blocks", &none.contestant, Expects::Served),
            self.entry("portcullis, 2 million blocks", &large.contestant, Expects::Served),
            self.entry("portcullis, 2 million, blocked", &large.contestant, Expects::Refused),
        ])?;
        println!(
            "\nCPU time per request, {LARGE_LIST} blocked addresses and {LARGE_LIST} blocked prefixes\n"
        );
        print!("{}", table(&series));
        let [without, with, refused] = series.as_slice() else { bail!("a contestant is missing") };
        let memory = [none.contestant.program.memory()?, large.contestant.program.memory()?];
        self.checked("without blocks", none, without.answered())?;
        self.checked("2 million blocks", large, with.answered() + refused.answered())?;
        println!();
        for (name, memory) in [
            ("without blocks, after the load", memory[0]),
            ("2 million blocks, after the start", loaded),
            ("2 million blocks, after the load", memory[1]),
        ] {
            println!(
                "  {name:<36} {:>6.0} MB resident, {:>6.0} MB without mapped files",
                megabytes(memory.resident),
                megabytes(memory.anonymous)
            );
        }
        Ok(())
    }

    fn gateway(&self, name: &str, blocks: &[ipnet::IpNet]) -> anyhow::Result<Gateway> {
        let setup = Setup { name, blocks, geo: self.geo.as_deref() };
        contestants::gateway(&self.programs, self.upstream.address(), self.dir, setup)
    }

    fn entry<'b>(
        &'b self,
        name: &str,
        contestant: &'b contestants::Contestant,
        expects: Expects,
    ) -> Entry<'b> {
        Entry {
            series: Series::new(name),
            program: &contestant.program,
            address: contestant.address,
            clients: match expects {
                Expects::Served => &self.admitted,
                Expects::Refused => &self.refused,
            },
            expects,
        }
    }

    /// Every contestant once in each round; each round begins with another one.
    fn rounds(&self, mut entries: Vec<Entry<'_>>) -> anyhow::Result<Vec<Series>> {
        let size =
            Size { connections: self.options.connections, span: Duration::from_secs(self.options.seconds) };
        for round in 0..self.options.rounds {
            let count = entries.len();
            for n in 0..count {
                let entry = &mut entries[(round + n) % count];
                let sample = self.generator.measure(entry.program, entry.address, entry.clients, size)?;
                entry.check(&sample)?;
                entry.series.samples.push(sample);
            }
        }
        Ok(entries.into_iter().map(|entry| entry.series).collect())
    }

    /// Ends the gateway; the run is void unless every request that was answered is in its log.
    fn checked(&self, name: &str, gateway: Gateway, answered: u64) -> anyhow::Result<Finished> {
        let finished = gateway.finish()?;
        let rows = finished.new_rows();
        // wrk leaves with a request under way on each connection; these were served and logged as well.
        let under_way = match self.generator {
            Generator::Wrk { .. } => 2 * (self.options.rounds * self.options.connections) as u64,
            Generator::BuiltIn => 0,
        };
        if rows < answered || rows > answered + under_way {
            bail!("void: {name}: {answered} requests were answered, the log has {rows} rows");
        }
        println!(
            "\n  log of {name}: {rows} rows ({} with a country), {answered} requests answered, {} under way at the end of a load",
            finished.located,
            rows - answered,
        );
        Ok(finished)
    }
}

impl Entry<'_> {
    /// A contestant that refuses, fails or serves what it should not has measured something else.
    fn check(&self, sample: &Sample) -> anyhow::Result<()> {
        let expected = match self.expects {
            Expects::Served => 0,
            Expects::Refused => sample.answered,
        };
        if sample.answered == 0 || sample.failed > 0 || sample.refused != expected {
            bail!(
                "void: {}: {} answered, {} of them refused, {} without an answer",
                self.series.name,
                sample.answered,
                sample.refused,
                sample.failed
            );
        }
        Ok(())
    }
}

fn print_nginx_log(series: &Series, nginx: &Nginx) -> anyhow::Result<()> {
    let bytes = nginx.log_bytes()?;
    let memory = nginx.contestant.program.memory()?;
    println!(
        "  nginx for comparison: {:.0} B/row of access log, {:.0} MB resident; {:.2} µs per request",
        bytes as f64 / series.answered().max(1) as f64,
        megabytes(memory.resident),
        median(series.samples.iter().map(Sample::cpu_us)),
    );
    Ok(())
}
