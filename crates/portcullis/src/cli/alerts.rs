//! `portcullis alerts`: what people were told of and what waits; `alerts test` sends one message through each channel.
//! Must not send anything but tests: the gateway sends what waits.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use portcullis_model::UnixMs;
use portcullis_notify::Digest;
use portcullis_store::{AlertChannel, State, StoredAlert};

use super::context::{Context, open_state};
use super::output::{Align, Cell, DIM, GREEN, RED, Screen, Table, YELLOW, count, number};
use super::suspicious::severity_style;
use super::time::{self, Moment};
use super::{Format, Outcome};
use crate::alerts::{Status, in_words, statuses, test};

const EXAMPLES: &str = "\
Examples:
  portcullis alerts
  portcullis alerts --since 24h --json
  portcullis alerts test

Who is told, and of what, is in [alerts] of the configuration. The running
gateway sends; what cannot be sent is kept for three days and tried again.";

const TEST_EXAMPLES: &str = "\
Examples:
  portcullis alerts test

Sends one message through each channel now and says what became of it. Ends with
1 when one of them failed, and with 3 when there is none.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Alerts {
    /// How far back to list: 24h, 7d, yesterday, 2026-12-31
    #[arg(long, value_name = "TIME", default_value = "7d")]
    since: Moment,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,

    #[command(flatten)]
    format: Format,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Send one message through each channel now
    Test(Test),
}

#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
struct Test {
    #[command(flatten)]
    format: Format,
}

impl Alerts {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        match self.action {
            Some(Action::Test(test)) => test.run(context, screen),
            None => self.list(context, screen),
        }
    }

    fn list(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let state = open_state(&config.data)?;
        let since = self.since.resolve(context.now, &context.zone);
        let alerts = state.as_ref().map(|state| state.recent_alerts(since, self.limit)).transpose()?;
        let alerts = alerts.unwrap_or_default();
        let known = state.as_ref().map(State::alert_channels).transpose()?.unwrap_or_default();
        let statuses = statuses(&config, state.as_ref(), context.now)?;
        if self.format.json {
            let channels: Vec<Value> = statuses.iter().map(status_json).collect();
            let alerts: Vec<Value> = alerts.iter().map(|stored| as_json(stored, &known)).collect();
            screen.json(&json!({ "channels": channels, "alerts": alerts }))?;
            return Ok(Outcome::Done);
        }
        if statuses.is_empty() {
            screen.line("Nobody is told: there is no [alerts.smtp] and no [[alerts.webhook]].")?;
        } else {
            show_channels(&statuses, context, screen)?;
        }
        if !alerts.is_empty() {
            screen.blank()?;
            show_alerts(&alerts, context, screen)?;
        }
        Ok(Outcome::Done)
    }
}

fn status_json(status: &Status<'_>) -> Value {
    let known = status.known.as_ref();
    let iso = |at: Option<UnixMs>| at.map(time::iso);
    json!({
        "channel": status.channel.name(),
        "target": status.channel.target(),
        "waiting_events": status.waiting,
        "next_message": iso(status.next),
        "sent_in_the_last_hour": status.sent_in_the_last_hour,
        "sent": known.map_or(0, |known| known.sent),
        "last_sent": iso(known.and_then(|known| known.last_sent_at)),
        "failures": known.map_or(0, |known| known.failures),
        "failing_since": iso(known.and_then(|known| known.failing_since)),
        "last_error": known.and_then(|known| known.last_error.clone()),
        "lost_events": known.map_or(0, |known| known.lost),
    })
}

