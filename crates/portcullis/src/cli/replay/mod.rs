//! `portcullis replay`: what a policy would have done to the requests of access logs, or of the gateway's own log.
//!
//! Owns the options and the files that are written. Must not judge requests.

mod files;
mod print;
mod progress;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;

use portcullis_accesslog::{Choice, FieldMap, Format as LogFormat};
use portcullis_config::{Config, Overrides, load};
use portcullis_detect::Signatures;
use portcullis_detect::bots::KnownBots;
use portcullis_model::Severity;

use super::Outcome;
use super::context::{Context, Misuse};
use super::output::{Screen, bytes, number, tell};
use super::time::Moment;
use crate::bots::Bots;
use crate::replay::{
    Budget, Figures, Inputs, Model, Outcome as Played, Pass, Past, Simulation, Source, differences,
    memory_peak, model,
};

use files::{Sinks, write_flagged};
use print::Report;
use progress::Bar;

const EXAMPLES: &str = "\
Examples:
  portcullis replay /var/log/nginx/access.log*
  zcat old.gz | portcullis replay -
  portcullis replay access.log --policy new.toml --against portcullis.toml
  portcullis replay access.log --fail-if \"humans_blocked > 0\"
  portcullis replay app.log --format json --map time=ts,ip=client.addr,uri=url
  portcullis replay --from-log --since 7d --json flagged.jsonl

Nothing is changed and nobody is blocked. Reads the combined, common and
vhost_combined formats of Apache and nginx, JSON lines, Caddy, Traefik, HAProxy
and Nginx Proxy Manager, each plain, gzip or zstd. Rotated logs may be named in
any order.

--fail-if takes NAME OP NUMBER; \"and\" joins what must hold together, a comma
separates what fails alone. Names: requests, clients, bad_lines, flagged,
blocked, listed, denied, limited, refused, requests_refused, humans,
humans_flagged, humans_blocked, humans_limited, humans_refused, bots,
bots_flagged, bots_refused; with --against also newly_blocked and
humans_newly_blocked. When a budget fails, the exit code is 1.";

/// Clients that are listed without `--limit`.
const LISTED: usize = 20;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Replay {
    /// Access logs, packed or not; - reads standard input
    #[arg(value_name = "FILE|-", value_hint = clap::ValueHint::FilePath, required_unless_present = "from_log")]
    files: Vec<PathBuf>,

    /// The configuration to try; without it the one of --config, ./portcullis.toml, or the defaults
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    policy: Option<PathBuf>,

    /// A second configuration: show only what differs
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    against: Option<PathBuf>,

    /// Replay the gateway's own log
    #[arg(long, conflicts_with_all = ["files", "format", "map"])]
    from_log: bool,

    /// With --from-log, not before: 24h, 7d, today, 2026-11-01 [default: 7d]
    #[arg(long, value_name = "TIME", requires = "from_log")]
    since: Option<Moment>,

    /// With --from-log, before
    #[arg(long, value_name = "TIME", requires = "from_log")]
    until: Option<Moment>,

    /// The format of the logs: combined, common, vhost_combined, traefik-clf, traefik, caddy, json, haproxy,
    /// nginx-proxy-manager; auto tells them apart
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: Format,

    /// Where JSON lines have their fields: time, ip, method, uri, query, request, status, bytes, host, user_agent,
    /// referer; nested names with dots
    #[arg(long, value_name = "FIELD=NAME,...")]
    map: Option<FieldMap>,

    /// Flagged is who reaches this: low, medium, high or critical
    #[arg(long, value_name = "SEVERITY", default_value_t = Severity::Medium)]
    severity: Severity,

    /// List at most so many clients
    #[arg(long, value_name = "N", default_value_t = LISTED)]
    limit: usize,

    /// Write a line of JSON for each flagged client; - is standard output
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    json: Option<PathBuf>,

    /// Write ip,hour,forest_score for each client and hour that the isolation forest scored
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    scores: Option<PathBuf>,

    /// Score by this model of the isolation forest; if it is not there, train one and store it there
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    model: Option<PathBuf>,

    /// Exit with 1 if this holds, such as "humans_blocked > 0"; may be given several times
    #[arg(long, value_name = "BUDGET")]
    fail_if: Vec<Budget>,
}

/// What `--format` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format(Choice);

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(Choice::Auto)),
            _ => text.parse::<LogFormat>().map(|format| Self(Choice::Only(format))),
        }
    }
}

/// A policy and where it is from.
struct Policy {
    name: String,
    config: Config,
}

impl Replay {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let policy = self.policy(context)?;
        let against = self.against.as_deref().map(|file| named(file, context)).transpose()?;
        let past = self.past(context, &policy.config)?;
        let signatures = Arc::new(Signatures::builtin());
        let started = Instant::now();

        let total = match &past {
            Past::Logs(inputs) => inputs.bytes(),
            Past::Own { .. } => None,
        };
        let mut bar = Bar::new(total);
        let model = {
            let mut learning = bar.step("learning", None);
            let bots = known_bots(&policy.config, context);
            let (detection, file) = (&policy.config.detection, self.model.as_deref());
            model(detection, &past, file, &signatures, bots.as_deref(), &mut learning)?
        };
        let (pass, outcomes) =
            self.play(&past, &[Some(&policy), against.as_ref()], &model, context, &mut bar)?;
        bar.finish();

