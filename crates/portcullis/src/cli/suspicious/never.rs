//! `portcullis suspicious dismiss` and `suspicious never`: dismissing a finding for good, and taking that back.
//! Must not judge; the detector leaves out what is noted here.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use portcullis_detect::{self as detect, Dismissal, DismissalError};
use portcullis_model::{ClientIp, FindingStatus, reason_of};
use portcullis_store::{MAX_NEVERS, Never, NewNever, State, StoredFinding};

use super::super::context::{Context, Misuse, actor, actor_in_words, open_state};
use super::super::output::{Align, Cell, DIM, Screen, Table, tell};
use super::super::{Format, Outcome};
use super::{block_of, judged, unknown};

const DISMISS_EXAMPLES: &str = "\
Examples:
  portcullis suspicious dismiss 12
      it was a mistake; the same is not reported again for a day
  portcullis suspicious dismiss 12 --never client --note \"our monitor\"
      never again this rule about this client
  portcullis suspicious dismiss 12 --never path --path /old-shop
      requests at and below /old-shop are never again evidence for this rule
  portcullis suspicious dismiss 12 --never rule
      never again this rule, about anybody
  portcullis suspicious dismiss 12 --never client --rule login_failures
      another rule than the finding's strongest

In force at once. What other rules say stays. Undo: portcullis suspicious never
--remove N";

const NEVER_EXAMPLES: &str = "\
Examples:
  portcullis suspicious never
  portcullis suspicious never --remove 3
  portcullis suspicious never --json";

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Note that a finding is wrong, for a day or for good
    Dismiss(Dismiss),
    /// List what was dismissed for good, or take it back
    Never(Nevers),
}

impl Action {
    pub(super) fn run(self, data: &Path, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        match self {
            Self::Dismiss(dismiss) => dismiss.run(data, context, screen),
            Self::Never(nevers) => nevers.run(data, context, screen),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = DISMISS_EXAMPLES)]
pub(super) struct Dismiss {
    /// The number of the finding
    #[arg(value_name = "ID")]
    id: i64,

    /// Never again: the rule about this client, about this path, or the rule at all
    #[arg(long, value_name = "WHAT", value_enum)]
    never: Option<What>,

    /// With --never: another rule than the strongest of the finding
    #[arg(long, value_name = "RULE", requires = "never")]
    rule: Option<String>,

    /// With --never path: the path and everything below it; without it the path of the samples, if all have one
    #[arg(long, value_name = "PATH", requires = "never")]
    path: Option<String>,

    /// Why, for the next person
    #[arg(long, value_name = "TEXT", value_parser = reason_of, requires = "never")]
    note: Option<String>,

    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Client,
    Path,
    Rule,
}

impl Dismiss {
    fn run(self, data: &Path, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let stored = match open_state(data)? {
            None => return Ok(unknown(self.id, context)),
            Some(state) => state.finding(self.id)?,
        };
        let Some(stored) = stored else { return Ok(unknown(self.id, context)) };
        let new = self.never.map(|what| self.new_never(what, &stored)).transpose()?;
        let mut state = State::open_or_create(data)?;
        let never = match &new {
            None => None,
            Some(new) => {
                let never = state.add_never(new, &actor(), context.now)?;
                Some(never.ok_or_else(|| {
                    let list = context.command("suspicious never");
                    Misuse(format!(
                        "there are {MAX_NEVERS} dismissals for good already; take some back: {list}"
                    ))
                })?)
            }
        };
        state.set_finding_status(self.id, FindingStatus::Dismissed, &actor(), context.now)?;
        let stored = StoredFinding { status: FindingStatus::Dismissed, ..stored };
        let Some(never) = never else {
            return judged(&state, stored, self.format.json, context, screen);
        };
        if self.format.json {
            let mut document = super::as_json(&stored, block_of(&state, &stored, context)?.as_ref());
            document["never"] = json!(never);
            screen.json(&document)?;
            return Ok(Outcome::Done);
        }
        let outcome = judged(&state, stored, false, context, screen)?;
        screen.line(&format!("Never again: {never}."))?;
        screen.line(&format!(
            "Undo: {}",
            context.command(&format!("suspicious never --remove {}", never.id))
        ))?;
        Ok(outcome)
    }

