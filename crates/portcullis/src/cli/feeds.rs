//! `portcullis feeds`: the lists that others publish, how each stands, and fetching them now.
//! Must not show the URL of a feed: there may be a token in it.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use portcullis_config::{Config, Feed, FeedSource};
use portcullis_fetch::masked;
use portcullis_model::UnixMs;
use portcullis_policy::Mode;

use crate::feeds::{Change, Files, Status, TASK_NAME, Updated, judge, next_due, update};
use crate::tasks::{TaskContext, alone_and_on_record};

use super::context::{Context, Misuse};
use super::output::{Align, Cell, DIM, GREEN, RED, Screen, Table, YELLOW, number, tell};
use super::{Format, Outcome, time};

const EXAMPLES: &str = "\
Examples:
  portcullis feeds
  portcullis feeds update
  portcullis feeds --json | jq '.[] | select(.failing_since != null)'

Lists are configured as [[feed]]. A feed that fails leaves the last good copy in
force. An allow wins over a feed: portcullis allow 203.0.113.9";

const UPDATE_EXAMPLES: &str = "\
Examples:
  portcullis feeds update
  portcullis feeds update drop

Fetches in this process, whether a gateway runs or not; a running one takes the
list over within a second. Ends with 1 when a feed fails.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Feeds {
    #[command(flatten)]
    format: Format,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Fetch all feeds now, or one
    Update(Update),
}

#[derive(Debug, Args)]
#[command(after_help = UPDATE_EXAMPLES)]
struct Update {
    /// The feed's name; without one, all
    #[arg(value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    format: Format,
}

/// One feed as it stands.
#[derive(Serialize)]
pub(crate) struct Shown {
    pub(crate) name: Arc<str>,
    pub(crate) source: String,
    pub(crate) mode: &'static str,
    /// Whether a running gateway has it in force.
    pub(crate) in_force: bool,
    pub(crate) entries: u64,
    pub(crate) refused: u64,
    pub(crate) bad: u64,
    pub(crate) fetched_at: Option<UnixMs>,
    pub(crate) next_run: Option<UnixMs>,
    pub(crate) failing_since: Option<UnixMs>,
    pub(crate) failures: u64,
    pub(crate) error: Option<String>,
}

/// Instants that are not among the names that the output knows.
fn iso(at: Option<UnixMs>) -> Option<String> {
    at.map(time::iso)
}

impl Shown {
    pub(crate) fn new(feed: &Feed, config: &Config, now: UnixMs) -> Self {
        let files = Files::of(&config.data, feed);
        let status = files.status().unwrap_or_default();
        Self {
            name: Arc::clone(&feed.name),
            source: match &feed.source {
                FeedSource::Url(url) => masked(url.expose()),
                FeedSource::File(path) => path.display().to_string(),
            },
            mode: feed.mode.and(config.mode).as_str(),
            in_force: files.list.exists() && !status.is_too_old(feed, now),
            next_run: status.checked_at.map(|_| next_due(feed, &status)),
            entries: status.entries,
            refused: status.refused,
            bad: status.bad,
            fetched_at: status.fetched_at,
            failing_since: status.failing_since,
            failures: status.failures,
            error: status.error,
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "name": self.name,
            "source": self.source,
            "mode": self.mode,
            "in_force": self.in_force,
            "entries": self.entries,
            "refused": self.refused,
            "bad": self.bad,
            "fetched_at": iso(self.fetched_at),
            "next_run": iso(self.next_run),
            "failing_since": iso(self.failing_since),
            "failures": self.failures,
            "error": self.error,
        })
    }

    fn row(&self, context: &Context) -> Vec<Cell> {
        let dry_run = self.mode == Mode::DryRun.as_str();
        let state = match (self.in_force, &self.error) {
            (false, None) => Cell::styled("not fetched yet", DIM),
            (false, Some(_)) => Cell::styled("failing, not in force", RED),
            (true, Some(_)) => Cell::styled("failing, last copy", YELLOW),
            (true, None) if dry_run => Cell::styled("dry-run", YELLOW),
            (true, None) => Cell::styled("in force", GREEN),
        };
        let relative =
            |at: Option<UnixMs>| at.map_or_else(|| "-".to_owned(), |at| time::relative(at, context.now));
        vec![
            Cell::new(&self.name),
            state,
            Cell::new(number(self.entries)),
            Cell::new(relative(self.fetched_at)),
            Cell::new(relative(self.next_run)),
            Cell::styled(&self.source, DIM),
        ]
    }
}

