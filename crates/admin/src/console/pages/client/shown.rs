//! What is known about a client, as it is shown.
//! Must not read anything, nor offer to change it.

use std::collections::BTreeMap;

use maud::{Markup, html};
use portcullis_model::{ClientIp, Location, UnixMs, VerdictKind, bare};
use portcullis_store::{ClientReport, LogRow, SimilarClient};

use super::path;
use super::read::{Known, Logged, Range};
use crate::console::charts::share;
use crate::console::layout::{empty, table, verdict};
use crate::console::pages::{findings, over_time};
use crate::console::words::{address, bytes, count, number, time, visible};

pub(super) fn standing(known: &Known) -> Markup {
    let Known { client, log, standing, state, .. } = known;
    let badge = match (state.allows.first(), state.blocks.first(), &state.block_of_anonymous) {
        (Some(_), _, _) => html! { span.badge.good { "allowed" } },
        (None, Some(_), _) => html! { span.badge.bad { "blocked" } },
        (None, None, Some(_)) => html! { span.badge.warn { "partly blocked" } },
        (None, None, None) if !standing.feeds.is_empty() => html! { span.badge.bad { "on a feed" } },
        (None, None, None) => html! { span.badge.calm { "let in" } },
    };
    html! {
        p { (badge) " " (visible(&sentence(&standing.now))) }
        dl.facts {
            @if let Some(log) = log { (facts(*client, log)) }
            @for bot in &standing.bots { dt { "Bot" } dd { (visible(bot)) } }
            @for silent in &standing.silent { dt { "Never again" } dd { (visible(silent)) } }
            @for feed in &standing.feeds { dt { "Feed" } dd { (visible(feed)) } }
        }
    }
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    let whole: String = first.into_iter().flatten().chain(letters).collect();
    if whole.ends_with('.') { whole } else { format!("{whole}.") }
}

fn facts(client: ClientIp, log: &Logged) -> Markup {
    let report = &log.report;
    html! {
        @if !report.location.is_unknown() { dt { "From" } dd { (place(&report.location)) } }
        @if let (Some(first), Some(last)) = (report.first_seen, report.last_seen) {
            dt { "Seen" } dd { (time(first)) " to " (time(last)) }
        }
        @if !report.users.is_empty() {
            dt { "Users" }
            dd {
                @for (n, (user, requests)) in report.users.iter().enumerate() {
                    @if n > 0 { ", " }
                    a href=(address("/requests", &[("user", user)])) { (visible(user)) }
                    " (" (number(*requests)) ")"
                }
            }
        }
        @if let Some((requests, has_more)) = log.subnet {
            @let network = bare(&client.limit_network());
            dt { "Its /64" }
            dd {
                a.mono href=(address("/requests", &[("ip", &network)])) { (network) }
                ", " @if has_more { "more than " } (count(requests, "request")) " in this time"
            }
        }
    }
}

fn place(location: &Location) -> Markup {
    let parts = [location.city.as_ref(), location.region.as_ref()];
    html! {
        @for part in parts.into_iter().flatten() { (visible(part)) ", " }
        @if let Some(country) = &location.country {
            a href=(address("/requests", &[("country", country)])) { (visible(country)) } " "
        }
        @if let Some(asn) = location.asn {
            a href=(address("/requests", &[("asn", &asn.to_string())])) { "AS" (asn) } " "
        }
        @if let Some(isp) = &location.isp { (visible(isp)) }
    }
}

pub(super) fn activity(known: &Known) -> Markup {
    let ip = known.client.to_string();
    html! {
        section.card aria-labelledby="activity" {
            h2 #activity { "Activity in " (known.range.in_words()) }
            nav aria-label="How far back" {
                ul.tabs {
                    @for range in Range::ALL {
                        li {
                            a href=(format!("{}?range={}", path(known.client), range.as_str()))
                                aria-current=[(range == known.range).then_some("page")] { (range.as_str()) }
                        }
                    }
                }
            }
            @match &known.log {
                Some(log) if log.report.requests > 0 => {
                    (over_time::chart("Requests over time", &log.series, bucket_ms(log), &[("ip", &ip)]))
                    (totals(&log.report))
                }
                Some(_) | None => (empty("No request in this time.")),
            }
        }
        @if let Some(log) = known.log.as_ref().filter(|log| log.report.requests > 0) { (lists(&log.report, &ip)) }
    }
}

