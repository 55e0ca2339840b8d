//! `portcullis geo`: where an address is and who says so, how it is with files and sources, and bringing both
//! up to date. Must not send an address to anybody unless it is told to.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use portcullis_config::Config;
use portcullis_fetch::masked;
use portcullis_geo::{
    Asked, Circuit, Effort, Field, Geo, Outcome as SourceOutcome, SourceReport, SourceSettings, is_public,
};
use portcullis_model::{ClientIp, Location, UnixMs};
use portcullis_store::{Coverage, LogReader, State, StoreError};

use crate::geo::{self, Downloaded, Said, Whom, source_state, unavailable};
use crate::sentence::sentence;

use super::context::{Context, Misuse, open_state};
use super::output::{Align, BOLD, Cell, DIM, GREEN, PLAIN, RED, Screen, Table, YELLOW, bytes, count, number};
use super::{Format, Outcome, time};

const EXAMPLES: &str = "\
Examples:
  portcullis geo lookup 203.0.113.9
      what each file and each source says; nobody is asked
  portcullis geo lookup 203.0.113.9 --refresh
      the same, with the sources asked now: they hear of the address
  portcullis geo status
  portcullis geo refresh
      ask about the clients of the last day whose country is not known, and
      again where an answer is older than a day
  portcullis geo update
      download the files of [[geo.download]] now";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct GeoCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show where an address is, and who says so
    Lookup(Lookup),
    /// Show the files, the sources and of how many clients the country is known
    Status(Status),
    /// Ask the sources again
    Refresh(Refresh),
    /// Download the files of [[geo.download]] now
    Update(Update),
}

#[derive(Debug, Args)]
struct Lookup {
    /// An IPv4 or IPv6 address
    #[arg(value_name = "IP")]
    ip: ClientIp,

