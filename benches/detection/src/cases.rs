//! Expert cases: short logs of which it is known who must be flagged, or that nobody may be. Must not print.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use portcullis_model::Severity;
use serde::Deserialize;

use crate::judge::{Judge, Verdicts};

const ATTACK: &str = "attack";

#[derive(Deserialize)]
struct Case {
    case: String,
    log: String,
    kind: String,
    expected_sources: Vec<String>,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// Attackers that were not flagged, or others that were.
    Failed(Vec<String>),
    /// Attackers of whom the log has no request that can be read: it is an error log, or one of another program.
    NotInLog(Vec<String>),
}

/// One case.
pub(crate) struct Ended {
    pub(crate) name: String,
    /// Somebody must be flagged; otherwise nobody may be.
    pub(crate) is_attack: bool,
    pub(crate) outcome: Outcome,
}

/// Judges all cases of the file; their logs are beside it.
pub(crate) fn run(file: &Path, judge: &Judge) -> Result<Vec<Ended>> {
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    // Samples for parsers hold attacks too, which nobody is expected to flag or to spare.
    let is_judged = |case: &Case| case.kind == ATTACK || case.case.contains("whitelist");
    cases
        .into_iter()
        .filter(is_judged)
        .map(|case| {
            // A log in no known format is one without requests.
            let verdicts = judge.judge(&folder.join(&case.log)).unwrap_or_default();
            let outcome = outcome(&case, &verdicts).with_context(|| case.case.clone())?;
            Ok(Ended { name: case.case, is_attack: case.kind == ATTACK, outcome })
        })
        .collect()
}

fn outcome(case: &Case, verdicts: &Verdicts) -> Result<Outcome> {
    let flagged = |ip: &IpAddr| {
        verdicts.clients.iter().any(|(c, seen)| c.ip() == *ip && seen.severity() >= Some(Severity::Medium))
    };
    if case.kind != ATTACK {
        let others = verdicts.clients.keys().map(|client| client.ip()).filter(|ip| flagged(ip));
        let others: Vec<String> = others.map(|ip| ip.to_string()).collect();
        return Ok(if others.is_empty() { Outcome::Passed } else { Outcome::Failed(others) });
    }
    let (mut missed, mut absent) = (Vec::new(), Vec::new());
    for source in &case.expected_sources {
        let ip: IpAddr = source.parse().with_context(|| format!("{source:?} is no address"))?;
        let is_there = verdicts.clients.iter().any(|(c, seen)| c.ip() == ip && seen.requests > 0);
        match (is_there, flagged(&ip)) {
            (_, true) => {}
            (true, false) => missed.push(source.clone()),
            (false, false) => absent.push(source.clone()),
        }
    }
    Ok(match (missed.is_empty(), absent.is_empty()) {
        (true, true) => Outcome::Passed,
        (true, false) => Outcome::NotInLog(absent),
        (false, _) => Outcome::Failed(missed),
    })
}