fn bucket_ms(log: &Logged) -> i64 {
    match log.series.as_slice() {
        [first, second, ..] => second.start.0 - first.start.0,
        [_] | [] => 3_600_000,
    }
}

fn totals(report: &ClientReport) -> Markup {
    let statuses = &report.statuses;
    let classes = [
        ("2xx", statuses.success),
        ("3xx", statuses.redirect),
        ("4xx", statuses.client_error),
        ("5xx", statuses.server_error),
        ("other", statuses.other),
    ];
    html! {
        dl.facts {
            dt { "Requests" }
            dd { (number(report.requests)) ", " (bytes(report.bytes_in)) " received, " (bytes(report.bytes_out)) " sent" }
            dt { "Verdicts" }
            dd {
                @for (name, requests) in &report.verdicts {
                    @if let Ok(of) = name.parse::<VerdictKind>() { (verdict(of)) } " " (number(*requests)) " "
                }
            }
            dt { "Statuses" }
            dd { @for (class, requests) in classes { @if requests > 0 { (class) " " (number(requests)) " " } } }
            dt { "Methods" }
            dd { @for (method, requests) in &report.methods { (visible(method)) " " (number(*requests)) " " } }
            dt { "Error rate" }
            dd {
                (format!("{:.0} %", report.error_rate * 100.0)) " of the " (number(report.answered))
                " that the site answered"
            }
            dt { "Paths" } dd { (number(report.distinct_paths)) " different" }
            @if report.sensitive.count > 0 {
                dt { "Sensitive" }
                dd {
                    (count(report.sensitive.count, "request")) ": "
                    @for path in &report.sensitive.samples { span.mono { (visible(path)) } " " }
                }
            }
        }
    }
}

fn lists(report: &ClientReport, ip: &str) -> Markup {
    html! {
        div.columns {
            (top("paths", "Most requested", &report.top_paths, "path", ip))
            (top("agents", "User agents", &report.user_agents, "user_agent", ip))
        }
    }
}

