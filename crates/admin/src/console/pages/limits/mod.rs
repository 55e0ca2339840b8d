//! The limits, what they count and refuse, and what others would have refused.
//! Must not decide about requests.

mod what_if;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use maud::{Markup, html};
use portcullis_model::{ClientIp, UnixMs, VerdictKind};
use portcullis_store::LimitTotal;

use crate::console::error::PageError;
use crate::console::layout::{Tab, empty, page_with, table, warning};
use crate::console::running::limits::{Busy, LimitNow, LimitsNow};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{address, bytes, encoded, number, relative};

const HERE: &str = "/limits";
/// Clients and paths that are listed.
const TOP: usize = 15;
const SPANS: [(&str, Duration); 3] = [
    ("1 h", Duration::from_secs(3_600)),
    ("24 h", Duration::from_secs(86_400)),
    ("7 d", Duration::from_secs(7 * 86_400)),
];

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route(HERE, get(show))
        .route("/limits/what-if", post(what_if::ask))
        .route("/limits/what-if/cancel", post(what_if::cancel))
}

/// What limits have refused.
struct Events {
    /// By [`SPANS`].
    totals: Vec<Vec<LimitTotal>>,
    /// Of the longest span.
    clients: Vec<(ClientIp, u64)>,
    endpoints: Vec<(String, String, u64)>,
}

async fn show(visitor: Visitor, State(shared): State<Arc<Shared>>) -> Result<Html<String>, PageError> {
    limits(&visitor, &shared, None).await
}

/// The page; `attempt` is a question that was no good.
async fn limits(
    visitor: &Visitor,
    shared: &Arc<Shared>,
    attempt: Option<&what_if::Attempt>,
) -> Result<Html<String>, PageError> {
    let now = shared.now();
    let (limits, asked) = shared
        .blocking(|shared| {
            let limits = shared.running.limits().map_err(PageError::Failed)?;
            Ok((limits, shared.running.what_if().map_err(PageError::Failed)?))
        })
        .await?;
    let events = shared
        .state(move |state| {
            let totals: Result<_, _> =
                SPANS.iter().map(|(_, span)| state.limit_totals(now.minus(*span))).collect();
            let since = SPANS.iter().map(|(_, span)| now.minus(*span)).min().unwrap_or(now);
            Ok(Events {
                totals: totals?,
                clients: state.limited_clients(since, TOP)?,
                endpoints: state.limited_endpoints(since, TOP)?,
            })
        })
        .await?;
    Ok(page_with(
        visitor,
        Tab::Limits,
        "Limits",
        &["refresh.js"],
        html! {
            @if limits.is_dry_run { (warning("The gateway is in dry-run: it refuses nobody.")) }
            (cards(&limits))
            @if limits.rules.is_empty() {
                (empty("No limits. A [[limit]] in the configuration adds one."))
            } @else {
                (rule_table(&limits.rules, &events, now))
                (what_if::section(visitor, &limits.rules, asked.as_ref(), attempt, now))
                (busiest(&limits.rules))
                (refused(&events))
            }
        },
    ))
}

fn cards(limits: &LimitsNow) -> Markup {
    let full = limits.rules.iter().flat_map(|rule| &rule.busiest).filter(|busy| busy.is_full()).count();
    html! {
        div.cards {
            div.card { div.figure { (number(limits.windows)) } div.dim { "windows are counted in now" } }
            div.card { div.figure { (number(full as u64)) } div.dim { "of the latest clients' windows are full" } }
            div.card { div.figure { (bytes(limits.bytes)) } div.dim { "of memory, at most 64 MiB" } }
            div.card { div.figure { (number(limits.evictions)) } div.dim { "windows were given up early" } }
        }
    }
}

