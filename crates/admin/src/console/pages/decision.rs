//! One decision, explained: what was asked, what became of it and why, on what evidence, and what can be done.
//! Must not decide about requests, and must not guess what the evidence does not say.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use portcullis_model::{ClientIp, Party, RequestId, bare};
use portcullis_store::LogRow;
use serde::Deserialize;

use crate::console::error::PageError;
use crate::console::layout::{Tab, form_token, page, table, verdict};
use crate::console::running::stories::{Advice, Passage, Remedy, Story, Told};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{encoded, time, visible};

/// Characters of what somebody typed that are shown back.
const MAX_SHOWN: usize = 100;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/decision", get(ask)).route("/decision/{id}", get(show))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    id: String,
}

#[derive(Deserialize)]
struct Seen {
    /// The notice of what was just changed.
    #[serde(default)]
    done: String,
}

async fn ask(visitor: Visitor, Query(Asked { id }): Query<Asked>) -> Response {
    let text = id.trim();
    if let Ok(id) = text.parse::<RequestId>() {
        return Redirect::to(&format!("/decision/{id}")).into_response();
    }
    if let Ok(client) = text.parse::<ClientIp>() {
        return Redirect::to(&format!("/clients/{}", encoded(&client.to_string()))).into_response();
    }
    match text {
        "" => question(&visitor, "", None).into_response(),
        wrong => not_an_id(&visitor, wrong),
    }
}

async fn show(
    visitor: Visitor,
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(Seen { done }): Query<Seen>,
) -> Result<Response, PageError> {
    let Ok(id) = id.parse::<RequestId>() else { return Ok(not_an_id(&visitor, &id)) };
    let told = shared.blocking(move |shared| shared.running.decision(id).map_err(PageError::Failed)).await?;
    Ok(match told {
        Told::Story(story) => {
            story_page(&visitor, &story, &shared.notices.show(&visitor, &done)).into_response()
        }
        Told::Nowhere(why) => {
            (StatusCode::NOT_FOUND, question(&visitor, &id.to_string(), Some(&why))).into_response()
        }
    })
}

fn not_an_id(visitor: &Visitor, text: &str) -> Response {
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    let problem = "This is neither a decision ID of 16 letters and digits, as the refusal page shows it, nor an address.";
    (StatusCode::UNPROCESSABLE_ENTITY, question(visitor, &shown, Some(problem))).into_response()
}

