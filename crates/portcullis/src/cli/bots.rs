//! `portcullis bots`: the crawlers that are known, how each is told, and what a client is that says it is one.
//! Names that DNS gives are strangers' text: they are shown escaped.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use portcullis_config::{Config, FeedSource};
use portcullis_detect::BotStatus;
use portcullis_detect::bots::{Bot, Outcome as Dns, Refusal};
use portcullis_fetch::masked;
use portcullis_model::ClientIp;

use crate::bots::{Bots as Known, Explained, Source, status, why};

use super::context::{Context, quoted};
use super::output::{Align, Cell, DIM, GREEN, RED, Screen, Table, YELLOW, number, tell};
use super::{Format, Outcome, time};

const EXAMPLES: &str = "\
Examples:
  portcullis bots
  portcullis bots check 66.249.66.1 --user-agent Googlebot
  portcullis tasks run bots

The last one fetches the networks that operators publish; bots.update lets the
gateway do that by itself. docs/BOTS.md says what follows from all this.";

const CHECK_EXAMPLES: &str = "\
Examples:
  portcullis bots check 66.249.66.1 --user-agent Googlebot
  portcullis bots check 203.0.113.9 --user-agent 'Mozilla/5.0 (compatible; bingbot/2.0)'

Without --user-agent it says in which crawler's networks the address is.
Ends with 1 when the client is certainly not what it says, 3 when nothing is
known.";

/// For one client, DNS included.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Bots {
    #[command(flatten)]
    format: Format,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say what a client is, and why
    Check(Check),
}

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
struct Check {
    /// The client's address
    #[arg(value_name = "ADDRESS")]
    address: ClientIp,

    /// What it calls itself
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,

    #[command(flatten)]
    format: Format,
}

impl Bots {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        match self.action {
            Some(Action::Check(check)) => check.run(&config, context, screen),
            None => list(&config, self.format, context, screen),
        }
    }
}

fn list(config: &Config, format: Format, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
    let known = Known::without_dns(config, context.now);
    let (table, sources) = (known.known(), known.sources());
    let of = |place: usize| sources.iter().filter(move |source| source.bot == place);
    if format.json {
        let bots = table.bots().iter().enumerate();
        let shown: Vec<Value> = bots.map(|(place, bot)| as_json(bot, of(place), config)).collect();
        screen.json(&shown)?;
        return Ok(Outcome::Done);
    }
    let mut shown = Table::new(&[
        ("bot", Align::Left),
        ("kind", Align::Left),
        ("name alone", Align::Left),
        ("networks", Align::Right),
        ("from", Align::Left),
        ("dns", Align::Left),
    ]);
    for (place, bot) in table.bots().iter().enumerate() {
        let fetched: Vec<&Source> = of(place).collect();
        shown.row(row(bot, &fetched, context));
    }
    screen.table(&mut shown)?;
    if !config.bots.enabled {
        tell("", "bots.enabled is false: nobody is told apart.");
    }
    for source in &sources {
        let name = table.bots().get(source.bot).map_or("", |bot| &bot.name);
        if let Some(error) = source.status.as_ref().and_then(|status| status.error.as_ref()) {
            tell("", &format!("{name}: the last copy stays: {error}"));
        }
    }
    Ok(Outcome::Done)
}

fn row(bot: &Bot, fetched: &[&Source], context: &Context) -> Vec<Cell> {
    let copies = fetched.iter().filter(|source| !source.networks.is_empty());
    let oldest = copies.filter_map(|source| source.status.as_ref()?.fetched_at).min();
    let count: usize = fetched.iter().map(|source| source.networks.len()).sum();
    let (networks, from) = match oldest {
        Some(at) => (count, format!("fetched {}", time::relative(at, context.now))),
        None if bot.networks.is_empty() => (0, "-".to_owned()),
        None if bot.is_complete => (bot.networks.len(), "the configuration".to_owned()),
        None => (bot.networks.len(), "the table".to_owned()),
    };
    let dns: Vec<String> = bot.dns.iter().map(ToString::to_string).collect();
    vec![
        Cell::new(&bot.name),
        Cell::new(bot.kind.as_str()),
        Cell::styled(if bot.is_strict { "is false" } else { "proves nothing" }, DIM),
        Cell::new(number(networks as u64)),
        Cell::new(from),
        Cell::styled(if dns.is_empty() { "-".to_owned() } else { dns.join(", ") }, DIM),
    ]
}

