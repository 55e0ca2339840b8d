//! `portcullis limits`: the rules, what they have refused, and which of them a described request would meet.
//! Must not count anything.

use std::collections::HashMap;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use portcullis_config::Config;
use portcullis_geo::Geo;
use portcullis_model::{ClientIp, Identity, UnixMs, VerdictKind, cut_text, limits, normalise_path};
use portcullis_policy::{AccessAction, HostPattern, LimitRule, Mode, Place, RequestFacts, RequestHeaders};
use portcullis_store::{LimitEvent, LimitTotal};

use super::context::{Context, Misuse, open_state};
use super::output::{Align, Cell, DIM, GREEN, RED, Screen, Table, YELLOW, number};
use super::rule_words::{access_in_words, access_json, country, limit_json, matched};
use super::time::{self, Moment};
use super::{Format, Outcome};
use crate::app::origin;

const EXAMPLES: &str = "\
Examples:
  portcullis limits
  portcullis limits --since 7d --json
  portcullis limits events --since 1h
  portcullis limits test --method POST --path /login --ip 203.0.113.9
      which rules that request would meet, without counting it

refused: answered with 429; in brackets what rules in dry-run would have
refused. A rule is changed in the configuration; a running gateway notices.";

const EVENTS_EXAMPLES: &str = "\
Examples:
  portcullis limits events
  portcullis limits events --since 7d --rule login --json

One line per client, rule, path and minute. More than 1024 different ones in a
minute are not kept one by one; the log has every request (portcullis logs).";

const TEST_EXAMPLES: &str = "\
Examples:
  portcullis limits test --path /login --method POST --ip 203.0.113.9
  portcullis limits test --path /api/items --user alice --role staff
  portcullis limits test --path / --header 'X-Api-Key: k1' --country DE

Asks the configuration alone: nothing is counted, and blocks and allows are not
looked at (portcullis why IP does that). The country and the network of --ip are
looked up unless they are given.";

/// The most events that are listed unless asked for more.
const EVENTS: usize = 50;
const MAX_HEADERS: usize = 100;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Limits {
    /// Count what was refused since then: 1h, 7d, today, a date
    #[arg(long, value_name = "TIME", default_value = "24h")]
    since: Moment,

    #[command(flatten)]
    format: Format,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what limits refused: who, where, when, which limit
    Events(Events),
    /// Say which rules a request would meet, in their order
    Test(Box<Test>),
}

impl Limits {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        match self.action {
            None => list(&self, context, screen),
            Some(Action::Events(events)) => events.run(context, screen),
            Some(Action::Test(test)) => test.run(context, screen),
        }
    }
}

/// What one rule did.
#[derive(Clone, Copy, Default, Serialize)]
struct Met {
    refused: u64,
    would_have_refused: u64,
    last: Option<UnixMs>,
}

fn met(totals: Vec<LimitTotal>) -> HashMap<String, Met> {
    let mut rules: HashMap<String, Met> = HashMap::new();
    for total in totals {
        let met = rules.entry(total.rule).or_default();
        match total.action {
            VerdictKind::WouldLimit => met.would_have_refused += total.count,
            _ => met.refused += total.count,
        }
        met.last = met.last.max(Some(total.last));
    }
    rules
}

fn list(asked: &Limits, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
    let config = context.config()?;
    let since = asked.since.resolve(context.now, &context.zone);
    let totals = match open_state(&config.data)? {
        Some(state) => state.limit_totals(since)?,
        None => Vec::new(),
    };
    let met = met(totals);
    let of = |rule: &LimitRule| met.get(&*rule.name).copied().unwrap_or_default();
    if asked.format.json {
        let limits = config.limits.iter().map(|rule| {
            let mut rule_json = limit_json(rule);
            rule_json["events"] = json!(of(rule));
            rule_json
        });
        screen.json(&json!({
            "mode": config.mode.as_str(),
            "since": since,
            "limits": limits.collect::<Vec<_>>(),
            "access": config.access.iter().map(|rule| access_json(rule)).collect::<Vec<_>>(),
        }))?;
        return Ok(Outcome::Done);
    }
    if config.mode == Mode::DryRun {
        screen.spans(&[(YELLOW, "The gateway is in dry-run: it refuses nobody.")])?;
    }
    access(&config, screen)?;
    if config.limits.is_empty() {
        screen.line("No limits.")?;
        return Ok(Outcome::Done);
    }
    screen.table(&mut table(&config, of, context))?;
    screen.blank()?;
    screen.spans(&[(DIM, &format!("counted since {}", time::full(since, &context.zone)))])?;
    Ok(Outcome::Done)
}

