//! The findings, newest first, a page at a time, with what can be done about many of them.
//! Must not change anything.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Html;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use portcullis_config::Moment;
use portcullis_detect::rule_names;
use portcullis_model::{ClientIp, Severity, UnixMs};
use portcullis_store::{FindingFilter, StoredFinding};
use serde::Deserialize;

use super::{STATUSES, says, status};
use crate::console::error::PageError;
use crate::console::layout::{Tab, empty, form_token, page, severity, table};
use crate::console::pages::blocks::duration_choice;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{address, encoded, number, relative, visible};

/// Rows of one page.
const ROWS: usize = 50;

/// What the address says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// `open` unless it says something else; `all`.
    status: String,
    severity: String,
    rule: String,
    client: String,
    since: String,
    before: String,
    done: String,
}

impl Asked {
    fn filter(&self, now: UnixMs) -> Result<FindingFilter, PageError> {
        let wrong = |field: &str, problem: String| PageError::Invalid(format!("{field}: {problem}."));
        let status = match self.status.as_str() {
            "" => Some(portcullis_model::FindingStatus::Open),
            "all" => None,
            text => Some(text.parse().map_err(|problem| wrong("Status", problem))?),
        };
        let severity: Option<Severity> = if_any(&self.severity)
            .map(str::parse)
            .transpose()
            .map_err(|problem: portcullis_model::UnknownSeverity| wrong("Severity", problem.to_string()))?;
        let client: Option<ClientIp> = if_any(&self.client).map(str::parse).transpose().map_err(|_| {
            wrong("Client", format!("expected an IPv4 or IPv6 address, got {:?}", self.client))
        })?;
        let since = if_any(&self.since)
            .map(str::parse::<Moment>)
            .transpose()
            .map_err(|problem| wrong("Since", problem))?;
        Ok(FindingFilter {
            client,
            min_severity: severity,
            status,
            since: since.map(|since| since.resolve(now, &TimeZone::UTC)),
            rule: if_any(&self.rule).map(str::to_owned),
            before: self.cursor()?,
            limit: ROWS + 1,
        })
    }

    /// `1795157485000-12`: when the last finding of the page before was detected, and its number.
    fn cursor(&self) -> Result<Option<(UnixMs, i64)>, PageError> {
        let Some(text) = if_any(&self.before) else { return Ok(None) };
        let parsed = text
            .split_once('-')
            .and_then(|(at, id)| Some((UnixMs(at.parse().ok()?), id.parse::<i64>().ok()?)));
        parsed.map(Some).ok_or_else(|| {
            PageError::Invalid("This link to older findings is broken. Begin with the newest.".to_owned())
        })
    }

    fn address(&self, before: &str) -> String {
        let pairs = [
            ("status", self.status.as_str()),
            ("severity", &self.severity),
            ("rule", &self.rule),
            ("client", &self.client),
            ("since", &self.since),
            ("before", before),
        ];
        address("/findings", &pairs)
    }
}

