//! `portcullis site`: what the detector has learned of the site, and taking it back. Must not learn anything itself.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use portcullis_detect::{Origin, Site};
use portcullis_model::UnixMs;

use crate::detection::{self, ForestState};
use crate::tasks::{TaskContext, alone_and_on_record};

use super::context::{Context, actor, open_state};
use super::output::{Align, Cell, DIM, Screen, Table, YELLOW, count, number, tell};
use super::{Format, Outcome, time};

const EXAMPLES: &str = "\
Examples:
  portcullis site
      which paths are its own, what is usual, and how the isolation forest does
  portcullis site --json | jq '.hours[-24:]'
  portcullis site forget /admin
  portcullis site forget --all

Learned by the hourly run of the detector from the log. A path is the site's own
when visitors of three networks were served it on two days.";

/// Paths and spikes that are listed for people; --json has all that are known by name.
const MAX_LISTED: usize = 20;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct SiteCommand {
    #[command(flatten)]
    format: Format,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Forget a path, or everything that was learned of the site
    Forget(Forget),
}

#[derive(Debug, Args)]
struct Forget {
    /// "/path" on every host, or "host/path"
    #[arg(value_name = "PATH", required_unless_present = "all")]
    path: Option<String>,

    /// Everything; it is learned anew from the log of the last seven days
    #[arg(long, conflicts_with = "path")]
    all: bool,
}

impl SiteCommand {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        match self.action {
            Some(Action::Forget(forget)) => forget.run(context, screen),
            None => show(self.format.json, context, screen),
        }
    }
}

impl Forget {
    fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = std::sync::Arc::new(context.config()?);
        let work =
            TaskContext { config, now: context.now, gateway: None, control: std::sync::Arc::default() };
        let data = &work.config.data;
        if open_state(data)?.is_none() {
            tell("", "Nothing is known of the site yet.");
            return Ok(Outcome::Nothing);
        }
        // Not beside a run, which would write what it has read before.
        let forgotten = alone_and_on_record(
            detection::TASK,
            &work,
            || match &self.path {
                None => Ok(usize::from(detection::forget_site(data)?)),
                Some(path) => {
                    let Some(mut site) = detection::read_site(data)? else { return Ok(0) };
                    let forgotten = site.forget(path);
                    if forgotten > 0 {
                        detection::write_site(data, &site)?;
                    }
                    Ok(forgotten)
                }
            },
            |forgotten| Ok(format!("site forget by {}: {forgotten}", actor())),
        )?;
        match (&self.path, forgotten) {
            (_, 0) => {
                tell("", "There is nothing of the kind; see what is known by \"portcullis site\".");
                return Ok(Outcome::Nothing);
            }
            (None, _) => screen.line("What was known of the site is forgotten.")?,
            (Some(path), 1) => screen.line(&format!("{path} is forgotten."))?,
            (Some(path), hosts) => screen.line(&format!("{path} is forgotten on {hosts} hosts."))?,
        }
        Ok(Outcome::Done)
    }
}

fn show(is_json: bool, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
    let data = context.config()?.data;
    let site = detection::read_site(&data)?;
    let forest = detection::forest_state(&data);
    if is_json {
        screen.json(&as_json(site.as_ref(), &forest, context.now))?;
        return Ok(Outcome::Done);
    }
    let Some(site) = site else {
        screen.line("Nothing is known of the site yet: the detector learns from whole hours of the log.")?;
        screen.line(&format!("To have it look now: {}", context.command("detect")))?;
        return Ok(Outcome::Nothing);
    };
    in_words(&site, &forest, context, screen)?;
    Ok(Outcome::Done)
}