    /// Ask every source now, within its quota
    #[arg(long)]
    refresh: bool,

    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Refresh {
    /// Addresses to ask about [default: those without a country, and old answers]
    #[arg(value_name = "IP", conflicts_with = "all")]
    ips: Vec<ClientIp>,

    /// Also ask again where there is a fresh answer
    #[arg(long)]
    all: bool,

    /// At most so many addresses
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,

    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Update {
    #[command(flatten)]
    format: Format,
}

impl GeoCommand {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        match self.action {
            Action::Lookup(command) => command.run(&config, context, screen),
            Action::Status(command) => command.run(&config, context, screen),
            Action::Refresh(command) => command.run(&config, context, screen),
            Action::Update(command) => command.run(&config, screen),
        }
    }
}

impl Lookup {
    fn run(self, config: &Config, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let geo = Geo::open(&config.geo)?;
        let client = self.ip;
        let effort = if self.refresh { Effort::Every } else { Effort::KeptOnly };
        let Said { location, says, asked } = geo::said(&geo, &config.data, client, effort, context.now)?;
        if self.format.json {
            screen.json(&lookup_json(client, &location, &says, &asked))?;
        } else {
            show_lookup(client, &location, &says, &asked, context, screen)?;
        }
        Ok(if location.is_unknown() { Outcome::Nothing } else { Outcome::Done })
    }
}

/// The value of a field, as people read it.
fn value(field: Field, location: &Location) -> Option<String> {
    match field {
        Field::Country => location.country.clone(),
        Field::City => location.city.clone(),
        Field::Region => location.region.clone(),
        Field::Position => {
            location.latitude.zip(location.longitude).map(|(lat, lon)| format!("{lat}, {lon}"))
        }
        Field::Asn => location.asn.map(|asn| format!("AS{asn}")),
        Field::Isp => location.isp.clone(),
    }
}

/// Who is the first to know a field.
fn winner(field: Field, says: &[(String, Location)]) -> Option<&str> {
    says.iter().find(|(_, location)| field.is_in(location)).map(|(who, _)| who.as_str())
}

fn show_lookup(
    client: ClientIp,
    location: &Location,
    says: &[(String, Location)],
    asked: &Asked,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    screen.title(&client.to_string())?;
    let mut table =
        Table::new(&[("", Align::Left), ("value", Align::Left), ("from", Align::Left)]).indented(2);
    for field in Field::ALL {
        let shown = value(field, location);
        table.row(vec![
            Cell::styled(field.as_str(), DIM),
            shown.map_or_else(|| Cell::styled("-", DIM), |shown| Cell::styled(shown, BOLD)),
            Cell::new(winner(field, says).unwrap_or("")),
        ]);
    }
    screen.table(&mut table)?;
    screen.blank()?;
    for (who, said) in says {
        let words: Vec<String> = Field::ALL.into_iter().filter_map(|field| value(field, said)).collect();
        let said = if words.is_empty() { "does not know it".to_owned() } else { words.join("; ") };
        let at =
            asked.reports.iter().find(|report| report.source.as_str() == who).map(|report| &report.outcome);
        let at = match at {
            Some(SourceOutcome::Kept(answer)) => {
                format!(" (asked {})", time::relative(answer.fetched_at, context.now))
            }
            Some(SourceOutcome::Fresh(_)) => " (asked now)".to_owned(),
            _ => String::new(),
        };
        screen.spans(&[(DIM, "  "), (PLAIN, who), (DIM, &at), (PLAIN, ": "), (PLAIN, &said)])?;
    }
    for report in &asked.reports {
        if let Some(text) = without_answer(report, client) {
            screen.spans(&[(DIM, "  "), (PLAIN, report.source.as_str()), (PLAIN, ": "), (YELLOW, &text)])?;
        }
    }
    if says.is_empty() && asked.reports.is_empty() {
        screen.line("  There is no geo database and no source: [geo] in the configuration names them.")?;
    }
    Ok(())
}

fn without_answer(report: &SourceReport, client: ClientIp) -> Option<String> {
    match &report.outcome {
        SourceOutcome::Kept(_) | SourceOutcome::Fresh(_) => None,
        SourceOutcome::Failed(why) => Some(format!("failed: {why}")),
        SourceOutcome::Unavailable(why) => Some(unavailable(report.source, *why)),
        SourceOutcome::NotAsked if !is_public(client.ip()) => {
            Some("never asked about private and reserved addresses".to_owned())
        }
        SourceOutcome::NotAsked => Some("not asked; --refresh asks".to_owned()),
    }
}

fn lookup_json(client: ClientIp, location: &Location, says: &[(String, Location)], asked: &Asked) -> Value {
    let from = Field::ALL.into_iter().filter_map(|field| Some((field.as_str(), winner(field, says)?)));
    let files = says.iter().take(says.len().saturating_sub(answers(asked)));
    json!({
        "ip": client,
        "location": location,
        "from": from.collect::<std::collections::BTreeMap<_, _>>(),
        "files": files.map(|(file, location)| json!({ "file": file, "location": location })).collect::<Vec<_>>(),
        "sources": asked.reports.iter().map(|report| report_json(report, client)).collect::<Vec<_>>(),
    })
}

fn answers(asked: &Asked) -> usize {
    let is_answer =
        |report: &&SourceReport| matches!(report.outcome, SourceOutcome::Kept(_) | SourceOutcome::Fresh(_));
    asked.reports.iter().filter(is_answer).count()
}

fn report_json(report: &SourceReport, client: ClientIp) -> Value {
    let (outcome, location, at) = match &report.outcome {
        SourceOutcome::Kept(answer) => ("kept", Some(&answer.location), Some(answer.fetched_at)),
        SourceOutcome::Fresh(answer) => ("fresh", Some(&answer.location), Some(answer.fetched_at)),
        SourceOutcome::Failed(_) => ("failed", None, None),
        SourceOutcome::Unavailable(_) => ("unavailable", None, None),
        SourceOutcome::NotAsked => ("not_asked", None, None),
    };
    json!({
        "source": report.source.as_str(),
        "outcome": outcome,
        "location": location,
        "at": at,
        "why": without_answer(report, client),
    })
}

impl Status {
    fn run(self, config: &Config, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let geo = Geo::open(&config.geo)?;
        let state = open_state(&config.data)?;
        let coverage = match LogReader::open(&config.data) {
            Ok(log) => log.coverage(context.now.minus(geo::WINDOW))?,
            Err(StoreError::NoLog(_)) => Coverage::default(),
            Err(error) => return Err(error.into()),
        };
        let kept = state.as_ref().map_or(Ok(0), State::geo_answer_count)?;
        let sources = sources(config, state.as_ref(), context)?;
        if self.format.json {
            screen.json(&json!({
                "files": files_json(&geo, config, context),
                "sources": sources.iter().map(SourceLine::json).collect::<Vec<_>>(),
                "coverage": coverage,
                "answers_kept": kept,
            }))?;
            return Ok(Outcome::Done);
        }
        show_files(&geo, config, context, screen)?;
        show_sources(&sources, screen)?;
        screen.blank()?;
        screen.field("coverage", &coverage_in_words(coverage))?;
        screen.field("kept", &format!("{} of sources", count(kept, "answer")))?;
        Ok(Outcome::Done)
    }
}

fn coverage_in_words(coverage: Coverage) -> String {
    if coverage.clients == 0 {
        return "no client in the last day".to_owned();
    }
    format!(
        "the country of {} of {} of the last day is known ({} %)",
        number(coverage.with_country),
        count(coverage.clients, "client"),
        coverage.with_country * 100 / coverage.clients
    )
}

fn show_files(geo: &Geo, config: &Config, context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    let missing = geo.not_there_yet();
    if geo.status().is_empty() && missing.is_empty() {
        screen.line("No geo database: geo.databases or [[geo.download]] names files.")?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("built", Align::Left),
        ("size", Align::Right),
        ("type", Align::Left),
        ("file", Align::Left),
    ]);
    for file in geo.status() {
        table.row(vec![
            Cell::new(time::relative(file.built, context.now)),
            Cell::new(bytes(file.bytes)),
            Cell::new(&file.kind),
            Cell::new(file.path.display().to_string()),
        ]);
    }
    for path in missing {
        table.row(vec![
            Cell::styled("-", YELLOW),
            Cell::new(""),
            Cell::new("not there yet"),
            Cell::new(path.display().to_string()),
        ]);
    }
    screen.table(&mut table)?;
    for download in &config.geo_downloads {
        let from = masked(download.url.expose());
        let every = portcullis_config::format_duration(download.interval);
        let text = format!("  {} comes from {from}, every {every}", download.file.display());
        screen.spans(&[(DIM, &text)])?;
    }
    Ok(())
}