fn if_any(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, PageError> {
    let now = shared.now();
    let filter = asked.filter(now)?;
    let mut found = shared.state(move |state| state.findings(&filter)).await?;
    let has_more = found.len() > ROWS;
    found.truncate(ROWS);
    let next = found.last().filter(|_| has_more);
    let next = next.map(|last| asked.address(&format!("{}-{}", last.finding.detected_at.0, last.id)));
    let body = html! {
        (shared.notices.show(&visitor, &asked.done))
        nav aria-label="Lists" {
            ul.tabs {
                li { a href="/findings" aria-current="page" { "Findings" } }
                li { a href="/findings/never" { "Never again" } }
            }
        }
        (search(&asked))
        @if found.is_empty() {
            (empty(match asked.status.as_str() {
                "" => "Nothing to review: no open finding matches.",
                _ => "No finding matches.",
            }))
        } @else if visitor.is_operator() {
            form action="/findings" method="post" {
                (form_token(&visitor))
                input type="hidden" name="back" value=(asked.address(&asked.before));
                (rows(&found, true, now))
                (buttons())
            }
        } @else {
            (rows(&found, false, now))
        }
        nav.pager aria-label="Pages of the list" {
            @if !asked.before.is_empty() { a.button.quiet href=(asked.address("")) { "Back to the newest" } }
            @if let Some(next) = next { a.button.quiet rel="next" href=(next) { "Older" } }
        }
    };
    Ok(page(&visitor, Tab::Findings, "Findings", body))
}

fn search(asked: &Asked) -> Markup {
    html! {
        form.fields action="/findings" method="get" role="search" {
            div {
                label for="status" { "Status" }
                select #status name="status" {
                    option value="" { "open" }
                    @for status in &STATUSES[1..] {
                        option value=(status.as_str()) selected[asked.status == status.as_str()] { (status.as_str()) }
                    }
                    option value="all" selected[asked.status == "all"] { "all" }
                }
            }
            div {
                label for="severity" { "At least" }
                select #severity name="severity" {
                    option value="" { "any severity" }
                    @for severity in Severity::ALL {
                        option value=(severity.as_str()) selected[asked.severity == severity.as_str()] {
                            (severity.as_str())
                        }
                    }
                }
            }
            div {
                label for="rule" { "Rule" }
                select #rule name="rule" {
                    option value="" { "any" }
                    @for rule in rule_names() { option value=(rule) selected[asked.rule == rule] { (rule) } }
                }
            }
            div {
                label for="client" { "Client" }
                input.mono #client name="client" value=(asked.client) maxlength="60" autocomplete="off";
            }
            div {
                label for="since" { "Since" }
                input #since name="since" value=(asked.since) maxlength="40" placeholder="24h, 7d or 2026-12-31";
            }
            div.actions { button.quiet { "Filter" } a.button.quiet href="/findings" { "All open" } }
        }
    }
}

/// The findings as a table, with boxes to tick where something can be done about them.
pub(in crate::console::pages) fn rows(found: &[StoredFinding], has_boxes: bool, now: UnixMs) -> Markup {
    let rows = html! {
        thead { tr {
            @if has_boxes {
                th scope="col" {
                    input.scripted type="checkbox" data-select-all="id" aria-label="Tick all rows";
                    span.hidden { "Ticked" }
                }
            }
            th scope="col" { "Finding" }
            th scope="col" { "Severity" }
            th scope="col" { "Client" }
            th scope="col" { "What" }
            th.number scope="col" { "Requests" }
            th scope="col" { "When" }
            th scope="col" { "Status" }
        } }
        tbody { @for stored in found { (row(stored, has_boxes, now)) } }
    };
    table("Findings, the newest first", rows)
}

fn row(stored: &StoredFinding, has_box: bool, now: UnixMs) -> Markup {
    let finding = &stored.finding;
    let client = finding.client.to_string();
    html! {
        tr {
            @if has_box {
                td { input type="checkbox" name="id" value=(stored.id) aria-label=(format!("Tick finding {}", stored.id)); }
            }
            th.keep scope="row" { a href=(format!("/findings/{}", stored.id)) { (stored.id) } }
            td { (severity(finding.severity)) }
            td.keep {
                a.mono href=(format!("/clients/{}", encoded(&client))) { (client) }
                @if let Some(user) = &finding.user { div.dim { "user " (visible(user)) } }
            }
            td.wide { strong { (visible(&finding.reason)) } ": " (visible(says(finding))) }
            td.number { (number(finding.request_count)) }
            td.keep { (relative(finding.detected_at, now)) }
            td.keep {
                (status(stored.status))
                @if stored.block_id.is_some() { div.dim { "led to a block" } }
            }
        }
    }
}

/// What can be done about the findings that are ticked.
fn buttons() -> Markup {
    html! {
        div.fields.actions {
            span.dim { "With what is ticked:" }
            button.quiet name="deed" value="confirm" { "Confirm" }
            button.quiet name="deed" value="dismiss" { "Dismiss" }
            button.quiet name="deed" value="reopen" { "Reopen" }
            button.quiet name="deed" value="allow" data-confirm="Allow these clients? No block and no limit will touch them." {
                "Allow the clients"
            }
            div { label.hidden for="expires" { "Block for how long" } (duration_choice("expires", "")) }
            button.danger name="deed" value="block" { "Block the clients" }
        }
    }
}