fn in_words(site: &Site, forest: &ForestState, context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    let (owned, others) = site.path_counts();
    screen.title("The site as the detector knows it")?;
    if let Some(since) = site.since() {
        screen.field("since", &time::full(since, &context.zone))?;
        screen.field("learned until", &time::full(site.learned_until(), &context.zone))?;
    }
    screen.field(
        "paths",
        &format!(
            "{} are its own; {} more were served to somebody",
            number(owned as u64),
            number(others as u64)
        ),
    )?;
    let share =
        |share: Option<f64>| share.map_or("unknown".to_owned(), |share| format!("{:.1} %", share * 100.0));
    screen.field("errors", &format!("{} of the answers to ordinary clients", share(site.error_share())))?;
    screen.field("assets", &format!("{} of their requests", share(site.asset_share())))?;
    if let Some(usual) = site.expected(context.now) {
        screen.field(
            "this hour",
            &format!("{:.0} requests are usual, give or take {:.0}", usual.requests, usual.spread),
        )?;
    }
    for (n, (path, login)) in site.logins().enumerate() {
        let text = format!("{path}: {}, {} refused", count(login.attempts, "login"), number(login.refused));
        screen.field(if n == 0 { "logins" } else { "" }, &text)?;
    }
    for host in site.soft_hosts() {
        let text = format!("{host} answers whatever it is asked for: what it serves proves nothing");
        screen.styled_field("mind", YELLOW, &text)?;
    }
    let spikes = site.spikes();
    for (n, spike) in spikes.iter().rev().take(MAX_LISTED).enumerate() {
        let text = format!(
            "{}: {} requests, {:.0} are usual",
            time::full(spike.at, &context.zone),
            number(spike.requests),
            spike.expected.requests
        );
        screen.field(if n == 0 { "spikes" } else { "" }, &text)?;
    }
    show_forest(forest, context, screen)?;
    let named = site.named_paths();
    if !named.is_empty() {
        screen.blank()?;
        let mut table =
            Table::new(&[("path", Align::Left), ("visitors", Align::Right), ("days", Align::Right)]);
        for path in named.iter().take(MAX_LISTED) {
            table.row(vec![
                Cell::new(&*path.name),
                Cell::new(number(path.served.into())),
                Cell::new(path.days.to_string()),
            ]);
        }
        screen.table(&mut table)?;
        if named.len() > MAX_LISTED {
            let all = context.command("site --json");
            screen.spans(&[(DIM, &format!("{} more: {all}", named.len() - MAX_LISTED))])?;
        }
    }
    Ok(())
}

/// How the forest does, one line each.
pub(super) fn show_forest(
    forest: &ForestState,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let Some(latest) = forest.latest() else {
        return Ok(screen.field("forest", "has not had a say yet")?);
    };
    let whose = match latest.origin {
        Origin::Site => "ordinary clients of the site",
        Origin::Reference => "made-up clients, until the site has shown enough of its own",
    };
    let age = forest.fitted_at.map_or(String::new(), |at| format!(", {}", time::relative(at, context.now)));
    screen.field(
        "forest",
        &format!("model {} of {} {whose}{age}", latest.model, number(latest.training_rows as u64)),
    )?;
    let (scored, flagged) = forest.totals();
    screen.field(
        "",
        &format!(
            "found {} of {} clients odd (score above {:.3}) in the last {}",
            number(flagged as u64),
            number(scored as u64),
            latest.threshold,
            count(forest.runs.len() as u64, "run")
        ),
    )?;
    match (forest.problem(), &latest.drift) {
        (Some(problem), _) => screen.styled_field("", YELLOW, &problem)?,
        (None, Some(drift)) => screen.field(
            "",
            &format!("what moved most since: {} is {}, then {}", drift.feature, drift.now, drift.typical),
        )?,
        (None, None) => {}
    }
    Ok(())
}

fn as_json(site: Option<&Site>, forest: &ForestState, now: UnixMs) -> Value {
    let known = site.map(|site| {
        let (owned, others) = site.path_counts();
        let paths = site.named_paths().into_iter();
        json!({
            "since": site.since().map(time::iso),
            "learned_until": time::iso(site.learned_until()),
            "owned_paths": owned,
            "other_paths": others,
            "paths": paths.map(|path| json!({ "path": path.name, "visitors": path.served, "days": path.days }))
                .collect::<Vec<_>>(),
            "error_share": site.error_share(),
            "asset_share": site.asset_share(),
            "expected_this_hour": site.expected(now),
            "hours": site.hours().map(|(at, totals)| json!({
                "hour": time::iso(at), "requests": totals.requests, "errors": totals.errors,
            })).collect::<Vec<_>>(),
            "spikes": site.spikes().iter().map(|spike| json!({
                "hour": time::iso(spike.at), "requests": spike.requests, "usual": spike.expected.requests,
            })).collect::<Vec<_>>(),
            "logins": site.logins().map(|(path, login)| json!({
                "path": path, "attempts": login.attempts, "refused": login.refused, "last": time::iso(login.last),
            })).collect::<Vec<_>>(),
            "answers_everything": site.soft_hosts().collect::<Vec<_>>(),
        })
    });
    let (scored, flagged) = forest.totals();
    let forest = forest.latest().map(|latest| {
        json!({
            "model": latest.model,
            "origin": latest.origin,
            "training_rows": latest.training_rows,
            "fitted_at": forest.fitted_at.map(time::iso),
            "threshold": latest.threshold,
            "runs": forest.runs.len(),
            "scored": scored,
            "flagged": flagged,
            "drift": latest.drift,
            "problem": forest.problem(),
        })
    });
    let mut document = known.unwrap_or_else(|| json!({}));
    document["forest"] = json!(forest);
    document
}
