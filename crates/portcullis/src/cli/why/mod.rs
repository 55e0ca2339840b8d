//! `portcullis why`: a decision in words, or how an address stands.
//!
//! Owns what belongs to both. Must be readable in ten seconds, and must name the command that undoes.

mod client;
mod decision;
mod rule;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;
use serde::Serialize;

use portcullis_admin::running::stories::Remedy;
use portcullis_model::{ClientIp, PartyBlock, RequestId, UnixMs, VerdictKind, bare};
use portcullis_store::LimitEvent;

use super::context::Context;
use super::output::{DIM, GREEN, Screen, YELLOW, count};
use super::{Format, Outcome, party};

pub(crate) use client::{Stands, stands};
pub(crate) use decision::{Evidence, Explanation, Found, find};

const EXAMPLES: &str = "\
Examples:
  portcullis why 06GZFMEMAFNN3DTJ
      the ID on a refusal page, in the X-Request-Id that your site gets, or from
      \"portcullis logs --ids\"
  portcullis why 203.0.113.9
      whether the address is let in now, its latest refusals, findings and
      limits
  portcullis why 203.0.113.9 --json

Exit code 3: there is no such decision, or nothing is known about the address.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Why {
    /// A decision ID of 16 letters and digits, or an address
    #[arg(value_name = "ID|IP")]
    subject: Subject,

    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Decision(RequestId),
    Client(ClientIp),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Ok(client) = text.parse() {
            return Ok(Self::Client(client));
        }
        text.parse().map(Self::Decision).map_err(|_| {
            format!(
                "expected a decision ID of 16 letters and digits, as the refusal page shows it, or an IPv4 or \
                 IPv6 address; got {text:?}"
            )
        })
    }
}

impl Why {
    pub(in crate::cli) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        match self.subject {
            Subject::Decision(id) => decision::explain(id, self.format.json, context, screen),
            Subject::Client(ip) => client::explain(ip, self.format.json, context, screen),
        }
    }
}

/// What can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Advice {
    /// What it leads to, as the beginning of a sentence.
    pub(crate) to: String,
    /// What to type; without one, `to` says it all.
    pub(crate) command: Option<String>,
    /// The same for a button of the console.
    #[serde(skip)]
    pub(crate) remedy: Option<Remedy>,
}

impl Advice {
    fn command(to: impl Into<String>, command: String) -> Self {
        Self { to: to.into(), command: Some(command), remedy: None }
    }

    fn sentence(to: impl Into<String>) -> Self {
        Self { to: to.into(), command: None, remedy: None }
    }

    fn or_button(self, remedy: Remedy) -> Self {
        Self { remedy: Some(remedy), ..self }
    }
}

/// Lets a client in whatever the rules say.
fn allow(to: impl Into<String>, client: IpNet, context: &Context) -> Advice {
    Advice::command(to, context.command(&format!("allow {}", bare(&client)))).or_button(Remedy::Allow(client))
}

/// Takes an allow back.
fn disallow(network: IpNet, context: &Context) -> Advice {
    let command = context.command(&format!("disallow {}", bare(&network)));
    Advice::command("judge it like everybody else", command).or_button(Remedy::Disallow(network))
}

/// Lifts the block of a network.
fn unblock(network: IpNet, context: &Context) -> Advice {
    let command = context.command(&format!("unblock {}", bare(&network)));
    Advice::command("lift the block", command).or_button(Remedy::Unblock(network))
}

/// Lifts the block of somebody behind an address.
fn unblock_party(block: &PartyBlock, context: &Context) -> Advice {
    let remedy = Remedy::UnblockParty(block.party.clone());
    Advice::command("lift the block", party::undo(block, context)).or_button(remedy)
}

fn show_advice(label: &str, advice: &[Advice], screen: &mut Screen) -> anyhow::Result<()> {
    for (n, Advice { to, command, remedy: _ }) in advice.iter().enumerate() {
        let label = if n == 0 { label } else { "" };
        match command {
            Some(command) => {
                screen.styled_field(label, DIM, &format!("{to}:"))?;
                screen.styled_field("", GREEN, &format!("  {command}"))?;
            }
            None => screen.field(label, to)?,
        }
    }
    Ok(())
}

/// The limits that a client met, one line for each rule.
pub(in crate::cli) fn show_limits(
    events: &[LimitEvent],
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let mut rules: BTreeMap<(&str, bool), Met<'_>> = BTreeMap::new();
    for event in events {
        let is_dry_run = event.action == VerdictKind::WouldLimit;
        let met = rules.entry((&event.rule, is_dry_run)).or_default();
        met.requests += event.count;
        met.last = met.last.max(event.minute);
        met.endpoints.insert(&event.endpoint);
    }
    for (n, ((rule, is_dry_run), met)) in rules.into_iter().enumerate() {
        let mut endpoints = met.endpoints.iter();
        let first = endpoints.next().copied().unwrap_or("*");
        let others = match endpoints.count() {
            0 => String::new(),
            others => format!(" and {}", count(others as u64, "other path")),
        };
        let text = format!(
            "\"{rule}\": {} over it{} at {first}{others}, the last in the minute of {}",
            count(met.requests, "request"),
            if is_dry_run { " in a dry run" } else { "" },
            context.time(met.last)
        );
        screen.styled_field(if n == 0 { "limits" } else { "" }, YELLOW, &text)?;
    }
    Ok(())
}

/// How a client met one limit.
struct Met<'a> {
    requests: u64,
    last: UnixMs,
    endpoints: BTreeSet<&'a str>,
}

impl Default for Met<'_> {
    fn default() -> Self {
        Self { requests: 0, last: UnixMs(i64::MIN), endpoints: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_and_an_address_are_told_apart() {
        let id = RequestId::new(UnixMs(1_795_157_485_000), 7);
        assert_eq!(format!(" {id} ").parse(), Ok(Subject::Decision(id)));
        assert_eq!("::ffff:192.0.2.1".parse(), Ok(Subject::Client("192.0.2.1".parse().unwrap())));
        // Sixteen characters, and yet an address.
        assert!(matches!("2001:db8:1:2::34".parse(), Ok(Subject::Client(_))));
        for bad in ["", "192.0.2.0/24", "01K8Z3V5", "01K8Z3V5Q2M7XN4U"] {
            assert!(bad.parse::<Subject>().unwrap_err().contains("decision ID"), "{bad}");
        }
    }
}