fn top(id: &str, heading: &str, list: &[(String, u64)], filter: &str, ip: &str) -> Markup {
    let greatest = list.iter().map(|(_, requests)| *requests).max().unwrap_or(0);
    let rows = html! {
        thead { tr { th scope="col" { "What" } th.number scope="col" { "Requests" } } }
        tbody {
            @for (text, requests) in list {
                tr {
                    th.key scope="row" {
                        @if text.is_empty() { span.dim { "(none)" } } @else {
                            a.mono href=(address("/requests", &[("ip", ip), (filter, text)])) { (visible(text)) }
                        }
                        (share(*requests, 0, greatest))
                    }
                    td.number { (number(*requests)) }
                }
            }
        }
    };
    html! { section.card aria-labelledby=(id) { h2 #(id) { (heading) } (table(heading, rows)) } }
}

pub(super) fn findings(known: &Known, now: UnixMs) -> Markup {
    html! {
        h2 { "Findings" }
        @if known.state.findings.is_empty() { (empty("The detector found nothing about it in 30 days.")) } @else {
            (findings::rows(&known.state.findings, false, now))
        }
    }
}

/// How a client met one limit.
#[derive(Default)]
struct Met<'a> {
    requests: u64,
    last: i64,
    endpoints: Vec<&'a str>,
}

pub(super) fn limits(known: &Known) -> Markup {
    let mut rules: BTreeMap<(&str, &str), Met<'_>> = BTreeMap::new();
    for event in &known.state.limit_events {
        let met = rules.entry((&event.rule, event.action.as_str())).or_default();
        met.requests += event.count;
        met.last = met.last.max(event.minute.0);
        if !met.endpoints.contains(&event.endpoint.as_str()) {
            met.endpoints.push(&event.endpoint);
        }
    }
    let rows = html! {
        thead { tr {
            th scope="col" { "Limit" }
            th scope="col" { "Verdict" }
            th.number scope="col" { "Over it" }
            th scope="col" { "At" }
            th scope="col" { "Last" }
        } }
        tbody {
            @for ((rule, action), met) in &rules {
                tr {
                    th scope="row" { (visible(rule)) }
                    td { @if let Ok(of) = action.parse::<VerdictKind>() { (verdict(of)) } }
                    td.number { (number(met.requests)) }
                    td.wide.mono {
                        (visible(met.endpoints.first().copied().unwrap_or("*")))
                        @if met.endpoints.len() > 1 { " and " (count(met.endpoints.len() as u64 - 1, "other path")) }
                    }
                    td.keep { (time(UnixMs(met.last))) }
                }
            }
        }
    };
    html! { @if !rules.is_empty() { h2 { "Limits that it met" } (table("Limits that it met", rows)) } }
}

pub(super) fn newest(known: &Known) -> Markup {
    let Some(log) = known.log.as_ref().filter(|log| !log.newest.is_empty()) else { return html! {} };
    let rows = html! {
        thead { tr {
            th scope="col" { "When" }
            th scope="col" { "Request" }
            th.number scope="col" { "Status" }
            th scope="col" { "Verdict" }
        } }
        tbody { @for row in &log.newest { (request(row)) } }
    };
    let all = address("/requests", &[("ip", &known.client.to_string())]);
    html! {
        h2 { "Newest requests" }
        (table("Newest requests", rows))
        p { a href=(all) { "All its requests" } }
    }
}

fn request(row: &LogRow) -> Markup {
    html! {
        tr {
            th.keep scope="row" { a href=(format!("/decision/{}", row.id)) { (time(row.time())) } }
            td.wide.mono {
                (visible(&row.method)) " " (visible(&row.path))
                @if !row.query.is_empty() { "?" (visible(&row.query)) }
            }
            td.number { (row.status) }
            td.keep { (verdict(row.verdict)) @if !row.reason.is_empty() { div.dim { (visible(&row.reason)) } } }
        }
    }
}

pub(super) fn similar(known: &Known) -> Markup {
    let Some(similar) = known.log.as_ref().map(|log| &log.similar) else { return html! {} };
    let near = if known.client.ip().is_ipv4() { "Of the same /24" } else { "Of the same /48" };
    let kinds = [
        ("near", near, &similar.network),
        ("as", "Of the same network (ASN)", &similar.asn),
        ("like", "With the same user agent", &similar.user_agent),
    ];
    html! {
        @if kinds.iter().any(|(_, _, clients)| !clients.is_empty()) {
            h2 { "Similar clients" }
            @if !similar.is_complete { p.dim { "Only the newest requests were compared." } }
            div.columns {
                @for (id, heading, clients) in kinds {
                    @if !clients.is_empty() { (alike(id, heading, clients)) }
                }
            }
        }
    }
}

fn alike(id: &str, heading: &str, clients: &[SimilarClient]) -> Markup {
    let rows = html! {
        thead { tr {
            th scope="col" { "Client" }
            th.number scope="col" { "Requests" }
            th.number scope="col" { "Refused" }
        } }
        tbody {
            @for one in clients {
                tr {
                    th.mono scope="row" { a href=(path(one.client)) { (one.client.to_string()) } }
                    td.number { (number(one.requests)) }
                    td.number { (number(one.refused)) }
                }
            }
        }
    };
    html! { section.card aria-labelledby=(id) { h3 #(id) { (heading) } (table(heading, rows)) } }
}