        let [now, before @ ..] = &outcomes[..] else { return Ok(Outcome::Nothing) };
        let flagged = now.flagged(self.severity);
        let bad_lines = pass.sources.iter().map(|source| source.counts.bad).sum();
        let mut figures = now.figures(&flagged, bad_lines);
        let changes = before.first().map(|before| differences(now, before, self.severity));
        if let Some(changes) = &changes {
            let newly = || changes.iter().filter(|change| change.is_newly_blocked());
            figures.set("newly_blocked", newly().count() as u64);
            let is_human = |change: &&crate::replay::Change| change.looks == crate::replay::Looks::Human;
            figures.set("humans_newly_blocked", newly().filter(is_human).count() as u64);
        }
        let is_on_screen = self.json.as_deref() == Some(Path::new("-"));
        if let Some(file) = &self.json {
            write_flagged(file, &flagged, screen)?;
        }
        if !is_on_screen {
            let report = Report {
                past: &past,
                config: &policy.config,
                pass: &pass,
                now,
                before: before.first(),
                changes: changes.as_deref(),
                flagged: &flagged,
                figures: &figures,
                severity: self.severity,
                limit: self.limit,
                keeps_model: self.model.is_some(),
            };
            report.print(screen)?;
            screen.flush()?;
        }
        tell_rate(&pass, &model, started);
        self.judge(&figures, now.totals.requests)
    }

    fn policy(&self, context: &Context) -> anyhow::Result<Policy> {
        match &self.policy {
            Some(file) => named(file, context),
            None => {
                let name =
                    context.config_file().map_or("the defaults".to_owned(), |f| f.display().to_string());
                Ok(Policy { name, config: context.config()? })
            }
        }
    }

    fn past(&self, context: &Context, config: &Config) -> anyhow::Result<Past> {
        if self.from_log {
            let resolve = |moment: &Moment| moment.resolve(context.now, &context.zone);
            let week = std::time::Duration::from_secs(7 * 86_400);
            let from = self.since.as_ref().map_or(context.now.minus(week), resolve);
            let to = self.until.as_ref().map_or(context.now, resolve);
            return Ok(Past::Own { data: config.data.clone(), from, to });
        }
        let sources = self.files.iter().map(|file| match file.as_os_str() == "-" {
            true => Source::Stdin,
            false => Source::File(file.clone()),
        });
        let inputs = Inputs { sources: sources.collect(), choice: self.format.0, map: self.map.clone() };
        inputs.check().map_err(|error| Misuse(error.to_string()))?;
        Ok(Past::Logs(inputs))
    }

    /// Every policy over the same requests, in one reading.
    fn play(
        &self,
        past: &Past,
        policies: &[Option<&Policy>],
        model: &Model,
        context: &Context,
        bar: &mut Bar,
    ) -> anyhow::Result<(Pass, Vec<Played>)> {
        let policies: Vec<&Policy> = policies.iter().copied().flatten().collect();
        let signatures = &Arc::new(Signatures::builtin());
        let simulation = |policy: &&Policy| {
            let bots = known_bots(&policy.config, context);
            Simulation::new(&policy.config, model, signatures, bots.as_ref())
        };
        let mut played = policies.iter().map(simulation).collect::<anyhow::Result<Vec<_>>>()?;
        // The scores are those of the first policy.
        let mut sinks = Sinks::new(self.scores.as_deref())?;
        let mut failure = None;
        let pass = past.visit(&mut bar.step("replaying", model.requests), &mut |seen| {
            for (n, simulation) in played.iter_mut().enumerate() {
                if failure.is_none()
                    && let Err(error) = simulation.observe(seen, &mut |score| sinks.write(n, score))
                {
                    failure = Some(error);
                }
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        let mut outcomes = Vec::new();
        for (n, (simulation, policy)) in played.into_iter().zip(policies).enumerate() {
            outcomes.push(simulation.finish(policy.name.clone(), &mut |score| sinks.write(n, score))?);
        }
        sinks.finish()?;
        Ok((pass, outcomes))
    }

    /// The exit code by the budgets.
    fn judge(&self, figures: &Figures, requests: u64) -> anyhow::Result<Outcome> {
        if let Some(name) = self.fail_if.iter().find_map(|budget| budget.unknown(figures).next()) {
            return Err(Misuse(format!("{name} is known with --against only")).into());
        }
        let exceeded: Vec<String> = self.fail_if.iter().flat_map(|budget| budget.exceeded(figures)).collect();
        for condition in &exceeded {
            tell("failed: ", condition);
        }
        Ok(match (exceeded.is_empty(), requests) {
            (false, _) => Outcome::Failed,
            (true, 0) => Outcome::Nothing,
            (true, _) => Outcome::Done,
        })
    }
}

/// A policy of a file. It need not say what it stands in front of.
fn named(file: &Path, context: &Context) -> anyhow::Result<Policy> {
    let overrides = Overrides {
        upstream: Some("http://127.0.0.1".to_owned()),
        data: context.named_data().map(Path::to_path_buf),
        ..Overrides::default()
    };
    Ok(Policy { name: file.display().to_string(), config: load(Some(file), &overrides)?.config })
}

/// The crawlers that a policy knows, with the networks that were fetched for it; DNS is not asked about the past.
fn known_bots(config: &Config, context: &Context) -> Option<Arc<KnownBots>> {
    config.bots.enabled.then(|| Bots::without_dns(config, context.now).known())
}

/// On standard error, since it differs from one run to the next.
fn tell_rate(pass: &Pass, model: &Model, started: Instant) {
    let seconds = started.elapsed().as_secs_f64().max(0.001);
    let rate = number((pass.requests as f64 / seconds) as u64);
    let passes = if model.requests.is_some() { ", read twice to train the forest" } else { "" };
    let memory = memory_peak().map(|peak| format!("; {} of memory at most", bytes(peak))).unwrap_or_default();
    tell(
        "",
        &format!("{} requests in {seconds:.1} s, {rate} per second{passes}{memory}", number(pass.requests)),
    );
}