fn files_json(geo: &Geo, config: &Config, context: &Context) -> Vec<Value> {
    let from = |path: &std::path::Path| {
        let download = config.geo_downloads.iter().find(|download| download.file == path);
        download.map(|download| masked(download.url.expose()))
    };
    let there = geo.status().into_iter().map(|file| {
        json!({
            "file": file.path,
            "type": file.kind,
            "built": time::iso(file.built),
            "age_days": context.now.since(file.built).as_secs() / 86_400,
            "bytes": file.bytes,
            "ip_version": file.ip_version,
            "from": from(&file.path),
        })
    });
    let missing = geo.not_there_yet().into_iter().map(|path| {
        let from = from(&path);
        json!({ "file": path, "missing": true, "from": from })
    });
    there.chain(missing).collect()
}

/// How it is with a source.
struct SourceLine {
    name: &'static str,
    used_today: u32,
    daily: Option<u32>,
    used_this_month: u32,
    monthly: Option<u32>,
    circuit: Circuit,
    last_answer: Option<UnixMs>,
    last_error: Option<(UnixMs, String)>,
    /// In words, for people.
    seen: [String; 2],
}

fn sources(config: &Config, state: Option<&State>, context: &Context) -> anyhow::Result<Vec<SourceLine>> {
    let line = |source: &SourceSettings| {
        let kept = state.map(|state| source_state(state, source.kind)).transpose()?.unwrap_or_default();
        let (used_today, used_this_month) = kept.used(context.now);
        let last_error = kept.last_error_at.zip(kept.last_error.clone());
        let seen = [
            kept.last_answer_at.map_or_else(|| "never".to_owned(), |at| time::relative(at, context.now)),
            last_error
                .as_ref()
                .map_or_else(String::new, |(at, why)| format!("{}: {why}", time::relative(*at, context.now))),
        ];
        Ok(SourceLine {
            name: source.kind.as_str(),
            used_today,
            daily: source.daily,
            used_this_month,
            monthly: source.monthly,
            circuit: kept.circuit(context.now),
            last_answer: kept.last_answer_at,
            last_error,
            seen,
        })
    };
    config.geo.sources.iter().map(line).collect()
}

