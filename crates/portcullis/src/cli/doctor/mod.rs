//! `portcullis doctor`: what is wrong with the configuration, the machine and the last hour's traffic, in
//! words, each with its remedy.
//!
//! Owns the table of checks and what is printed. Must not look at anything itself: `facts.rs` does, once.
//! A check must say nothing where it cannot be sure: nobody reads the second false alarm.

mod background;
mod facts;
mod identity;
mod lists;
mod server;
mod storage;

use clap::Args;
use portcullis_config::Config;
use serde::Serialize;
use serde_json::json;

use super::context::Context;
use super::output::{DIM, GREEN, PLAIN, RED, Screen, YELLOW, count};
use super::{Format, Outcome, time};
use facts::Facts;

const EXAMPLES: &str = "\
Examples:
  portcullis doctor
  portcullis doctor --config /etc/portcullis.toml --json
      for a monitor: exit code 0 all is well, 1 warnings, 2 errors

Looks at the configuration, the machine, the databases and the requests of the
last hour, whether the gateway runs or not. Changes nothing.";

type Check = fn(&Facts<'_>) -> Vec<Finding>;

/// Checks of the last hour's requests, in the order in which their findings are shown among equally grave ones.
const TRAFFIC_CHECKS: [Check; 4] =
    [identity::hidden_clients, identity::unnamed_clients, identity::wide_trust, storage::unwatched];

/// The others, which come after them.
const CHECKS: [Check; 20] = [
    lists::blocks,
    lists::allows,
    lists::hashed,
    server::own_upstream,
    server::certificates,
    server::private_keys,
    server::open_files,
    server::dry_run,
    background::detector,
    background::knowledge,
    background::tasks,
    background::stale_feeds,
    background::geo,
    background::alerts,
    background::geo_sources,
    storage::databases,
    storage::log_health,
    storage::disk,
    storage::clock,
    storage::permissions,
];

/// The most findings that are shown of one check.
const MAX_OF_A_CHECK: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Doctor {
    #[command(flatten)]
    format: Format,
}

/// How grave a finding is. Ordered: `Warning < Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Gravity {
    /// Something does not work as it was probably meant to.
    Warning,
    /// Clients are refused or let in wrongly, or records are lost.
    Error,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) gravity: Gravity,
    /// What was seen, with numbers.
    pub(crate) seen: String,
    /// What to do about it.
    pub(crate) remedy: String,
    /// The lines for the configuration, or the command.
    pub(crate) write: Option<String>,
}

impl Finding {
    fn new(
        check: &'static str,
        gravity: Gravity,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, gravity, seen: seen.into(), remedy: remedy.into(), write: None }
    }

    fn write(mut self, line: impl Into<String>) -> Self {
        self.write = Some(line.into());
        self
    }
}

impl Doctor {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let facts = Facts::gather(context, &config).with_traffic();
        let mut findings = examine(&facts, &[&TRAFFIC_CHECKS, &CHECKS]);
        name_data(&mut findings, context);
        if self.format.json {
            screen.json(&json!({ "findings": findings, "looked_at": looked_at(&facts) }))?;
        } else {
            show(&findings, &facts, screen)?;
        }
        Ok(match findings.iter().map(|finding| finding.gravity).max() {
            None => Outcome::Done,
            Some(Gravity::Warning) => Outcome::Warned,
            Some(Gravity::Error) => Outcome::Bad,
        })
    }
}

/// What is wrong as far as it can be seen at once: the requests of the last hour are not read.
pub(crate) fn at_once(context: &Context, config: &Config) -> Vec<Finding> {
    let mut findings = examine(&Facts::gather(context, config), &[&CHECKS]);
    name_data(&mut findings, context);
    findings
}

/// Gives commands the options that lead to the same data.
fn name_data(findings: &mut [Finding], context: &Context) {
    for line in findings.iter_mut().filter_map(|finding| finding.write.as_mut()) {
        if let Some(arguments) = line.strip_prefix("portcullis ") {
            *line = context.command(arguments);
        }
    }
}

/// The findings of checks, the gravest first.
fn examine(facts: &Facts<'_>, checks: &[&[Check]]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = checks
        .iter()
        .copied()
        .flatten()
        .flat_map(|check| {
            let mut found = check(facts);
            let more = found.len().saturating_sub(MAX_OF_A_CHECK);
            found.truncate(MAX_OF_A_CHECK);
            if more > 0
                && let Some(last) = found.last_mut()
            {
                last.seen.push_str(&format!(" ({more} more like this)"));
            }
            found
        })
        .collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.gravity));
    findings
}

/// What the findings, or their absence, rest on.
fn looked_at(facts: &Facts<'_>) -> String {
    let file = match &facts.source {
        Some(file) => file.display().to_string(),
        None => "the defaults".to_owned(),
    };
    let file = match facts.config.overridden.len() {
        0 => file,
        changed => format!("{file} with {} changed while running", count(changed as u64, "setting")),
    };
    let requests = match facts.traffic.rows {
        0 => "no request of the last hour".to_owned(),
        rows if facts.traffic.is_partial => {
            format!("the first {} of the last hour", count(rows, "request"))
        }
        rows => format!("{} of the last hour", count(rows, "request")),
    };
    let gateway = match &facts.gateway {
        Some(_) if facts.running().is_some() => "the running gateway".to_owned(),
        Some(status) => {
            let written = portcullis_model::UnixMs(status.written_at);
            format!("what the gateway said {}; it does not run now", time::relative(written, facts.now))
        }
        None => "no gateway, none has run on this data folder".to_owned(),
    };
    format!("{file}, {requests}, {gateway}")
}

fn show(findings: &[Finding], facts: &Facts<'_>, screen: &mut Screen) -> anyhow::Result<()> {
    if findings.is_empty() {
        screen.spans(&[(GREEN, "ok "), (PLAIN, "Nothing is wrong that could be seen.")])?;
    }
    for finding in findings {
        let (word, style) = match finding.gravity {
            Gravity::Warning => ("warning", YELLOW),
            Gravity::Error => ("error", RED),
        };
        screen.spans(&[(style, word), (DIM, &format!(" {}", finding.check))])?;
        screen.field("seen", &finding.seen)?;
        screen.field("remedy", &finding.remedy)?;
        for line in finding.write.iter().flat_map(|lines| lines.lines()) {
            screen.field("", line)?;
        }
        screen.blank()?;
    }
    screen.field("looked at", &looked_at(facts))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::facts::tests::{config, healthy};
    use super::*;

    #[test]
    fn nothing_is_wrong_with_the_defaults_and_ordinary_traffic() {
        let config = config("");
        assert_eq!(examine(&healthy(&config), &[&TRAFFIC_CHECKS, &CHECKS]), Vec::new());
    }

    #[test]
    fn one_check_does_not_fill_the_screen() {
        let config = config("");
        let mut facts = healthy(&config);
        facts.blocks = (0..50).map(|n| (format!("127.0.0.{n}/32").parse().unwrap(), 1)).collect();
        let findings = examine(&facts, &[&CHECKS]);
        assert_eq!(findings.len(), MAX_OF_A_CHECK);
        assert!(findings[4].seen.contains("45 more"), "{findings:?}");
    }
}
