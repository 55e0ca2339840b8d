//! `portcullis settings`: what can be changed while the gateway runs, beside what the file says; `set` and `unset`.
//! Must not judge values; the configuration does.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use portcullis_config::{Config, LiveSetting, SettingProblem, UnknownSetting, setting_value};
use portcullis_model::UnixMs;
use portcullis_store::{Setting, State};

use super::context::{Context, Misuse, actor, actor_in_words};
use super::output::{Align, Cell, DIM, Screen, Table, YELLOW, tell};
use super::{Format, Outcome};

const EXAMPLES: &str = "\
Examples:
  portcullis settings
      each with its value, the file's, and who changed it when
  portcullis settings set detection.requests_per_hour 200
  portcullis settings unset detection.requests_per_hour

A value that was set here wins over the configuration file until it is unset. A
running gateway takes it over within a second; commands use it at once.";

const SET_EXAMPLES: &str = "\
Examples:
  portcullis settings set detection.requests_per_hour 200
  portcullis settings set detection.block_severity critical
  portcullis settings set detection.block_for '[\"1h\", \"1d\", \"forever\"]'
  portcullis settings set detection.sensitive_paths '[\"/admin\", \"/.env\"]'

The value is written as in the configuration file; text may go without its
quotes.";

const UNSET_EXAMPLES: &str = "\
Examples:
  portcullis settings unset detection.requests_per_hour

Exit code 3: the setting was not changed, the file's value is in force.";

const IN_FORCE: &str = "In force within a second if the gateway is running.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Settings {
    #[command(flatten)]
    format: Format,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Put a value in the place of the file's
    Set(Set),
    /// Go back to the file's value
    Unset(Unset),
}

#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
struct Set {
    /// Its name with its table, as "settings" lists it
    #[arg(value_name = "NAME", value_parser = setting)]
    setting: LiveSetting,

    /// As in the configuration file
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: String,

    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = UNSET_EXAMPLES)]
struct Unset {
    /// Its name, also of one that this version does not know
    #[arg(value_name = "NAME")]
    key: String,

    #[command(flatten)]
    format: Format,
}

fn setting(name: &str) -> Result<LiveSetting, String> {
    name.parse().map_err(|unknown: UnknownSetting| unknown.to_string())
}

/// A setting as it is now.
#[derive(Serialize)]
struct Shown {
    key: &'static str,
    value: String,
    in_file: String,
    is_changed: bool,
    changed_at: Option<UnixMs>,
    changed_by: Option<String>,
    about: &'static str,
}

impl Shown {
    fn of(setting: LiveSetting, config: &Config, stored: &[Setting]) -> Self {
        let is_changed = config.overridden.contains(&setting);
        let change = stored.iter().find(|stored| is_changed && stored.key == setting.as_str());
        Self {
            key: setting.as_str(),
            value: setting.written(&config.detection),
            in_file: setting.written(&config.detection_in_file),
            is_changed,
            changed_at: change.and_then(|change| change.changed_at),
            changed_by: change.and_then(|change| change.changed_by.clone()),
            about: setting.about(),
        }
    }
}

impl Settings {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        match self.action {
            None => list(&config, self.format.json, context, screen),
            Some(Action::Set(set)) => set.run(&config, context, screen),
            Some(Action::Unset(unset)) => unset.run(&config, context, screen),
        }
    }
}

fn stored(config: &Config) -> anyhow::Result<Vec<Setting>> {
    Ok(crate::settings::stored(&config.data)?)
}

fn list(config: &Config, json: bool, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
    let stored = stored(config)?;
    let all: Vec<Shown> =
        LiveSetting::ALL.into_iter().map(|setting| Shown::of(setting, config, &stored)).collect();
    if json {
        screen.json(&all)?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&[
        ("setting", Align::Left),
        ("value", Align::Left),
        ("in the file", Align::Left),
        ("changed", Align::Left),
    ])
    .wrapped();
    for shown in &all {
        let (in_file, changed) = match shown.is_changed {
            true => (Cell::new(short(&shown.in_file)), Cell::new(changed(shown, context))),
            false => (Cell::styled("the same", DIM), Cell::styled("-", DIM)),
        };
        let value = short(&shown.value);
        let value = if shown.is_changed { Cell::styled(value, YELLOW) } else { Cell::new(value) };
        table.row(vec![Cell::new(shown.key), value, in_file, changed]);
    }
    screen.table(&mut table)?;
    screen.blank()?;
    screen.spans(&[(DIM, &format!("change one: {}", context.command("settings set NAME VALUE")))])?;
    Ok(Outcome::Done)
}

/// Characters of a value in the table; --json has all of it.
const MAX_SHOWN: usize = 50;

fn short(value: &str) -> String {
    match value.char_indices().nth(MAX_SHOWN) {
        Some((cut, _)) => format!("{}...", &value[..cut]),
        None => value.to_owned(),
    }
}

/// `by alice at the command line, 2026-09-01 12:34:56`
fn changed(shown: &Shown, context: &Context) -> String {
    match (&shown.changed_by, shown.changed_at) {
        (Some(who), Some(at)) => format!("{}, {}", actor_in_words(who), context.short_time(at)),
        _ => "while running".to_owned(),
    }
}

impl Set {
    fn run(self, config: &Config, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let key = self.setting.as_str();
        let value = setting_value(&self.value);
        let changed = config.with_change(&standing(config)?, key, Some(&value)).map_err(misuse)?;
        State::open_or_create(&config.data)?.set_setting(key, &value, &actor(), context.now)?;
        let shown = Shown::of(self.setting, &changed, &stored(config)?);
        if self.format.json {
            screen.json(&shown)?;
        } else {
            screen.line(&format!("{key} = {} (the file says {}).", shown.value, shown.in_file))?;
            screen.line(IN_FORCE)?;
            screen
                .line(&format!("Back to the file: {}", context.command(&format!("settings unset {key}"))))?;
        }
        Ok(Outcome::Done)
    }
}

impl Unset {
    fn run(self, config: &Config, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let is_there = stored(config)?.iter().any(|stored| stored.key == self.key);
        let was = match is_there {
            false => None,
            true => {
                config.with_change(&standing(config)?, &self.key, None).map_err(misuse)?;
                State::open_or_create(&config.data)?.unset_setting(&self.key, &actor(), context.now)?
            }
        };
        if self.format.json {
            screen.json(&json!({ "key": self.key, "was": was }))?;
        } else if let Some(was) = &was {
            screen.line(&format!("{} is the file's again; it was {was}.", self.key))?;
            screen.line(IN_FORCE)?;
        } else {
            tell("", &format!("{} was not changed while running.", self.key));
        }
        Ok(if was.is_some() { Outcome::Done } else { Outcome::Nothing })
    }
}

fn standing(config: &Config) -> anyhow::Result<Vec<(String, String)>> {
    Ok(stored(config)?.into_iter().map(|stored| (stored.key, stored.value)).collect())
}

fn misuse(problems: Vec<SettingProblem>) -> Misuse {
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Misuse(all.join("\n"))
}
