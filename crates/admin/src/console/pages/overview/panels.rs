//! The panels of the overview: totals, charts, lists, the map.
//! Must not read anything: what they show is handed in.

use maud::{Markup, html};
use portcullis_model::{UnixMs, VerdictKind, bare};
use portcullis_store::{Overview, TopCount, Traffic};

use super::range::{MapOf, Range, page_address};
use super::{Lists, Shown};
use crate::console::charts::share;
use crate::console::layout;
use crate::console::map::{self, Shade};
use crate::console::pages::over_time::{self, moment};
use crate::console::pages::requests::duration;
use crate::console::words::{address, beginning, bytes, count, encoded, number, relative, short, visible};

/// Bytes of a value that are shown, and those that its link searches for: clients choose how long they are.
const SHOWN: usize = 100;
const LINKED: usize = 300;
/// Countries in the table beside the map; those that the map cannot show come in any case.
const COUNTRIES: usize = 10;

pub(super) fn totals(overview: &Overview) -> Markup {
    let totals = &overview.totals;
    let seconds = (overview.to.0 - overview.from.0).max(1_000) as f64 / 1e3;
    let since = moment(overview.from);
    let requests =
        |pairs: &[(&str, &str)]| address("/requests", &[&[("since", since.as_str())], pairs].concat());
    let figure = |words: &str, value: u64, link: String| {
        html! { a.card.total href=(link) { span.figure { (number(value)) } span.dim { (words) } } }
    };
    html! {
        div.cards {
            a.card.total href=(requests(&[])) {
                span.figure { (number(totals.requests)) }
                span.dim { "requests, " (format!("{:.1}", totals.requests as f64 / seconds)) " per second" }
            }
            (figure("blocked", totals.with_verdict(VerdictKind::Blocked), requests(&[("verdict", "blocked")])))
            (figure("limited", totals.with_verdict(VerdictKind::Limited), requests(&[("verdict", "limited")])))
            (figure("malformed", totals.with_verdict(VerdictKind::Malformed), requests(&[("verdict", "malformed")])))
            (figure("suspicious", totals.suspicious, requests(&[("suspicious", "yes")])))
            div.card.total {
                span.figure { (bytes(totals.bytes_out)) }
                span.dim { "sent, " (bytes(totals.bytes_in)) " received" }
            }
        }
    }
}