fn rule_table(rules: &[LimitNow], events: &Events, now: UnixMs) -> Markup {
    table(
        "Limits and what they refused",
        html! {
            thead {
                tr {
                    th scope="col" { "Limit" } th scope="col" { "Allowance" } th scope="col" { "Applies to" }
                    @for (name, _) in SPANS { th.number scope="col" { "Refused, " (name) } }
                    th scope="col" { "Last" }
                }
            }
            tbody {
                @for rule in rules {
                    tr {
                        th scope="row" {
                            (rule.name)
                            @if rule.is_dry_run { " " span.badge.warn { "dry-run" } }
                        }
                        td.keep { (rule.allowance) " per " (rule.per) }
                        td.wide {
                            (rule.meant)
                            @if let Some(shared) = &rule.shared { div.hint { (shared) } }
                        }
                        @for totals in &events.totals { td.number { (refusals(totals, &rule.name)) } }
                        td.keep { (last(&events.totals, &rule.name, now)) }
                    }
                }
            }
        },
    )
}

/// Those that were refused, and in parentheses those of a dry run.
fn refusals(totals: &[LimitTotal], rule: &str) -> String {
    let of = |is_dry_run: bool| -> u64 {
        let own = totals.iter().filter(|total| total.rule == rule);
        own.filter(|total| (total.action == VerdictKind::WouldLimit) == is_dry_run)
            .map(|total| total.count)
            .sum()
    };
    match (of(false), of(true)) {
        (refused, 0) => number(refused),
        (refused, would) => format!("{} (dry-run: {})", number(refused), number(would)),
    }
}

fn last(totals: &[Vec<LimitTotal>], rule: &str, now: UnixMs) -> Markup {
    let own = totals.iter().flatten().filter(|total| total.rule == rule);
    match own.map(|total| total.last).max() {
        Some(at) => html! { (relative(at, now)) },
        None => html! { "never" },
    }
}

fn busiest(rules: &[LimitNow]) -> Markup {
    let busy: Vec<(&LimitNow, &Busy)> =
        rules.iter().flat_map(|rule| rule.busiest.iter().map(move |busy| (rule, busy))).collect();
    html! {
        h2 { "Who is near a limit" }
        p.dim { "Among the clients of the latest requests; limits by address or network." }
        @if busy.is_empty() { (empty("Nobody has used anything of a limit lately.")) } @else {
            (table("Clients and how much of a limit they have used", html! {
                thead {
                    tr {
                        th scope="col" { "Client" } th scope="col" { "Limit" } th scope="col" { "Window" }
                        th.number scope="col" { "Used" } th scope="col" { "Share" }
                    }
                }
                tbody {
                    @for (rule, busy) in busy {
                        tr {
                            td.keep { (client(busy.client)) }
                            td.keep { (rule.name) }
                            td.keep { (busy.window) }
                            td.number { (number(busy.used.into())) " of " (number(busy.most.into())) }
                            td {
                                meter min="0" max=(busy.most) value=(busy.used) aria-label=(format!("{} of {}", busy.used, busy.most)) {}
                                @if busy.is_full() { " " span.badge.bad { "full" } }
                            }
                        }
                    }
                }
            }))
        }
    }
}

fn client(client: ClientIp) -> Markup {
    let text = client.to_string();
    html! { a href=(format!("/clients/{}", encoded(&text))) { (text) } }
}

fn refused(events: &Events) -> Markup {
    html! {
        div.columns {
            section aria-labelledby="refused-clients" {
                h2 #refused-clients { "Refused most, 7 d" }
                @if events.clients.is_empty() { (empty("Nobody.")) } @else {
                    (table("Clients that limits refused most", html! {
                        thead { tr { th scope="col" { "Client" } th.number scope="col" { "Requests" } } }
                        tbody {
                            @for (ip, count) in &events.clients {
                                tr { td.keep { (client(*ip)) } td.number { (number(*count)) } }
                            }
                        }
                    }))
                }
            }
            section aria-labelledby="refused-paths" {
                h2 #refused-paths { "Where, 7 d" }
                @if events.endpoints.is_empty() { (empty("Nowhere.")) } @else {
                    (table("Paths where limits refused most", html! {
                        thead {
                            tr { th scope="col" { "Path" } th scope="col" { "Limit" } th.number scope="col" { "Requests" } }
                        }
                        tbody {
                            @for (rule, path, count) in &events.endpoints {
                                tr {
                                    td.wide.mono { a href=(address("/requests", &[("path", path)])) { (path) } }
                                    td { (rule) }
                                    td.number { (number(*count)) }
                                }
                            }
                        }
                    }))
                }
            }
        }
    }
}
