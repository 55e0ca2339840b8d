//! `portcullis detect`: a run of the detector now, what it found and what it did.
//! Must not decide anything; the run is the same as the gateway's own.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use portcullis_detect::{ForestHealth, Origin};
use portcullis_model::{Block, ClientIp, Finding};

use super::context::Context;
use super::output::{Align, Cell, DIM, RED, Screen, Table, count, number};
use super::site::show_forest;
use super::suspicious::{client_and_user, says, severity_style};
use super::{Format, Outcome, time};
use crate::detection::{self, Outcome as Run};
use portcullis_model::bare;

const EXAMPLES: &str = "\
Examples:
  portcullis detect
  portcullis detect --health
  portcullis detect --json | jq '.findings[] | select(.severity == \"critical\")'

Looks at the last hour (detection.window), writes findings, and blocks as
configured, as the gateway does every hour by itself. A running gateway enforces
new blocks at once.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Detect {
    /// Show how the isolation forest has done in the recent runs, and run nothing
    #[arg(long)]
    health: bool,

    #[command(flatten)]
    format: Format,
}

impl Detect {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = Arc::new(context.config()?);
        if self.health {
            return health(&config.data, self.format.json, context, screen);
        }
        let run = detection::run_now(config, context.now)?;
        if self.format.json {
            screen.json(&as_json(&run))?;
            return Ok(Outcome::Done);
        }
        screen.line(&format!(
            "Looked at {} by {} in {}: {}, {}.",
            count(run.report.requests, "request"),
            count(run.report.clients as u64, "client"),
            time::span(run.took),
            count(run.done.saved.len() as u64, "finding"),
            count((run.done.blocked.len() + run.done.blocked_parties.len()) as u64, "new block"),
        ))?;
        if !run.done.saved.is_empty() {
            screen.blank()?;
            screen.table(&mut table(&run))?;
            screen.blank()?;
            screen.spans(&[(DIM, &format!("in full: {}", context.command("suspicious ID")))])?;
        }
        for remark in remarks(&run) {
            screen.spans(&[(DIM, &remark)])?;
        }
        Ok(Outcome::Done)
    }
}

fn health(data: &Path, is_json: bool, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
    let forest = detection::forest_state(data);
    if is_json {
        screen.json(&json!({
            "fitted_at": forest.fitted_at.map(time::iso),
            "problem": forest.problem(),
            "runs": forest.runs,
        }))?;
    } else {
        show_forest(&forest, context, screen)?;
    }
    Ok(if forest.runs.is_empty() { Outcome::Nothing } else { Outcome::Done })
}

/// What the run did about a finding.
fn done(run: &Run, id: i64, finding: &Finding) -> Option<String> {
    if let Some(block) = run.done.blocked_parties.iter().find(|block| block.finding_id == Some(id)) {
        return Some(format!("blocked {}", block.party));
    }
    if let Some(block) = block_of(run, id, finding.client) {
        return Some(format!("blocked {}", bare(&block.network)));
    }
    let (_, _, why) = run.done.spared.iter().find(|(spared, _, _)| *spared == id)?;
    Some(why.as_str().to_owned())
}

/// The block of a finding, or of the prefix around it.
fn block_of(run: &Run, finding: i64, client: ClientIp) -> Option<&Block> {
    let is_of_it = |block: &&Block| match block.finding_id {
        Some(id) => id == finding,
        None => block.network.contains(&client.ip()),
    };
    run.done.blocked.iter().find(is_of_it)
}

fn table(run: &Run) -> Table {
    let mut table = Table::new(&[
        ("id", Align::Right),
        ("client", Align::Left),
        ("severity", Align::Left),
        ("requests", Align::Right),
        ("done", Align::Left),
        ("reason", Align::Left),
    ])
    .wrapped();
    for (id, finding) in &run.done.saved {
        let done = done(run, *id, finding).unwrap_or_else(|| "noted".to_owned());
        let is_blocked = done.starts_with("blocked ");
        table.row(vec![
            Cell::new(id.to_string()),
            Cell::new(client_and_user(finding)),
            Cell::styled(finding.severity.as_str(), severity_style(finding.severity)),
            Cell::new(number(finding.request_count)),
            Cell::styled(done, if is_blocked { RED } else { DIM }),
            Cell::new(format!("{}: {}", finding.reason, says(finding))),
        ]);
    }
    table
}

/// What limits the result.
fn remarks(run: &Run) -> Vec<String> {
    let report = &run.report;
    let mut remarks = Vec::new();
    if report.dropped_findings > 0 {
        let dropped = count(report.dropped_findings, "finding");
        remarks.push(format!("{dropped} of the least severe were left out: there were too many"));
    }
    if report.overflowed_clients > 0 {
        let clients = count(report.overflowed_clients, "client");
        remarks.push(format!("{clients} were not looked at: there were too many at once"));
    }
    match &report.forest {
        ForestHealth::Off { why } => remarks.push(format!("isolation forest: off, {why}")),
        ForestHealth::Scored { training_rows, scored, flagged, origin, .. } => remarks.push(format!(
            "isolation forest: trained on {}, scored {}, found {} unusual",
            match origin {
                Origin::Site => count(*training_rows as u64, "ordinary client"),
                Origin::Reference => count(*training_rows as u64, "made-up client"),
            },
            count(*scored as u64, "client"),
            number(*flagged as u64)
        )),
    }
    remarks
}

fn as_json(run: &Run) -> Value {
    let findings = run.done.saved.iter().map(|(id, finding)| {
        let mut document = json!(finding);
        document["id"] = json!(id);
        document["done"] = json!(done(run, *id, finding));
        document
    });
    let spared = run
        .done
        .spared
        .iter()
        .map(|(id, client, why)| json!({ "finding": id, "client": client, "why": why.as_str() }));
    json!({
        "requests": run.report.requests,
        "clients": run.report.clients,
        "took_ms": u64::try_from(run.took.as_millis()).unwrap_or(u64::MAX),
        "findings": findings.collect::<Vec<_>>(),
        "blocked": run.done.blocked,
        "blocked_parties": run.done.blocked_parties,
        "spared": spared.collect::<Vec<_>>(),
        "dropped_findings": run.report.dropped_findings,
        "overflowed_clients": run.report.overflowed_clients,
        "forest": run.report.forest,
    })
}