pub(super) fn over_time(overview: &Overview) -> Markup {
    let chart = over_time::chart("Requests over time", &overview.series, overview.bucket_ms, &[]);
    html! {
        section.card aria-labelledby="over-time" { h2 #over-time { "Verdicts over time" } (chart) }
    }
}

pub(super) fn statuses(totals: &Traffic) -> Markup {
    let statuses = &totals.statuses;
    let rows = [
        ("2xx", "success", statuses.success),
        ("3xx", "redirects", statuses.redirect),
        ("4xx", "client errors", statuses.client_error),
        ("5xx", "server errors", statuses.server_error),
        ("", "nothing or 1xx", statuses.other),
    ];
    let greatest = rows.iter().map(|(_, _, n)| *n).max().unwrap_or(0);
    html! {
        section.card aria-labelledby="statuses" {
            h2 #statuses { "Answers" }
            (layout::table("Answers by status", html! {
                thead.hidden { tr { th scope="col" { "Status" } th scope="col" { "Requests" } th scope="col" { "Share" } } }
                tbody {
                    @for (class, words, n) in rows {
                        tr {
                            th scope="row" {
                                @if class.is_empty() { (words) } @else {
                                    a href=(address("/requests", &[("status", class)])) { (class) } " " span.dim { (words) }
                                }
                            }
                            td.number { (number(n)) }
                            td.bar { (share(n, 0, greatest)) }
                        }
                    }
                }
            }))
        }
    }
}

pub(super) fn latency(totals: &Traffic) -> Markup {
    let rows = [("p50", "half of the requests", 0.5), ("p95", "95 of 100", 0.95), ("p99", "99 of 100", 0.99)];
    html! {
        section.card aria-labelledby="latency" {
            h2 #latency { "Time to answer" }
            dl.percentiles {
                @for (name, words, share) in rows {
                    div {
                        dt { (name) " " span.dim { (words) } }
                        dd.figure { @match totals.latencies.percentile(share) {
                            Some(us) => (duration(us)),
                            None => "–",
                        } }
                    }
                }
            }
            p.hint { "From the first byte of a request to the last of its answer, rounded up by at most a quarter." }
        }
    }
}

/// The map, with the numbers beside it.
pub(super) fn origins(shown: &Shown, countries: &[TopCount]) -> Markup {
    let counted = |count: &TopCount| match shown.map {
        MapOf::Traffic => count.requests,
        MapOf::Blocks => count.refused,
    };
    let known = || countries.iter().filter(|country| !country.key.is_empty());
    let shades = known().map(|country| Shade {
        code: &country.key,
        count: counted(country),
        text: format!("{} ({} refused)", number(country.requests), number(country.refused)),
    });
    let shades: Vec<Shade<'_>> = shades.filter(|shade| shade.count > 0).collect();
    let mut listed: Vec<&TopCount> = countries.iter().filter(|country| counted(country) > 0).collect();
    listed.sort_by_key(|country| std::cmp::Reverse(counted(country)));
    let mut place = 0;
    listed.retain(|country| {
        place += 1;
        place <= COUNTRIES || (place <= 2 * COUNTRIES && !map::is_drawn(&country.key))
    });
    html! {
        section.card aria-labelledby="origins" {
            h2 #origins { "Where from" }
            ul.tabs {
                @for of in MapOf::ALL {
                    li {
                        a href=(page_address(shown.range, of) + "#origins")
                            aria-current=[(of == shown.map).then_some("true")] { (of.counts()) }
                    }
                }
            }
            div.map-and-list {
                (map::world(&shades, shown.map.counts()))
                (country_table(shown, &listed))
            }
        }
    }
}

fn country_table(shown: &Shown, countries: &[&TopCount]) -> Markup {
    if countries.is_empty() {
        return layout::empty("None in this time. Without a geo database, countries are unknown.");
    }
    let since = shown.range.since();
    let label = |country: &TopCount| match country.key.as_str() {
        "" => html! { span.dim { "unknown" } },
        code => html! {
            a href=(address("/requests", &[("country", code), ("since", since)])) { (visible(map::name(code))) }
        },
    };
    top_table("Countries", "Country", countries.iter().copied(), label)
}

pub(super) fn tops(range: Range, overview: &Overview) -> Markup {
    let since = range.since();
    // Paths are filtered by how they begin, and user agents by a part.
    let requests = |field: &str, value: &str| {
        address("/requests", &[(field, beginning(value, LINKED)), ("since", since)])
    };
    let value = |text: &str, link: String| html! { a href=(link) { (short(text, SHOWN)) } };
    let client = |row: &TopCount| value(&row.key, format!("/clients/{}", encoded(&row.key)));
    let path = |row: &TopCount| html! { span.mono { (value(&row.key, requests("path", &row.key))) } };
    let agent = |row: &TopCount| match row.key.as_str() {
        "" => html! { span.dim { "none" } },
        agent => value(agent, requests("agent", agent)),
    };
    let network = |row: &TopCount| match row.key.strip_prefix("AS") {
        Some(rest) => value(&row.key, requests("asn", rest.split(' ').next().unwrap_or(""))),
        None => html! { span.dim { "unknown" } },
    };
    let host = |row: &TopCount| match row.key.as_str() {
        "" => html! { span.dim { "none" } },
        host => value(host, requests("host", host)),
    };
    html! {
        div.columns {
            (top("Clients", "Client", &overview.clients, client))
            (top("Paths", "Path", &overview.paths, path))
            (top("User agents", "User agent", &overview.user_agents, agent))
            (top("Networks", "Network", &overview.networks, network))
            (top("Hosts", "Host", &overview.hosts, host))
        }
    }
}

fn top(title: &str, column: &str, rows: &[TopCount], label: impl Fn(&TopCount) -> Markup) -> Markup {
    html! {
        section.card.top-list {
            h2 { (title) }
            @if rows.is_empty() { (layout::empty("None in this time.")) } @else {
                (top_table(title, column, rows.iter(), label))
            }
        }
    }
}

fn top_table<'r>(
    title: &str,
    column: &str,
    rows: impl Iterator<Item = &'r TopCount> + Clone,
    label: impl Fn(&TopCount) -> Markup,
) -> Markup {
    let greatest = rows.clone().map(|row| row.requests).max().unwrap_or(0);
    layout::table(
        title,
        html! {
            thead { tr {
                th scope="col" { (column) } th.number scope="col" { "Requests" } th.number scope="col" { "Refused" }
            } }
            tbody {
                @for row in rows {
                    tr {
                        th.key scope="row" { (label(row)) (share(row.requests, row.refused, greatest)) }
                        td.number { (number(row.requests)) }
                        td.number { (number(row.refused)) }
                    }
                }
            }
        },
    )
}

pub(super) fn blocks(lists: &Lists, now: UnixMs) -> Markup {
    html! {
        section.card aria-labelledby="blocks" {
            h2 #blocks { a href="/blocks" { (count(lists.blocks as u64, "address block")) } " in force" }
            @if lists.newest_blocks.is_empty() { (layout::empty("Nobody is blocked.")) } @else {
                ul.newest {
                    @for block in &lists.newest_blocks {
                        li {
                            a.mono href=(address("/find", &[("q", &bare(&block.network))])) { (bare(&block.network)) }
                            " " (visible(&block.reason))
                            span.dim { " " (block.source) ", " (relative(block.created_at, now)) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn findings(lists: &Lists, now: UnixMs) -> Markup {
    html! {
        section.card aria-labelledby="findings" {
            h2 #findings { a href="/findings" { "Newest findings" } }
            @if lists.findings.is_empty() { (layout::empty("The detector has found nobody.")) } @else {
                ul.newest {
                    @for stored in &lists.findings {
                        @let finding = &stored.finding;
                        @let client = finding.client.to_string();
                        li {
                            (layout::severity(finding.severity)) " "
                            a.mono href=(format!("/clients/{}", encoded(&client))) { (client) }
                            " " (visible(&finding.reason))
                            span.dim { " " (stored.status.as_str()) ", " (relative(finding.detected_at, now)) }
                        }
                    }
                }
            }
        }
    }
}
