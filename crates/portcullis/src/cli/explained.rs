//! A finding explained: when it was found, what each rule says with requests that show it, how the score grew, what the
//! forest found unusual, what was done and who is spared, what would have prevented it.
//!
//! Owns how `suspicious`, `why` and `analyze` tell of one, in words and in JSON. Must not judge, and must not fail for
//! what a finding of another version does not have.

use portcullis_admin::running::stories::{FindingStory, Passage};
use portcullis_config::Config;
use portcullis_detect::{SCORE_HALF_LIFE, SCORE_THRESHOLDS, feature_in_words};
use portcullis_model::{FindingStatus, UnixMs};
use portcullis_store::{State, StoredFinding};
use serde::Serialize;
use serde_json::Value;

use super::block::until;
use super::context::{Context, open_state};
use super::output::{Screen, count, number};
use super::party::AnyBlock;
use super::time;
use crate::detection;

/// Sample requests that are shown; the detector keeps no more.
const MAX_SAMPLES: usize = 10;
/// Entries of the score's history, user agents, and so on, that are shown.
const MAX_SHOWN: usize = 12;

/// A finding with all that there is to say about it.
#[derive(Serialize)]
pub(crate) struct Explained {
    #[serde(flatten)]
    pub(crate) stored: StoredFinding,
    /// The block that it led to.
    pub(in crate::cli) block: Option<AnyBlock>,
    explanation: Explanation,
}

/// What the details mean, in sentences.
#[derive(Serialize)]
struct Explanation {
    /// At request time or by the hourly run; `None`: an older version did not say.
    found: Option<String>,
    /// Why it is not more severe than it is.
    held_down: Option<String>,
    /// Who shares the address, and whom a block leaves alone.
    spared: Vec<String>,
    /// What was done, or why nothing was.
    outcome: String,
    /// What the forest found unusual, the strongest first.
    unusual: Vec<String>,
    /// Which model said so, and how clearly.
    model: Option<String>,
    /// Rules that had something to say and were not to be asked, because a person has said so.
    silent: Vec<String>,
    prevented_by: Vec<String>,
}

/// What explanations are made with.
pub(in crate::cli) struct FindingExplainer<'a> {
    pub(in crate::cli) config: &'a Config,
    pub(in crate::cli) state: &'a State,
    pub(in crate::cli) context: &'a Context,
}

impl FindingExplainer<'_> {
    pub(in crate::cli) fn explain(&self, stored: StoredFinding) -> anyhow::Result<Explained> {
        let block = match stored.block_id {
            Some(id) => AnyBlock::find(self.state, id, self.context.now)?,
            None => None,
        };
        let details = &stored.finding.details;
        let explanation = Explanation {
            found: found(&stored),
            held_down: details["held_down"].as_str().map(|why| format!("at most medium: {why}")),
            spared: sharers(details),
            outcome: self.outcome(&stored, block.as_ref())?,
            unusual: unusual(details),
            model: model(details),
            silent: silent(details),
            prevented_by: self.prevented_by(&stored),
        };
        Ok(Explained { stored, block, explanation })
    }

    fn outcome(&self, stored: &StoredFinding, block: Option<&AnyBlock>) -> anyhow::Result<String> {
        if let Some(block) = block {
            return Ok(block_in_words(block, self.context));
        }
        let why = detection::not_blocked(self.config, self.state, stored, self.context.now)?;
        Ok(why.map_or_else(|| "not blocked for this".to_owned(), |why| format!("not blocked: {why}")))
    }

    fn prevented_by(&self, stored: &StoredFinding) -> Vec<String> {
        let mut all = texts(&stored.finding.details["prevented_by"]);
        if stored.status != FindingStatus::Dismissed {
            let dismiss = self.context.command(&format!("suspicious {} --dismiss", stored.id));
            all.push(format!("a dismissal, if it is wrong ({dismiss})"));
        }
        all
    }
}