fn show_channels(statuses: &[Status<'_>], context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        ("channel", Align::Left),
        ("state", Align::Left),
        ("sent", Align::Right),
        ("waiting", Align::Right),
        ("next", Align::Left),
        ("to", Align::Left),
    ])
    .wrapped();
    for status in statuses {
        let known = status.known.as_ref();
        let (word, style) = match known {
            Some(known) if known.failures > 0 => ("failing", RED),
            Some(known) if known.sent > 0 => ("works", GREEN),
            Some(_) | None => ("not tried", DIM),
        };
        table.row(vec![
            Cell::new(status.channel.name()),
            Cell::styled(word, style),
            Cell::new(number(known.map_or(0, |known| known.sent))),
            Cell::styled(number(status.waiting), if status.waiting > 0 { YELLOW } else { DIM }),
            Cell::new(status.next.map_or_else(|| "-".to_owned(), |at| time::relative(at, context.now))),
            Cell::new(status.channel.target()),
        ]);
    }
    screen.table(&mut table)?;
    for status in statuses {
        let Some(known) = &status.known else { continue };
        if let (Some(error), Some(since)) = (&known.last_error, known.failing_since) {
            screen.blank()?;
            let tries = count(u64::from(known.failures), "try");
            let since = context.time(since);
            screen.line(&format!("{}: {tries} failed, the first {since}: {error}", known.channel))?;
        }
        if known.lost > 0 {
            screen.line(&format!(
                "{}: {} were given up; nobody was told of them",
                known.channel,
                count(known.lost, "event")
            ))?;
        }
    }
    Ok(())
}

fn show_alerts(alerts: &[StoredAlert], context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        ("last", Align::Left),
        ("severity", Align::Left),
        ("events", Align::Right),
        ("what happened", Align::Left),
    ])
    .wrapped();
    for StoredAlert { alert, .. } in alerts {
        let digest: Option<Digest> = serde_json::from_str(&alert.body).ok();
        table.row(vec![
            Cell::new(context.short_time(alert.last_at)),
            Cell::styled(alert.severity.as_str(), severity_style(alert.severity)),
            Cell::new(number(alert.events)),
            Cell::new(digest.map_or_else(|| "cannot be read".to_owned(), |digest| in_words(&digest))),
        ]);
    }
    screen.table(&mut table)?;
    Ok(())
}

fn as_json(stored: &StoredAlert, channels: &[AlertChannel]) -> Value {
    let digest: Option<Digest> = serde_json::from_str(&stored.alert.body).ok();
    let told = channels.iter().filter(|known| known.done_id >= stored.id).map(|known| known.channel.as_str());
    json!({
        "id": stored.id,
        "first_at": time::iso(stored.alert.first_at),
        "last_at": time::iso(stored.alert.last_at),
        "severity": stored.alert.severity,
        "events": stored.alert.events,
        "events_by_kind": digest.as_ref().map(|digest| &digest.kinds),
        "samples": digest.as_ref().map(|digest| {
            digest.samples.iter().map(|sample| json!({
                "at": time::iso(sample.at),
                "kind": sample.kind,
                "severity": sample.severity,
                "client": sample.client,
                "title": sample.title,
                "text": sample.text,
            })).collect::<Vec<_>>()
        }),
        "done_for": told.collect::<Vec<_>>(),
    })
}

impl Test {
    fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let outcomes = test(&config.alerts, &context.zone, context.now);
        let has_failed = outcomes.iter().any(|(_, outcome)| outcome.is_err());
        if self.format.json {
            let shown = outcomes.iter().map(|(channel, outcome)| {
                json!({
                    "channel": channel.name(),
                    "target": channel.target(),
                    "sent": outcome.is_ok(),
                    "error": outcome.as_ref().err(),
                })
            });
            screen.json(&shown.collect::<Vec<_>>())?;
        } else {
            for (channel, outcome) in &outcomes {
                match outcome {
                    Ok(()) => screen.spans(&[
                        (GREEN, "sent    "),
                        (super::output::PLAIN, &format!("{}: {}", channel.name(), channel.target())),
                    ])?,
                    Err(error) => screen.spans(&[
                        (RED, "failed  "),
                        (super::output::PLAIN, &format!("{}: {error}", channel.name())),
                    ])?,
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