fn access(config: &Config, screen: &mut Screen) -> anyhow::Result<()> {
    for (n, rule) in config.access.iter().enumerate() {
        screen.field(if n == 0 { "access" } else { "" }, &access_in_words(rule))?;
    }
    if !config.access.is_empty() {
        screen.blank()?;
    }
    Ok(())
}

fn table(config: &Config, of: impl Fn(&LimitRule) -> Met, context: &Context) -> Table {
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("admits", Align::Left),
        ("key", Align::Left),
        ("mode", Align::Left),
        ("refused", Align::Right),
        ("last", Align::Left),
        ("meant", Align::Left),
    ]);
    for rule in &config.limits {
        let met = of(rule);
        let refused = match (met.refused, met.would_have_refused) {
            (0, 0) => Cell::styled("0", DIM),
            (refused, 0) => Cell::styled(number(refused), RED),
            (0, would) => Cell::styled(format!("({})", number(would)), YELLOW),
            (refused, would) => Cell::styled(format!("{} ({})", number(refused), number(would)), RED),
        };
        let last = met.last.map_or_else(|| "-".to_owned(), |at| time::relative(at, context.now));
        table.row(vec![
            Cell::new(&*rule.name),
            Cell::new(rule.allowance()),
            Cell::new(rule.key.to_string()),
            Cell::styled(rule.mode.as_str(), if rule.mode == Mode::DryRun { YELLOW } else { DIM }),
            refused,
            Cell::styled(last, DIM),
            Cell::new(matched(&rule.applies_to)),
        ]);
    }
    table.wrapped()
}

#[derive(Debug, Args)]
#[command(after_help = EVENTS_EXAMPLES)]
struct Events {
    /// Not before: 1h, 7d, today, 2026-11-01, a date with a time
    #[arg(long, value_name = "TIME", default_value = "24h")]
    since: Moment,

    /// Of this limit only
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,

    /// Of this client only; of IPv6, its /64
    #[arg(long, value_name = "IP")]
    ip: Option<ClientIp>,

    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = EVENTS)]
    limit: usize,

    #[command(flatten)]
    format: Format,
}

/// Events that are looked through.
const MAX_LOOKED_AT: usize = 1_000_000;

impl Events {
    fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let since = self.since.resolve(context.now, &context.zone);
        let is_filtered = self.rule.is_some() || self.ip.is_some();
        let most = if is_filtered { MAX_LOOKED_AT } else { self.limit };
        let mut events = match open_state(&config.data)? {
            Some(state) => state.limit_events(since, most)?,
            None => Vec::new(),
        };
        events.retain(|event| {
            self.rule.as_ref().is_none_or(|rule| event.rule == *rule)
                && self.ip.is_none_or(|ip| event.client.limit_key() == ip.limit_key())
        });
        events.truncate(self.limit);
        if self.format.json {
            screen.json(&events)?;
            return Ok(Outcome::Done);
        }
        if events.is_empty() {
            screen.line(&format!("No limit was met since {}.", time::full(since, &context.zone)))?;
            return Ok(Outcome::Done);
        }
        screen.table(&mut event_table(&events, context))?;
        Ok(Outcome::Done)
    }
}

