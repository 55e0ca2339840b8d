//! One finding in full, with what can be done about it.
//! Must not change anything.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Html;
use maud::{Markup, html};
use portcullis_detect::may_be_dismissed_by_path;
use portcullis_model::FindingStatus;
use serde::Deserialize;

use super::{evidence, says, status};
use crate::console::error::PageError;
use crate::console::layout::{Tab, form_token, page, severity};
use crate::console::pages::blocks::duration_choice;
use crate::console::running::stories::FindingStory;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{address, encoded, number, time, visible};

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    done: String,
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Path(id): Path<i64>,
    Query(Asked { done }): Query<Asked>,
) -> Result<Html<String>, PageError> {
    let story = shared.blocking(move |shared| shared.running.finding(id).map_err(PageError::Failed)).await?;
    let Some(story) = story else {
        return Err(PageError::NotFound(format!("There is no finding {id}; findings are kept for 30 days.")));
    };
    let body = html! {
        (shared.notices.show(&visitor, &done))
        (summary(&story))
        @if visitor.is_operator() { (actions(&visitor, &story)) }
        (evidence::show(&story))
    };
    Ok(page(&visitor, Tab::Findings, &format!("Finding {id}"), body))
}

fn summary(story: &FindingStory) -> Markup {
    let stored = &story.stored;
    let finding = &stored.finding;
    let client = finding.client.to_string();
    let requests = address("/requests", &[("ip", &finding.client.limit_network().to_string())]);
    html! {
        p {
            (severity(finding.severity)) " " (status(stored.status)) " "
            strong { (visible(&finding.reason)) } ": " (visible(says(finding)))
        }
        dl.facts {
            dt { "Client" }
            dd {
                a.mono href=(format!("/clients/{}", encoded(&client))) { (client) }
                @if let Some(user) = &finding.user {
                    ", user " a href=(address("/requests", &[("user", user)])) { (visible(user)) }
                }
            }
            dt { "Requests" }
            dd {
                a href=(requests) { (number(finding.request_count)) } " from " (time(finding.first_seen)) " to "
                (time(finding.last_seen))
            }
            dt { "Found" } dd { (time(finding.detected_at)) @if let Some(found) = &story.found { ", " (found) } }
            dt { "Block" } dd { (visible(&story.outcome)) }
            @if let Some(held) = &story.held_down { dt { "But" } dd { (held) } }
            @for spared in &story.spared { dt { "Spared" } dd { (visible(spared)) } }
            @for silent in &story.silent { dt { "Silent" } dd { (visible(silent)) } }
        }
    }
}

fn actions(visitor: &Visitor, story: &FindingStory) -> Markup {
    let (id, is_dismissed) = (story.stored.id, story.stored.status == FindingStatus::Dismissed);
    let here = format!("/findings/{id}");
    html! {
        section.card aria-labelledby="review" {
            h2 #review { "What do you make of it?" }
            form.actions action="/findings" method="post" {
                (form_token(visitor))
                input type="hidden" name="only" value=(id);
                input type="hidden" name="back" value=(here);
                @if story.stored.status != FindingStatus::Confirmed {
                    button.quiet name="deed" value="confirm" { "Confirm: it is right" }
                }
                @if !is_dismissed { button.quiet name="deed" value="dismiss" { "Dismiss: it is wrong" } }
                @if story.stored.status != FindingStatus::Open { button.quiet name="deed" value="reopen" { "Reopen" } }
                button.quiet name="deed" value="allow"
                    data-confirm="Allow this client? No block and no limit will touch it." { "Allow the client" }
                div { label.hidden for="expires" { "Block for how long" } (duration_choice("expires", "")) }
                button.danger name="deed" value="block" {
                    @if story.stored.finding.user.is_some() { "Block the user" } @else { "Block the client" }
                }
            }
            (for_good(visitor, story, &here))
        }
    }
}

/// "Never flag this again".
fn for_good(visitor: &Visitor, story: &FindingStory, here: &str) -> Markup {
    let finding = &story.stored.finding;
    let rules = evidence::rule_names(&finding.details);
    let client = portcullis_model::bare(&finding.client.limit_network());
    html! {
        details {
            summary { "Dismiss, and never flag this again" }
            form action=(format!("{here}/dismiss")) method="post" {
                (form_token(visitor))
                div.fields {
                    div {
                        label for="never-rule" { "Rule" }
                        select #never-rule name="rule" {
                            option value=(finding.reason) { (finding.reason) }
                            @for rule in rules.iter().filter(|rule| **rule != finding.reason) {
                                option value=(rule) { (rule) }
                            }
                        }
                    }
                    div {
                        label for="never-what" { "is silent" }
                        select #never-what name="never" {
                            option value="client" { "about " (client) }
                            @if rules.iter().any(|rule| may_be_dismissed_by_path(rule)) {
                                option value="path" { "about a path and what is below it" }
                            }
                            option value="rule" { "about everybody" }
                        }
                    }
                    div {
                        label for="never-path" { "Path, where one is meant" }
                        input.mono #never-path name="path" maxlength="2000" autocomplete="off"
                            placeholder="that of the samples";
                    }
                    div { label for="never-note" { "Note" } input #never-note name="note" maxlength="1000"; }
                    div { button.quiet { "Dismiss for good" } }
                }
            }
        }
    }
}
