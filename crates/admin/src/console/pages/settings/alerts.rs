//! How people are told: each channel, what they were told of last, and a message to try it.
//! Must not show where a channel leads beyond what has no secret.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_model::UnixMs;

use crate::console::error::PageError;
use crate::console::forms::{Change, Nothing};
use crate::console::layout::{empty, form_token, severity, table};
use crate::console::running::chores::{ChannelState, Told, Tried};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{count, number, relative, time, visible};

use super::settings_page;

const HERE: &str = "/settings/alerts";
/// Alerts that are listed.
const MAX_ALERTS: usize = 50;
const NOBODY: &str =
    "Nobody is told: there is no [alerts.smtp] and no [[alerts.webhook]] in the configuration.";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route(HERE, get(show)).route("/settings/alerts/test", post(test))
}

async fn show(visitor: Visitor, State(shared): State<Arc<Shared>>) -> Result<Html<String>, PageError> {
    alerts(&visitor, &shared, None).await
}

async fn test(
    State(shared): State<Arc<Shared>>,
    Change { visitor, form: Nothing {} }: Change<Nothing>,
) -> Result<Html<String>, PageError> {
    let tried = shared.blocking(|shared| shared.running.test_alerts().map_err(PageError::Failed)).await?;
    let (actor, now) = (visitor.actor(), shared.now());
    let failed = tried.iter().filter(|tried| tried.problem.is_some()).count();
    let detail = format!("{} of {} arrived", tried.len() - failed, count(tried.len() as u64, "message"));
    shared.change(&visitor, move |state| state.note_act(&actor, "test", "alerts", &detail, now)).await?;
    // What became of it is nowhere but here.
    alerts(&visitor, &shared, Some(&tried)).await
}

async fn alerts(
    visitor: &Visitor,
    shared: &Arc<Shared>,
    tried: Option<&[Tried]>,
) -> Result<Html<String>, PageError> {
    let (channels, told) = shared
        .blocking(|shared| {
            let channels = shared.running.channels().map_err(PageError::Failed)?;
            Ok((channels, shared.running.recent_alerts(MAX_ALERTS).map_err(PageError::Failed)?))
        })
        .await?;
    let now = shared.now();
    Ok(settings_page(
        visitor,
        HERE,
        "Alerts",
        html! {
            @if let Some(tried) = tried { (outcomes(tried)) }
            @if channels.is_empty() { (empty(NOBODY)) } @else {
                (channel_table(&channels, now))
                @if visitor.is_operator() {
                    form action="/settings/alerts/test" method="post" {
                        (form_token(visitor))
                        div.actions { button { "Send a test through each channel" } }
                    }
                }
            }
            h2 { "What people were told of" }
            @if told.is_empty() { (empty("Nothing yet.")) } @else { (told_table(&told)) }
        },
    ))
}

fn outcomes(tried: &[Tried]) -> Markup {
    let is_good = tried.iter().all(|tried| tried.problem.is_none());
    html! {
        div class=(if is_good { "notice" } else { "notice warning" }) role="status" {
            div {
                @for tried in tried {
                    p {
                        @match &tried.problem {
                            None => { "A test message has arrived by " (tried.channel) ": " (tried.target) "." }
                            Some(problem) => { "The test by " (tried.channel) " failed: " (visible(problem)) }
                        }
                    }
                }
                @if tried.is_empty() { p { (NOBODY) } }
            }
        }
    }
}

fn channel_table(channels: &[ChannelState], now: UnixMs) -> Markup {
    table(
        "Channels",
        html! {
            thead {
                tr {
                    th scope="col" { "Channel" } th scope="col" { "State" } th.number scope="col" { "Sent" }
                    th.number scope="col" { "Waiting" } th scope="col" { "Next" } th scope="col" { "To" }
                }
            }
            tbody {
                @for channel in channels {
                    tr {
                        th scope="row" { (channel.name) }
                        td.wide { (state(channel, now)) }
                        td.number { (number(channel.sent)) }
                        td.number { (number(channel.waiting)) }
                        td.keep { @if let Some(at) = channel.next { (relative(at, now)) } }
                        td.wide { (channel.target) }
                    }
                }
            }
        },
    )
}

fn state(channel: &ChannelState, now: UnixMs) -> Markup {
    html! {
        @match (&channel.failing, channel.last_sent) {
            (Some((since, error)), _) => {
                span.badge.bad { "failing" } " since " (relative(*since, now)) ": " (visible(error))
            }
            (None, Some(at)) => { span.badge.good { "works" } " last sent " (relative(at, now)) }
            (None, None) => span.badge.calm { "not tried yet" },
        }
        @if channel.lost > 0 { div.hint { (count(channel.lost, "event")) " were given up; nobody was told of them." } }
    }
}

fn told_table(told: &[Told]) -> Markup {
    table(
        "Alerts, newest first",
        html! {
            thead {
                tr {
                    th scope="col" { "Last" } th scope="col" { "Severity" } th.number scope="col" { "Events" }
                    th scope="col" { "What happened" }
                }
            }
            tbody {
                @for told in told {
                    tr {
                        td.keep { (time(told.last_at)) }
                        td { (severity(told.severity)) }
                        td.number { (number(told.events)) }
                        td.wide { (visible(&told.what)) }
                    }
                }
            }
        },
    )
}