fn event_table(events: &[LimitEvent], context: &Context) -> Table {
    let mut table = Table::new(&[
        ("minute", Align::Left),
        ("client", Align::Left),
        ("rule", Align::Left),
        ("limit", Align::Left),
        ("action", Align::Left),
        ("requests", Align::Right),
        ("endpoint", Align::Left),
    ]);
    for event in events {
        let style = if event.action == VerdictKind::Limited { RED } else { YELLOW };
        table.row(vec![
            Cell::styled(context.short_time(event.minute), DIM),
            Cell::new(event.client.to_string()),
            Cell::new(&event.rule),
            Cell::new(&event.bound),
            Cell::styled(event.action.as_str(), style),
            Cell::new(number(event.count)),
            Cell::new(&event.endpoint),
        ]);
    }
    table
}

#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
struct Test {
    /// The path, in any spelling; without the query
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,

    #[arg(long, value_name = "METHOD", default_value = "GET", help = "The method")]
    method: String,

    /// The host, without a port
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    host: String,

    /// The client's address
    #[arg(long, value_name = "IP", default_value = "192.0.2.1")]
    ip: ClientIp,

    /// The verified user; without it, or --session, the request is anonymous
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// A role of the user; may be repeated
    #[arg(long, value_name = "NAME", requires = "user")]
    role: Vec<String>,

    /// With an observed session
    #[arg(long)]
    session: bool,

    /// The client's country in two letters, instead of what the geo databases say
    #[arg(long, value_name = "CC", value_parser = country_code)]
    country: Option<[u8; 2]>,

    /// The number of the client's network, instead of what the geo databases say
    #[arg(long, value_name = "NUMBER")]
    asn: Option<u32>,

    /// What the client calls itself
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    user_agent: String,

    /// A header, for rules that count by one; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,

    #[command(flatten)]
    format: Format,
}

fn country_code(text: &str) -> Result<[u8; 2], String> {
    let code =
        <[u8; 2]>::try_from(text.as_bytes()).ok().filter(|code| code.iter().all(u8::is_ascii_alphabetic));
    code.map(|code| code.map(|letter| letter.to_ascii_uppercase()))
        .ok_or_else(|| "expected two letters such as DE".to_owned())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// The headers that were given.
#[derive(Debug)]
struct Given(Vec<(String, String)>);

impl RequestHeaders for Given {
    fn only(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.0.iter().filter(|(given, _)| given == name);
        values.next().filter(|_| values.next().is_none()).map(|(_, value)| value.as_bytes())
    }
}

/// A limit that the request would be counted under.
#[derive(Serialize)]
struct Applies {
    limit: String,
    admits: String,
    mode: &'static str,
    /// Whom it would be counted for.
    counted_for: String,
}

impl Test {
    fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        if self.header.len() > MAX_HEADERS {
            return Err(Misuse(format!("at most {MAX_HEADERS} headers are possible")).into());
        }
        let host: HostPattern = self.host.parse().map_err(|error| Misuse(format!("--host: {error}")))?;
        let config = context.config()?;
        let place = self.place(&config)?;
        let identity = (self.user.is_some() || self.session).then(|| Identity {
            user: self.user.as_deref().map(Into::into),
            roles: self.role.iter().map(|role| role.as_str().into()).collect(),
            session: self.session.then_some(0),
        });
        let headers = Given(self.header.clone());
        let user_agent = String::from_utf8_lossy(cut_text(self.user_agent.as_bytes(), limits::USER_AGENT));
        let path = self.path.split(['?', '#']).next().unwrap_or("/");
        let facts = RequestFacts {
            identity: identity.as_ref(),
            user_agent: &user_agent,
            place,
            headers: &headers,
            ..RequestFacts::new(self.ip, &self.method, host.as_str(), normalise_path(path.as_bytes()))
        };
        let access: Vec<_> = config.access.iter().filter(|rule| rule.applies_to.matches(&facts)).collect();
        // What comes after the rule that decides is not asked.
        let decides = access.iter().position(|rule| rule.mode == Mode::Enforce);
        let asked = &access[..decides.map_or(access.len(), |at| at + 1)];
        let denied = asked.iter().rev().find(|rule| {
            rule.mode == Mode::Enforce && rule.action == AccessAction::Deny && config.mode == Mode::Enforce
        });
        let applies: Vec<Applies> = match denied {
            Some(_) => Vec::new(),
            None => applying(&config, &facts),
        };
        if self.format.json {
            screen.json(&json!({
                "request": {
                    "path": facts.path, "method": self.method, "host": facts.host, "ip": self.ip,
                    "user": self.user, "roles": self.role, "session": self.session,
                    "country": place.country.map(country), "asn": place.asn,
                },
                "access": asked.iter().map(|rule| access_json(rule)).collect::<Vec<_>>(),
                "denied_by": denied.map(|rule| &*rule.name),
                "limits": applies,
            }))?;
            return Ok(Outcome::Done);
        }
        screen.field("request", &self.in_words(&facts))?;
        for (n, rule) in asked.iter().enumerate() {
            screen.field(if n == 0 { "access" } else { "" }, &access_in_words(rule))?;
        }
        if let Some(rule) = denied {
            let text = format!("refused with 403 by the access list (\"{}\"); no limit is asked", rule.name);
            screen.styled_field("outcome", RED, &text)?;
            return Ok(Outcome::Done);
        }
        if applies.is_empty() {
            screen.styled_field("limits", GREEN, "none means this request")?;
            return Ok(Outcome::Done);
        }
        screen.blank()?;
        screen.table(&mut applying_table(&applies))?;
        screen.blank()?;
        screen.spans(&[(DIM, "Of those that refuse, the one with the longest wait answers.")])?;
        Ok(Outcome::Done)
    }

    /// What was given, and what the geo databases say of the rest, if a rule asks for it.
    fn place(&self, config: &Config) -> anyhow::Result<Place> {
        let limits = config.limits.iter().map(|rule| &rule.applies_to);
        let mut rules = limits.chain(config.access.iter().map(|rule| &rule.applies_to));
        let found = match rules.any(|rule| rule.needs().place) {
            true => origin(&Geo::open(&config.geo)?.lookup(self.ip)),
            false => Place::default(),
        };
        Ok(Place { country: self.country.or(found.country), asn: self.asn.or(found.asn) })
    }

    fn in_words(&self, facts: &RequestFacts<'_>) -> String {
        let who = match (&self.user, self.session) {
            (Some(user), _) => format!("the user {user}"),
            (None, true) => "a session whose user is not known".to_owned(),
            (None, false) => "an anonymous client".to_owned(),
        };
        let country = facts.place.country.map(|code| format!(" in {}", country(code)));
        let asn = facts.place.asn.map(|asn| format!(" of AS{asn}"));
        format!(
            "{} {} at {} of {who} from {}{}{}",
            self.method,
            facts.path,
            facts.host,
            self.ip,
            country.unwrap_or_default(),
            asn.unwrap_or_default()
        )
    }
}