impl SourceLine {
    fn json(&self) -> Value {
        let until = match self.circuit {
            Circuit::Open { until } => Some(until),
            Circuit::Closed | Circuit::HalfOpen => None,
        };
        json!({
            "source": self.name,
            "used_today": self.used_today,
            "daily": self.daily,
            "used_this_month": self.used_this_month,
            "monthly": self.monthly,
            "breaker": self.circuit.as_str(),
            "until": until,
            "last_answer": self.last_answer.map(time::iso),
            "last_error": self.last_error.as_ref().map(|(at, why)| json!({ "at": at, "says": why })),
        })
    }
}

fn show_sources(sources: &[SourceLine], screen: &mut Screen) -> anyhow::Result<()> {
    if sources.is_empty() {
        return Ok(());
    }
    screen.blank()?;
    let mut table = Table::new(&[
        ("source", Align::Left),
        ("today", Align::Right),
        ("month", Align::Right),
        ("breaker", Align::Left),
        ("last answer", Align::Left),
        ("last error", Align::Left),
    ])
    .wrapped();
    let used = |used: u32, quota: Option<u32>| match quota {
        Some(quota) => {
            let style = if used >= quota { RED } else { PLAIN };
            Cell::styled(format!("{}/{}", number(used.into()), number(quota.into())), style)
        }
        None => Cell::new(number(used.into())),
    };
    for source in sources {
        let style = match source.circuit {
            Circuit::Closed => GREEN,
            Circuit::HalfOpen => YELLOW,
            Circuit::Open { .. } => RED,
        };
        let [answer, error] = &source.seen;
        table.row(vec![
            Cell::new(source.name),
            used(source.used_today, source.daily),
            used(source.used_this_month, source.monthly),
            Cell::styled(source.circuit.as_str(), style),
            Cell::new(answer),
            Cell::styled(error, DIM),
        ]);
    }
    screen.table(&mut table)?;
    Ok(())
}

impl Refresh {
    fn run(self, config: &Config, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        if config.geo.sources.is_empty() {
            return Err(Misuse("there is no [[geo.source]] in the configuration to ask".to_owned()).into());
        }
        drop(State::open_or_create(&config.data)?);
        let whom = match (self.ips.is_empty(), self.all) {
            (false, _) => Whom::These(self.ips),
            (true, true) => Whom::All,
            (true, false) => Whom::Stale,
        };
        let done = geo::refresh(config, &whom, self.limit, context.now, &|| false)?;
        if self.format.json {
            let mut shown = json!(done);
            shown["stopped"] = json!(done.stopped.map(|(source, why)| unavailable(source, why)));
            screen.json(&shown)?;
        } else {
            screen.line(&done.sentence())?;
        }
        Ok(match (done.addresses, done.stopped.is_some() || done.failed > 0) {
            (_, true) => Outcome::Failed,
            (0, false) => Outcome::Nothing,
            (_, false) => Outcome::Done,
        })
    }
}

impl Update {
    fn run(self, config: &Config, screen: &mut Screen) -> anyhow::Result<Outcome> {
        if config.geo_downloads.is_empty() {
            return Err(Misuse("there is no [[geo.download]] in the configuration".to_owned()).into());
        }
        let mut results = Vec::new();
        for download in &config.geo_downloads {
            let result = geo::update(download, false, SystemTime::now());
            let file = download.file.display().to_string();
            match (&result, self.format.json) {
                (_, true) => {}
                (Ok(Downloaded::Replaced(status)), false) => screen.line(&format!(
                    "{file}: {}, {}, built {}",
                    status.kind,
                    bytes(status.bytes),
                    time::iso(status.built)
                ))?,
                (Ok(Downloaded::Unchanged), false) => screen.line(&format!("{file}: has not changed"))?,
                (Err(error), false) => {
                    screen.spans(&[(PLAIN, &file), (PLAIN, ": "), (RED, &sentence(error))])?;
                }
            }
            results.push((file, result));
        }
        if self.format.json {
            let shown = results.iter().map(|(file, result)| match result {
                Ok(Downloaded::Replaced(status)) => json!({
                    "file": file, "outcome": "replaced", "type": status.kind, "bytes": status.bytes,
                    "built": time::iso(status.built),
                }),
                Ok(Downloaded::Unchanged) => json!({ "file": file, "outcome": "unchanged" }),
                Err(error) => json!({ "file": file, "outcome": "failed", "why": sentence(error) }),
            });
            screen.json(&shown.collect::<Vec<_>>())?;
        }
        let has_failed = results.iter().any(|(_, result)| result.is_err());
        Ok(if has_failed { Outcome::Failed } else { Outcome::Done })
    }
}