fn as_json<'a>(bot: &Bot, fetched: impl Iterator<Item = &'a Source>, config: &Config) -> Value {
    let place = config.bots.table.iter().position(|known| known.name == bot.name);
    let configured = config.bots.sources.iter().filter(|source| Some(source.bot) == place);
    let sources = configured.zip(fetched).map(|(source, copy)| {
        let status = copy.status.clone().unwrap_or_default();
        json!({
            "from": match &source.list.source {
                FeedSource::Url(url) => masked(url.expose()),
                FeedSource::File(path) => path.display().to_string(),
            },
            "networks": copy.networks.len(),
            "fetched_at": status.fetched_at.map(time::iso),
            "failing_since": status.failing_since.map(time::iso),
            "error": status.error,
        })
    });
    json!({
        "name": bot.name,
        "kind": bot.kind.as_str(),
        "user_agents": bot.agents,
        "strict": bot.is_strict,
        "networks": bot.networks.len(),
        "sources": sources.collect::<Vec<_>>(),
        "dns": bot.dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "published_at": bot.urls,
        "about": bot.about,
    })
}

impl Check {
    fn run(self, config: &Config, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let until = Instant::now() + PATIENCE;
        let known = Known::start(config, context.now);
        let Some(agent) = &self.user_agent else { return self.owner(&known, screen) };
        let Some(explained) = known.explain(self.address, agent, until) else {
            tell("", "bots.enabled is false: nobody is told apart.");
            return Ok(Outcome::Nothing);
        };
        let Explained { judgement, bot, dns } = &explained;
        if self.format.json {
            screen.json(&json!({
                "address": self.address,
                "user_agent": agent,
                "status": status(judgement.status),
                "bot": bot.as_ref().map(|bot| &bot.name),
                "kind": bot.as_ref().map(|bot| bot.kind.as_str()),
                "why": why(&explained),
                "dns": dns.as_deref().map(of_dns),
            }))?;
        } else {
            let style = match judgement.status {
                BotStatus::Verified => GREEN,
                BotStatus::False => RED,
                BotStatus::Claimed => YELLOW,
                BotStatus::None => DIM,
            };
            if let Some(bot) = bot {
                screen.field("bot", &format!("{}, {}", bot.name, bot.kind))?;
            }
            screen.styled_field("status", style, status(judgement.status))?;
            screen.field("why", &why(&explained))?;
        }
        Ok(match judgement.status {
            BotStatus::Verified => Outcome::Done,
            BotStatus::False => Outcome::Failed,
            BotStatus::Claimed | BotStatus::None => Outcome::Nothing,
        })
    }

    /// Without a user agent: in whose networks the address is.
    fn owner(&self, known: &Known, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let owner = known.owner(self.address);
        if self.format.json {
            screen.json(&json!({ "address": self.address, "owner": owner }))?;
        } else {
            let words = match &owner {
                Some(bot) => format!("{} is in the networks of {bot}.", self.address),
                None => format!("{} is in no crawler's networks as they are known.", self.address),
            };
            screen.line(&words)?;
        }
        Ok(if owner.is_some() { Outcome::Done } else { Outcome::Nothing })
    }
}

/// A crawler that a client has named itself as, and whether it is that one.
#[derive(Serialize)]
pub(super) struct Named {
    bot: String,
    status: &'static str,
    /// In a sentence, with what follows from it.
    pub(super) says: String,
}

/// What a client is of the crawlers that these user agents name, as far as networks tell at once.
pub(super) fn named<'a>(
    config: &Config,
    client: ClientIp,
    agents: impl IntoIterator<Item = &'a str>,
    context: &Context,
) -> Vec<Named> {
    let known = Known::without_dns(config, context.now);
    let mut all: Vec<Named> = Vec::new();
    for agent in agents {
        let Some(explained) = known.explain(client, agent, Instant::now()) else { continue };
        let Some(bot) = explained.bot.as_ref().map(|bot| bot.name.to_string()) else { continue };
        if all.iter().any(|named| named.bot == bot) {
            continue;
        }
        let why = why(&explained);
        let says = match explained.judgement.status {
            BotStatus::None => continue,
            BotStatus::Verified => format!("{bot}, verified: {why}. Its requests are never scored."),
            BotStatus::False => format!("no {bot}, though it says so: {why}."),
            BotStatus::Claimed => {
                let check = context.command(&format!("bots check {client} --user-agent {}", quoted(&bot)));
                format!("says it is {bot}; {why}. DNS may tell: {check}")
            }
        };
        all.push(Named { bot, status: status(explained.judgement.status), says });
    }
    all
}

fn of_dns(dns: &Dns) -> Value {
    match dns {
        Dns::Confirmed { name } => json!({ "outcome": "confirmed", "name": name }),
        Dns::Refuted(Refusal::NoName) => json!({ "outcome": "no_name", "name": null }),
        Dns::Refuted(Refusal::OtherName(name)) => json!({ "outcome": "other_name", "name": name }),
        Dns::Refuted(Refusal::NotConfirmed(name)) => json!({ "outcome": "not_confirmed", "name": name }),
        Dns::Unsettled => json!({ "outcome": "no_answer", "name": null }),
    }
}