/// The limits that mean the request, in the order in which they are asked.
fn applying(config: &Config, facts: &RequestFacts<'_>) -> Vec<Applies> {
    let meant = config.limits.iter().filter(|rule| rule.applies_to.matches(facts));
    meant
        .map(|rule| Applies {
            limit: rule.name.to_string(),
            admits: rule.allowance(),
            mode: config.mode.and(rule.mode).as_str(),
            counted_for: rule.key.subject(facts).to_string(),
        })
        .collect()
}

fn applying_table(applies: &[Applies]) -> Table {
    let mut table = Table::new(&[
        ("limit", Align::Left),
        ("admits", Align::Left),
        ("mode", Align::Left),
        ("counted for", Align::Left),
    ]);
    for applies in applies {
        table.row(vec![
            Cell::new(&applies.limit),
            Cell::new(&applies.admits),
            Cell::styled(applies.mode, if applies.mode == Mode::DryRun.as_str() { YELLOW } else { DIM }),
            Cell::new(&applies.counted_for),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_and_a_country_are_read_as_they_are_typed() {
        assert_eq!(header("X-Api-Key:  k1 "), Ok(("x-api-key".to_owned(), "k1".to_owned())));
        assert!(header("X-Api-Key").is_err());
        assert_eq!(country_code("de"), Ok(*b"DE"));
        assert!(country_code("deu").is_err() && country_code("1!").is_err());
        let twice = Given(vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())]);
        assert_eq!(twice.only("a"), None);
    }
}