/// The finding with this number, explained.
///
/// # Errors
/// The state database fails.
pub(crate) fn explain(id: i64, config: &Config, context: &Context) -> anyhow::Result<Option<FindingStory>> {
    let Some(state) = open_state(&config.data)? else { return Ok(None) };
    let Some(stored) = state.finding(id)? else { return Ok(None) };
    let explainer = FindingExplainer { config, state: &state, context };
    let Explained { stored, explanation, block: _ } = explainer.explain(stored)?;
    let Explanation { found, held_down, spared, outcome, unusual: _, model, silent, prevented_by: _ } =
        explanation;
    Ok(Some(FindingStory { stored, outcome, found, held_down, spared, silent, model }))
}

impl Explained {
    /// In fields.
    pub(in crate::cli) fn show(&self, context: &Context, screen: &mut Screen) -> anyhow::Result<()> {
        for Passage { heading, lines } in self.passages(context) {
            show_all(heading, lines.iter(), screen)?;
        }
        Ok(())
    }

    /// What there is to say, by headings; those without anything are left out.
    pub(crate) fn passages(&self, context: &Context) -> Vec<Passage> {
        let Explanation { found, held_down, spared, unusual, model, silent, prevented_by, outcome: _ } =
            &self.explanation;
        let details = &self.stored.finding.details;
        let or = |(n, text): (usize, &String)| format!("{} {text}", if n == 0 { "by" } else { "or by" });
        let all = [
            ("when", found.iter().cloned().collect()),
            ("rules", rules(details)),
            ("but", held_down.iter().cloned().collect()),
            ("for example", samples(details, context)),
            ("score", history(details, context)),
            ("unusual", unusual.iter().chain(model).cloned().collect()),
            ("spared", spared.clone()),
            ("silent", silent.clone()),
            ("prevented", prevented_by.iter().enumerate().map(or).collect::<Vec<String>>()),
        ];
        let said = all.into_iter().filter(|(_, lines)| !lines.is_empty());
        said.map(|(heading, lines)| Passage { heading, lines }).collect()
    }

    /// What was done, or why nothing was.
    pub(in crate::cli) fn outcome(&self) -> &str {
        &self.explanation.outcome
    }
}

fn show_all<'t>(
    label: &str,
    lines: impl Iterator<Item = &'t String>,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    for (n, line) in lines.enumerate() {
        screen.field(if n == 0 { label } else { "" }, line)?;
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> Vec<String> {
    list(value).iter().filter_map(Value::as_str).take(MAX_SHOWN).map(str::to_owned).collect()
}

fn instant(value: &Value) -> Option<UnixMs> {
    value.as_i64().map(UnixMs)
}

/// How it came to be found, and after how long.
fn found(stored: &StoredFinding) -> Option<String> {
    let details = &stored.finding.details;
    match details["found"].as_str()? {
        "request" => {
            let history = list(&details["score_history"]);
            let last = history.iter().filter_map(|entry| instant(&entry["time"])).max();
            let after = last.map(|at| {
                format!(
                    ", {} after its first request of those counted",
                    time::span(at.since(stored.finding.first_seen))
                )
            });
            Some(format!("at request time{}", after.unwrap_or_default()))
        }
        "hourly" => Some("by the hourly run over the log".to_owned()),
        _ => None,
    }
}

/// What each rule says, the strongest first.
fn rules(details: &Value) -> Vec<String> {
    let text = |rule: &Value, name: &str| rule[name].as_str().unwrap_or("?").to_owned();
    let each = list(&details["rules"]).iter();
    each.map(|rule| format!("- {} ({}): {}", text(rule, "rule"), text(rule, "severity"), text(rule, "says")))
        .collect()
}

/// Requests that show it. Rules share some of them.
fn samples(details: &Value, context: &Context) -> Vec<String> {
    let mut samples: Vec<&Value> = Vec::new();
    for sample in list(&details["rules"]).iter().flat_map(|rule| list(&rule["samples"])) {
        if samples.len() < MAX_SAMPLES && !samples.contains(&sample) {
            samples.push(sample);
        }
    }
    samples.iter().map(|sample| sample_in_words(sample, context)).collect()
}