/// All feeds of the configuration that have a copy: `drop (1,234 networks)`.
pub(super) fn in_a_line(config: &Config, now: UnixMs) -> Option<String> {
    let shown = config.feeds.iter().map(|feed| Shown::new(feed, config, now)).filter(|shown| shown.in_force);
    let words: Vec<String> =
        shown.map(|shown| format!("{} ({} networks)", shown.name, number(shown.entries))).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

impl Feeds {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        if let Some(Action::Update(update)) = self.action {
            return update.run(config, context, screen);
        }
        let feeds: Vec<Shown> =
            config.feeds.iter().map(|feed| Shown::new(feed, &config, context.now)).collect();
        if self.format.json {
            screen.json(&feeds.iter().map(Shown::json).collect::<Vec<_>>())?;
            return Ok(Outcome::Done);
        }
        if feeds.is_empty() {
            screen.line("No feeds. [[feed]] in the configuration adds one.")?;
            return Ok(Outcome::Done);
        }
        let mut table = Table::new(&[
            ("feed", Align::Left),
            ("state", Align::Left),
            ("networks", Align::Right),
            ("fetched", Align::Left),
            ("next", Align::Left),
            ("from", Align::Left),
        ]);
        feeds.iter().for_each(|feed| table.row(feed.row(context)));
        screen.table(&mut table)?;
        for feed in &feeds {
            if let Some(error) = &feed.error {
                let since = feed.failing_since.map(|at| format!(" since {}", context.time(at)));
                tell("", &format!("{} fails{}: {error}", feed.name, since.unwrap_or_default()));
            }
        }
        Ok(Outcome::Done)
    }
}

impl Update {
    fn run(self, config: Config, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        if let Some(name) =
            self.name.as_ref().filter(|name| !config.feeds.iter().any(|feed| *feed.name == **name))
        {
            return Err(
                Misuse(format!("no [[feed]] is named {name:?}; \"portcullis feeds\" lists them")).into()
            );
        }
        let names: Vec<Arc<str>> = config.feeds.iter().map(|feed| Arc::clone(&feed.name)).collect();
        let chosen = names.iter().filter(|name| self.name.as_ref().is_none_or(|only| ***name == **only));
        let run = TaskContext {
            config: Arc::new(config),
            now: context.now,
            gateway: None,
            control: Arc::default(),
        };
        let work = || {
            let each = chosen.map(|name| update(&run.config, Some(&**name), run.now, &|| false));
            Ok(each.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect::<Vec<_>>())
        };
        let updated = alone_and_on_record(TASK_NAME, &run, work, |updated| judge(updated))?;
        if self.format.json {
            let feeds = run.config.feeds.iter();
            let shown = feeds.map(|feed| Shown::new(feed, &run.config, context.now));
            let of_run = shown.filter(|shown| updated.iter().any(|one| *one.name == *shown.name));
            screen.json(&of_run.map(|shown| shown.json()).collect::<Vec<_>>())?;
        } else {
            updated.iter().try_for_each(|one| show(one, &run.config, screen))?;
        }
        let has_failed = updated.iter().any(|one| one.outcome.is_err());
        Ok(if has_failed { Outcome::Failed } else { Outcome::Done })
    }
}

fn show(updated: &Updated, config: &Config, screen: &mut Screen) -> anyhow::Result<()> {
    let Updated { name, outcome } = updated;
    match outcome {
        Ok(Change::Same) => screen.line(&format!("{name}: unchanged."))?,
        Ok(Change::New { entries }) => screen.line(&format!("{name}: {} networks.", number(*entries)))?,
        Err(error) => tell("error: ", &format!("{name}: {error}")),
    }
    let feed = config.feeds.iter().find(|feed| *feed.name == **name);
    let status = feed.and_then(|feed| Files::of(&config.data, feed).status());
    let Some(Status { refused, bad, bad_lines, .. }) = status.filter(|_| outcome.is_ok()) else {
        return Ok(());
    };
    if refused > 0 {
        tell("", &format!("{name}: {} networks left out that no list may block.", number(refused)));
    }
    for (line, excerpt, problem) in bad_lines {
        tell("bad: ", &format!("{name}: line {line}: {problem} ({excerpt:?})"));
    }
    if bad > 0 {
        tell("", &format!("{name}: {} bad lines in all.", number(bad)));
    }
    Ok(())
}
