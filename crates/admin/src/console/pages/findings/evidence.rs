//! What a finding rests on: its rules with requests that show them, the score as it grew, what the forest found unusual,
//! what would have prevented it. Must not fail for what a finding of another version does not have.

use maud::{Markup, html};
use portcullis_detect::{SCORE_HALF_LIFE, SCORE_THRESHOLDS, feature_in_words};
use portcullis_model::{Severity, UnixMs};
use serde_json::Value;

use crate::console::charts::share;
use crate::console::layout::{severity, table};
use crate::console::running::stories::FindingStory;
use crate::console::words::{time, visible};

/// Rules, samples and other entries that are shown of each.
const MAX_SHOWN: usize = 20;
/// A share as the bars draw it.
const WHOLE: u64 = 1_000;

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], |list| &list[..list.len().min(MAX_SHOWN)])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn moment(value: &Value) -> Markup {
    html! { @if let Some(at) = value.as_i64() { (time(UnixMs(at))) } }
}

/// The rules that speak, the strongest first.
pub(super) fn rule_names(details: &Value) -> Vec<&str> {
    list(&details["rules"]).iter().filter_map(|rule| rule["rule"].as_str()).collect()
}

pub(super) fn show(story: &FindingStory) -> Markup {
    let details = &story.stored.finding.details;
    html! {
        (rules(details))
        (samples(details))
        (score(details))
        (forest(details, story.model.as_deref()))
        (prevention(details))
    }
}

fn rules(details: &Value) -> Markup {
    let rules = list(&details["rules"]);
    html! {
        @if !rules.is_empty() {
            section.card aria-labelledby="rules" {
                h2 #rules { "What the rules say" }
                dl.facts {
                    @for rule in rules {
                        dt {
                            (visible(text(&rule["rule"]))) " "
                            @if let Ok(of) = text(&rule["severity"]).parse::<Severity>() { (severity(of)) }
                        }
                        dd { (visible(text(&rule["says"]))) }
                    }
                }
            }
        }
    }
}

/// Requests that show it. Rules share some of them.
fn samples(details: &Value) -> Markup {
    let mut samples: Vec<&Value> = Vec::new();
    for sample in list(&details["rules"]).iter().flat_map(|rule| list(&rule["samples"])) {
        if samples.len() < MAX_SHOWN && !samples.contains(&sample) {
            samples.push(sample);
        }
    }
    let rows = html! {
        thead { tr { th scope="col" { "When" } th scope="col" { "Request" } th.number scope="col" { "Status" } } }
        tbody {
            @for sample in &samples {
                tr {
                    td.keep { (moment(&sample["time"])) }
                    td.wide.mono { (visible(text(&sample["method"]))) " " (visible(text(&sample["path"]))) }
                    td.number { (sample["status"].to_string()) }
                }
            }
        }
    };
    html! { @if !samples.is_empty() { h2 { "For example" } (table("Requests that show it", rows)) } }
}

/// The score as it grew; between two entries it may have faded.
fn score(details: &Value) -> Markup {
    let entries = list(&details["score_history"]);
    let points = |value: &Value| value.as_f64().filter(|points| points.is_finite()).unwrap_or_default();
    let most = entries.iter().map(|entry| points(&entry["score"])).fold(1.0, f64::max);
    let drawn = |score: f64| (score / most * WHOLE as f64) as u64;
    let from: Vec<String> =
        SCORE_THRESHOLDS.iter().rev().map(|(points, severity)| format!("{severity} from {points}")).collect();
    let half = SCORE_HALF_LIFE.as_secs() / 60;
    let rows = html! {
        thead { tr {
            th scope="col" { "When" }
            th scope="col" { "Rule" }
            th.number scope="col" { "Points" }
            th.number scope="col" { "Score" }
            th scope="col" { span.hidden { "Drawn" } }
        } }
        tbody {
            @for entry in entries {
                tr {
                    td.keep { (moment(&entry["time"])) }
                    td { (visible(text(&entry["rule"]))) }
                    td.number { "+" (points(&entry["points"])) }
                    td.number { (format!("{:.1}", points(&entry["score"]))) }
                    td.bar { (share(drawn(points(&entry["score"])), 0, WHOLE)) }
                }
            }
        }
    };
    html! {
        @if !entries.is_empty() {
            h2 { "The score as it grew" }
            (table("The score as it grew", rows))
            p.dim { (from.join(", ")) "; it halves in " (half) " min." }
        }
    }
}

/// What the isolation forest found unusual, and how much of its opinion each feature is.
fn forest(details: &Value, model: Option<&str>) -> Markup {
    let strongest = list(&details["forest"]["strongest"]);
    let value = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let says = |odd: &Value| match odd["says"].as_str() {
        Some(says) => says.to_owned(),
        // Of an older version.
        None => feature_in_words(text(&odd["feature"]), value(&odd["value"]), value(&odd["typical"])),
    };
    let part = |odd: &Value| odd["share"].as_f64().filter(|share| (0.0..=1.0).contains(share));
    let rows = html! {
        thead { tr {
            th scope="col" { "What is unusual" }
            th.number scope="col" { "Share" }
            th scope="col" { span.hidden { "Drawn" } }
        } }
        tbody {
            @for odd in strongest {
                tr {
                    td.wide { (visible(&says(odd))) }
                    td.number { @if let Some(part) = part(odd) { (format!("{:.0} %", part * 100.0)) } }
                    td.bar { @if let Some(part) = part(odd) { (share((part * WHOLE as f64) as u64, 0, WHOLE)) } }
                }
            }
        }
    };
    html! {
        @if !strongest.is_empty() { h2 { "Unusual" } (table("What the forest found unusual", rows)) }
        @if let Some(model) = model { p.dim { (model) } }
    }
}

fn prevention(details: &Value) -> Markup {
    let all = list(&details["prevented_by"]);
    html! {
        @if !all.is_empty() {
            section.card aria-labelledby="prevention" {
                h2 #prevention { "What would have prevented it" }
                ul { @for one in all { li { (visible(text(one))) } } }
            }
        }
    }
}
