//! `portcullis report`: the report of a day, printed or sent. Must not make it: that is the same for the task.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use jiff::civil::Date;
use serde_json::json;

use portcullis_notify::Scene;

use super::context::{Context, Misuse};
use super::output::{GREEN, PLAIN, RED, Screen};
use super::{Format, Outcome};
use crate::alerts::{channels, name, send};
use crate::report;

const EXAMPLES: &str = "\
Examples:
  portcullis report
  portcullis report --day 2026-11-19 --format html > report.html
  portcullis report --day today --json | jq .totals.requests
  portcullis report --send

Without --day it is yesterday's. Days begin at midnight in tasks.time_zone. The
gateway sends the report of each day by itself when tasks.report comes.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Report {
    /// The day: 2026-11-19, "today" or "yesterday"
    #[arg(long, value_name = "DAY", default_value = "yesterday")]
    day: Day,

    /// How to print it
    #[arg(long = "format", value_name = "FORM", value_enum, default_value_t = Form::Text)]
    form: Form,

    /// Send it now by mail and webhooks instead of printing it
    #[arg(long, conflicts_with = "form")]
    send: bool,

    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Html,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    Today,
    Yesterday,
    On(Date),
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "today" => Ok(Self::Today),
            "yesterday" => Ok(Self::Yesterday),
            _ => text.parse().map(Self::On).map_err(|_| {
                format!("expected a day such as 2026-11-19, \"today\" or \"yesterday\", got {text:?}")
            }),
        }
    }
}

impl Report {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let zone = report::zone(&config);
        let day = match self.day {
            Day::On(day) => day,
            Day::Yesterday => report::yesterday(context.now, &zone),
            Day::Today => report::today(context.now, &zone),
        };
        if day > report::today(context.now, &zone) {
            return Err(Misuse(format!("{day} has not come yet")).into());
        }
        let report = report::make(&config, day, context.now)?;
        if !self.send {
            match (self.form, self.format.json) {
                (Form::Json, _) | (_, true) => screen.json(&report.as_json())?,
                (Form::Html, false) => screen.script(report.html(&zone).as_bytes())?,
                (Form::Text, false) => report.text(&zone).lines().try_for_each(|line| screen.line(line))?,
            }
            return Ok(Outcome::Done);
        }
        let name = name(&config.alerts);
        let scene = Scene { name: &name, zone: &zone };
        let message = report.message(&zone);
        let mut outcomes = Vec::new();
        for channel in channels(&config.alerts) {
            let outcome = send(channel, &message, None, &scene, context.now);
            outcomes.push((channel, outcome.map_err(|error| error.to_string())));
        }
        let has_failed = outcomes.iter().any(|(_, outcome)| outcome.is_err());
        if self.format.json {
            let shown = outcomes.iter().map(|(channel, outcome)| {
                json!({ "channel": channel.name(), "sent": outcome.is_ok(), "error": outcome.as_ref().err() })
            });
            screen.json(&shown.collect::<Vec<_>>())?;
        } else {
            for (channel, outcome) in &outcomes {
                match outcome {
                    Ok(()) => screen.spans(&[(GREEN, "sent    "), (PLAIN, channel.name())])?,
                    Err(error) => {
                        screen
                            .spans(&[(RED, "failed  "), (PLAIN, &format!("{}: {error}", channel.name()))])?;
                    }
                }
            }
            if outcomes.is_empty() {
                screen.line("Nobody is told: there is no [alerts.smtp] and no [[alerts.webhook]].")?;
            }
        }
        Ok(match (outcomes.is_empty(), has_failed) {
            (true, _) => Outcome::Nothing,
            (false, true) => Outcome::Failed,
            (false, false) => Outcome::Done,
        })
    }
}