    fn new_never(&self, never: What, stored: &StoredFinding) -> anyhow::Result<NewNever> {
        if self.path.is_some() && never != What::Path {
            return Err(Misuse("--path goes with \"--never path\"".to_owned()).into());
        }
        let dismissal =
            Dismissal::new(&stored.finding, never.into(), self.rule.as_deref(), self.path.as_deref())
                .map_err(|error| Misuse(in_options(&error)))?;
        let note = self.note.clone().unwrap_or_default();
        let Dismissal { rule, network, path } = dismissal;
        Ok(NewNever { rule, network, path, note, finding_id: Some(stored.id) })
    }
}

/// What to type, where the sentence leaves that open.
fn in_options(error: &DismissalError) -> String {
    match error {
        DismissalError::NoSample(_) | DismissalError::SeveralPaths => format!("{error}: --path PATH"),
        DismissalError::NotAboutPaths(_) => format!("{error}: --never client"),
        DismissalError::UnknownRule(_) | DismissalError::NoPath(_) => error.to_string(),
    }
}

impl From<What> for detect::Never {
    fn from(what: What) -> Self {
        match what {
            What::Client => Self::Client,
            What::Path => Self::Path,
            What::Rule => Self::Rule,
        }
    }
}

/// What was dismissed for good that is about this client, or about everybody, as clauses with their numbers.
pub(in crate::cli) fn about(state: &State, client: ClientIp) -> anyhow::Result<Vec<String>> {
    let is_about = |never: &Never| {
        never.path.is_none() && never.network.is_none_or(|network| network.contains(&client.limit_key()))
    };
    let all = state.nevers()?.into_iter().filter(is_about);
    Ok(all.map(|never| format!("{}: {}", never.id, never)).collect())
}

#[derive(Debug, Args)]
#[command(after_help = NEVER_EXAMPLES)]
pub(super) struct Nevers {
    /// Let a rule speak again
    #[arg(long, value_name = "N")]
    remove: Option<i64>,

    #[command(flatten)]
    format: Format,
}

impl Nevers {
    fn run(self, data: &Path, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        if let Some(id) = self.remove {
            let removed = match open_state(data)? {
                None => false,
                Some(_) => State::open_or_create(data)?.remove_never(id, &actor(), context.now)?,
            };
            if self.format.json {
                screen.json(&json!({ "id": id, "removed": removed }))?;
            } else if removed {
                screen.line(&format!("{id} is taken back: the rule speaks again."))?;
            } else {
                tell("", &format!("There is no {id} in force. See {}", context.command("suspicious never")));
            }
            return Ok(if removed { Outcome::Done } else { Outcome::Nothing });
        }
        let nevers = match open_state(data)? {
            None => Vec::new(),
            Some(state) => state.nevers()?,
        };
        if self.format.json {
            screen.json(&nevers)?;
            return Ok(Outcome::Done);
        }
        if nevers.is_empty() {
            screen.line("Nothing was dismissed for good.")?;
            return Ok(Outcome::Done);
        }
        let mut table = Table::new(&[
            ("n", Align::Right),
            ("never again", Align::Left),
            ("since", Align::Left),
            ("by", Align::Left),
            ("finding", Align::Right),
            ("note", Align::Left),
        ])
        .wrapped();
        for never in &nevers {
            table.row(vec![
                Cell::new(never.id.to_string()),
                Cell::new(never.to_string()),
                Cell::new(context.short_time(never.created_at)),
                Cell::new(actor_in_words(&never.created_by)),
                Cell::new(never.finding_id.map_or_else(String::new, |id| id.to_string())),
                Cell::new(&never.note),
            ]);
        }
        screen.table(&mut table)?;
        screen.blank()?;
        screen.spans(&[(DIM, &format!("undo: {}", context.command("suspicious never --remove N")))])?;
        Ok(Outcome::Done)
    }
}