fn question(visitor: &Visitor, id: &str, problem: Option<&str>) -> Html<String> {
    let described = problem.map(|_| "id-problem");
    page(
        visitor,
        Tab::Decision,
        "Decision",
        html! {
            form action="/decision" method="get" {
                div.fields {
                    div {
                        label for="id" { "Decision ID" }
                        input #id .mono name="id" value=(id) required maxlength="100" autocomplete="off" spellcheck="false"
                            aria-invalid=[problem.map(|_| "true")] aria-describedby=[described];
                    }
                    div { button { "Explain" } }
                }
                @if let Some(problem) = problem { p.field-error #id-problem { (problem) } }
            }
            p.dim {
                "The ID is on the page that a refused visitor sees, in the X-Request-Id that your site gets, and with \
                 every row of " a href="/requests" { "the requests" } "."
            }
        },
    )
}

fn story_page(visitor: &Visitor, story: &Story, notice: &Markup) -> Html<String> {
    let row = &story.request;
    page(
        visitor,
        Tab::Decision,
        &format!("Decision {}", row.id),
        html! {
            (notice)
            p { (verdict(row.verdict)) " " strong { (visible(&story.outcome)) } }
            div.columns {
                section.card aria-labelledby="asked" { h2 #asked { "What was asked" } (facts(row)) }
                section.card aria-labelledby="why" { h2 #why { "Why" } (grounds(story)) }
            }
            @if !story.evidence.is_empty() {
                section.card aria-labelledby="evidence" {
                    h2 #evidence { "Evidence" }
                    dl.facts { @for passage in &story.evidence { (evidence(passage)) } }
                }
            }
            @if !story.counted.is_empty() { (counted(&story.counted)) }
            @if !story.advice.is_empty() {
                section.card aria-labelledby="advice" {
                    h2 #advice { "What can be done" }
                    @for advice in &story.advice { (remedy(visitor, advice, row.id)) }
                }
            }
        },
    )
}

fn facts(row: &LogRow) -> Markup {
    let client = row.client.to_string();
    html! {
        dl.facts {
            dt { "Request" } dd.mono { (request(row)) }
            dt { "Host" } dd { (visible(&row.host)) }
            dt { "When" } dd { (time(row.time())) }
            dt { "Client" } dd { a href=(format!("/clients/{}", encoded(&client))) { (client) } (place(row)) }
            @if !row.user.is_empty() { dt { "User" } dd { (visible(&row.user)) } }
            @if !row.user_agent.is_empty() { dt { "User agent" } dd { (visible(&row.user_agent)) } }
            @if !row.referer.is_empty() { dt { "Referer" } dd { (visible(&row.referer)) } }
            dt { "Answer" } dd { @if row.status == 0 { "none" } @else { (row.status) } }
            @if !row.verdict.is_refusal() {
                dt { "Took" } dd { (format!("{:.1} ms", row.latency_us as f64 / 1_000.0)) }
            }
        }
    }
}

fn request(row: &LogRow) -> String {
    let query = if row.query.is_empty() { String::new() } else { format!("?{}", row.query) };
    visible(&format!("{} {}{query}", row.method, row.path)).into_owned()
}

fn place(row: &LogRow) -> Markup {
    let known = [&row.location.city, &row.location.country, &row.location.isp];
    let known: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
    html! { @if !known.is_empty() { " (" (visible(&known.join(", "))) ")" } }
}

fn grounds(story: &Story) -> Markup {
    html! {
        @for sentence in &story.because { p { (visible(sentence)) } }
        dl.facts {
            @if let Some(lasts) = &story.lasts { dt { "Lasts" } dd { (visible(lasts)) } }
            dt { "Now" } dd { (visible(&story.now)) }
            @if let Some(block) = story.block { dt { "Block" } dd { (block) } }
            @if let Some(finding) = story.finding {
                dt { "Finding" } dd { a href=(format!("/findings/{finding}")) { (finding) } }
            }
        }
    }
}

fn evidence(passage: &Passage) -> Markup {
    html! {
        dt { (visible(passage.heading)) }
        dd { @for line in &passage.lines { div { (visible(line)) } } }
    }
}

fn counted(rows: &[LogRow]) -> Markup {
    html! {
        h2 { "Counted before it" }
        (table("The latest requests that the limit counted", html! {
            thead { tr { th scope="col" { "When" } th scope="col" { "Request" } th.number scope="col" { "Status" } } }
            tbody {
                @for row in rows {
                    tr {
                        td.keep { a href=(format!("/decision/{}", row.id)) { (time(row.time())) } }
                        td.wide.mono { (request(row)) }
                        td.number { (row.status) }
                    }
                }
            }
        }))
    }
}

fn remedy(visitor: &Visitor, advice: &Advice, id: RequestId) -> Markup {
    html! {
        @match &advice.command {
            Some(command) => {
                p { "To " (visible(&advice.to)) ":" }
                @if let (Some(remedy), true) = (&advice.remedy, visitor.is_operator()) {
                    (button(visitor, remedy, id))
                    details { summary { "or at the command line" } pre { (visible(command)) } }
                } @else { pre { (visible(command)) } }
            }
            None => p { (visible(&advice.to)) },
        }
    }
}

/// A form of the pages that know how it is done, which leads back here.
fn button(visitor: &Visitor, remedy: &Remedy, id: RequestId) -> Markup {
    let field = |name: &'static str, value: String| (name, value);
    let (action, word, fields) = match remedy {
        Remedy::Unblock(network) => ("/blocks/lift", "Lift the block", vec![field("network", bare(network))]),
        Remedy::UnblockParty(Party::User(user)) => {
            ("/blocks/lift", "Lift the block", vec![field("user", user.to_string())])
        }
        Remedy::UnblockParty(Party::Anonymous { network, .. }) => {
            ("/blocks/lift", "Lift the block", vec![field("network", bare(network))])
        }
        Remedy::Allow(network) => {
            let reason = format!("decision {id}");
            ("/allows", "Allow", vec![field("network", bare(network)), field("reason", reason)])
        }
        Remedy::Disallow(network) => {
            ("/allows/remove", "Take the allow back", vec![field("network", bare(network))])
        }
        Remedy::Dismiss(finding) => {
            let fields = vec![field("id", finding.to_string()), field("deed", "dismiss".to_owned())];
            ("/findings", "Dismiss the finding", fields)
        }
    };
    html! {
        form action=(action) method="post" {
            (form_token(visitor))
            input type="hidden" name="back" value=(format!("/decision/{id}"));
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            div.actions { button.quiet { (word) } }
        }
    }
}