fn sample_in_words(sample: &Value, context: &Context) -> String {
    let at = instant(&sample["time"]).map_or_else(String::new, |at| context.short_time(at));
    format!(
        "{at}  {} {}  {}",
        sample["method"].as_str().unwrap_or("-"),
        sample["path"].as_str().unwrap_or("-"),
        sample["status"]
    )
}

/// The score as it grew; between two entries it may have faded.
fn history(details: &Value, context: &Context) -> Vec<String> {
    let points = |value: &Value| value.as_f64().filter(|points| points.is_finite()).unwrap_or_default();
    let entries = list(&details["score_history"]).iter().take(MAX_SHOWN);
    let mut lines: Vec<String> = entries
        .map(|entry| {
            let at = instant(&entry["time"]).map_or_else(String::new, |at| context.short_time(at));
            let (more, score) = (points(&entry["points"]), points(&entry["score"]));
            format!(
                "{at}  {:>5}  {:>5.1}  {}",
                format!("+{more}"),
                score,
                entry["rule"].as_str().unwrap_or("?")
            )
        })
        .collect();
    if !lines.is_empty() {
        let from =
            SCORE_THRESHOLDS.iter().rev().map(|(points, severity)| format!("{severity} from {points}"));
        let half = time::span(SCORE_HALF_LIFE);
        lines.push(format!("({}; it halves in {half})", from.collect::<Vec<_>>().join(", ")));
    }
    lines
}

/// What the isolation forest found unusual, beside what is typical.
fn unusual(details: &Value) -> Vec<String> {
    let strongest = list(&details["forest"]["strongest"]).iter().take(MAX_SHOWN);
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    strongest
        .map(|odd| match odd["says"].as_str() {
            Some(says) => says.to_owned(),
            // Of an older version.
            None => feature_in_words(
                odd["feature"].as_str().unwrap_or("?"),
                number(&odd["value"]),
                number(&odd["typical"]),
            ),
        })
        .collect()
}

fn model(details: &Value) -> Option<String> {
    let forest = &details["forest"];
    let (id, score) = (forest["model"].as_str()?, forest["score"].as_f64()?);
    let threshold = forest["threshold"].as_f64().unwrap_or(f64::NAN);
    Some(format!("model {id}: odd to {score:.3}, ordinary clients up to {threshold:.3}"))
}

/// Verified users who share the address, and what a block looks for because of them.
fn sharers(details: &Value) -> Vec<String> {
    let shared = &details["shared"];
    let Some(users) = shared["verified_users"].as_u64().filter(|users| *users > 0) else { return Vec::new() };
    let agents = texts(&shared["user_agents"]);
    let users = count(users, "verified user");
    let meets = match agents.is_empty() {
        true => "what is found of anonymous clients does not meet them".to_owned(),
        false => format!("what is found meets only who comes as {}", agents.join(", ")),
    };
    vec![format!("{users} of the same address: {meets}")]
}

fn silent(details: &Value) -> Vec<String> {
    let each = list(&details["silent"]).iter().take(MAX_SHOWN);
    let words = |one: &Value| {
        let rule = one["rule"].as_str().unwrap_or("?");
        format!("{rule} would agree, but was dismissed for good (never {})", one["never"])
    };
    each.map(words).collect()
}

fn block_in_words(block: &AnyBlock, context: &Context) -> String {
    match block.end(context) {
        Some(end) => format!("{} of {}: {end}", block.id(), block.whom()),
        None => format!("{} of {}, {}", block.id(), block.whom(), until(block.expires_at(), context)),
    }
}

/// `12 requests from ... to ...`
pub(in crate::cli) fn requests(stored: &StoredFinding, context: &Context) -> String {
    format!(
        "{} from {} to {}",
        number(stored.finding.request_count),
        time::full(stored.finding.first_seen, &context.zone),
        time::full(stored.finding.last_seen, &context.zone)
    )
}
