//! The columns of the table of requests, each cell with the filter that it leads to.
//!
//! Owns what each column shows. Must not let what clients sent be anything but text.

use std::str::FromStr;

use maud::{Markup, html};
use portcullis_model::VerdictKind;
use portcullis_store::LogRow;

use super::asked::{Asked, Field};
use crate::console::map;
use crate::console::words::{beginning, bytes, encoded, short, time, visible};

/// Bytes from which on a text may be cut by its column, and is whole in a tip.
const LONG: usize = 24;
/// Bytes of a value that are shown, and those that its link searches for: clients choose how long they are. What is
/// cut is filtered by how it begins or by a part; the whole is on the page of the decision.
const SHOWN: usize = 300;
const LINKED: usize = 500;

/// A column that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Time,
    Ip,
    Country,
    Method,
    Host,
    Path,
    Status,
    Verdict,
    Reason,
    Duration,
    Received,
    Sent,
    UserAgent,
    Referer,
    User,
    City,
    Network,
    Protocol,
    Suspicious,
    Id,
}

impl Column {
    /// From left to right.
    pub(super) const ALL: [Self; 20] = [
        Self::Time,
        Self::Ip,
        Self::Country,
        Self::Method,
        Self::Host,
        Self::Path,
        Self::Status,
        Self::Verdict,
        Self::Reason,
        Self::Duration,
        Self::Received,
        Self::Sent,
        Self::UserAgent,
        Self::Referer,
        Self::User,
        Self::City,
        Self::Network,
        Self::Protocol,
        Self::Suspicious,
        Self::Id,
    ];

    /// Where nobody has chosen.
    pub(super) const USUAL: [Self; 11] = [
        Self::Time,
        Self::Ip,
        Self::Country,
        Self::Method,
        Self::Path,
        Self::Status,
        Self::Verdict,
        Self::Reason,
        Self::Duration,
        Self::UserAgent,
        Self::Id,
    ];

    /// Each once, from left to right.
    pub(super) fn in_order(chosen: &[Self]) -> Vec<Self> {
        Self::ALL.into_iter().filter(|column| chosen.contains(column)).collect()
    }

    /// In addresses.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Ip => "ip",
            Self::Country => "country",
            Self::Method => "method",
            Self::Host => "host",
            Self::Path => "path",
            Self::Status => "status",
            Self::Verdict => "verdict",
            Self::Reason => "reason",
            Self::Duration => "duration",
            Self::Received => "received",
            Self::Sent => "sent",
            Self::UserAgent => "agent",
            Self::Referer => "referer",
            Self::User => "user",
            Self::City => "city",
            Self::Network => "network",
            Self::Protocol => "protocol",
            Self::Suspicious => "suspicious",
            Self::Id => "id",
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Time => "Time",
            Self::Ip => "Client",
            Self::Country => "Country",
            Self::Method => "Method",
            Self::Host => "Host",
            Self::Path => "Path",
            Self::Status => "Status",
            Self::Verdict => "Verdict",
            Self::Reason => "Reason",
            Self::Duration => "Took",
            Self::Received => "Received",
            Self::Sent => "Sent",
            Self::UserAgent => "User agent",
            Self::Referer => "Referer",
            Self::User => "User",
            Self::City => "City",
            Self::Network => "Network",
            Self::Protocol => "Protocol",
            Self::Suspicious => "Suspicious",
            Self::Id => "Decision",
        }
    }

    /// The class of its cells.
    fn class(self) -> &'static str {
        match self {
            Self::Status | Self::Duration | Self::Received | Self::Sent => "number",
            Self::Path => "wide mono",
            Self::UserAgent | Self::Referer => "long",
            Self::Id => "keep mono",
            Self::Time
            | Self::Ip
            | Self::Country
            | Self::Method
            | Self::Verdict
            | Self::Reason
            | Self::Protocol => "keep",
            Self::Host | Self::User | Self::City | Self::Network | Self::Suspicious => "",
        }
    }

    pub(super) fn heading(self) -> Markup {
        html! { th scope="col" class=(self.class()) { (self.label()) } }
    }

    pub(super) fn cell(self, row: &LogRow, asked: &Asked) -> Markup {
        html! { td class=(self.class()) { (self.content(row, asked)) } }
    }

    fn content(self, row: &LogRow, asked: &Asked) -> Markup {
        let to = |field: Field, value: &str, shown: &str| filtered(asked, field, value, shown);
        let plain = |field: Field, value: &str| filtered(asked, field, value, value);
        match self {
            Self::Time => until(row, asked),
            Self::Ip => client(row, asked),
            Self::Country => country(row, asked),
            Self::Method => plain(Field::Method, &row.method),
            Self::Host => plain(Field::Host, &row.host),
            Self::Path => html! {
                (plain(Field::Path, &row.path))
                @if !row.query.is_empty() { span.dim { "?" (filtered(asked, Field::Query, &row.query, &row.query)) } }
            },
            Self::Status if row.status == 0 => html! { span.dim title="Nothing could be sent" { "–" } },
            Self::Status => {
                let status = row.status.to_string();
                html! { span class=(status_class(row.status)) { (to(Field::Status, &status, &status)) } }
            }
            Self::Verdict => html! {
                a.badge.(verdict_class(row.verdict))
                    href=(asked.with(Field::Verdict, row.verdict.as_str()).address("/requests", &[])) {
                    (verdict_word(row.verdict))
                }
            },
            Self::Reason => plain(Field::Reason, &row.reason),
            Self::Duration => html! { (duration(row.latency_us)) },
            Self::Received => html! { (bytes(row.bytes_in)) },
            Self::Sent => html! { (bytes(row.bytes_out)) },
            Self::UserAgent => plain(Field::UserAgent, &row.user_agent),
            Self::Referer => html! { (short(&row.referer, SHOWN)) },
            Self::User => plain(Field::User, &row.user),
            Self::City => html! { (visible(row.location.city.as_deref().unwrap_or(""))) },
            Self::Network => match row.location.asn {
                Some(asn) => {
                    let name = format!("AS{asn} {}", row.location.isp.as_deref().unwrap_or(""));
                    to(Field::Asn, &asn.to_string(), name.trim_end())
                }
                None => html! {},
            },
            Self::Protocol => html! { (visible(&row.protocol)) },
            Self::Suspicious => {
                let word = if row.is_suspicious { "yes" } else { "no" };
                to(Field::Suspicious, word, word)
            }
            Self::Id => {
                let id = row.id.to_string();
                html! { a href=(format!("/decision/{}", encoded(&id))) { (id) } }
            }
        }
    }
}

impl FromStr for Column {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|column| column.as_str() == text).ok_or(())
    }
}

/// A row of the table.
pub(super) fn row(row: &LogRow, asked: &Asked) -> Markup {
    html! { tr { @for column in &asked.columns { (column.cell(row, asked)) } } }
}

/// A value that leads to the requests that have it too.
fn filtered(asked: &Asked, field: Field, value: &str, shown: &str) -> Markup {
    if value.trim().is_empty() {
        return html! {};
    }
    let (value, shown) = (beginning(value, LINKED), short(shown, SHOWN));
    html! { a.cell href=(asked.with(field, value).address("/requests", &[])) title=[(shown.len() > LONG).then_some(&shown)] { (shown) } }
}

/// Leads to what happened up to then.
fn until(row: &LogRow, asked: &Asked) -> Markup {
    let after = portcullis_model::UnixMs(row.time().0.saturating_add(1));
    let moment = jiff::Timestamp::from_millisecond(after.0).map(|at| at.to_string()).unwrap_or_default();
    html! { a.cell href=(asked.with(Field::Until, &moment).address("/requests", &[])) { (time(row.time())) } }
}

/// Leads to the client's page, and beside it to its requests.
fn client(row: &LogRow, asked: &Asked) -> Markup {
    let ip = row.client.to_string();
    html! {
        a href=(format!("/clients/{}", encoded(&ip))) { (ip) }
        " "
        a.only href=(asked.with(Field::Ip, &ip).address("/requests", &[])) aria-label=(format!("Only {ip}")) title="Only this client" { "⊙" }
    }
}

fn country(row: &LogRow, asked: &Asked) -> Markup {
    let Some(code) = row.location.country.as_deref() else { return html! {} };
    html! { span title=(visible(map::name(code))) { (filtered(asked, Field::Country, code, code)) } }
}

pub(in crate::console) fn verdict_class(verdict: VerdictKind) -> &'static str {
    match verdict {
        VerdictKind::Admitted => "plain",
        VerdictKind::Allowed => "good",
        VerdictKind::Blocked => "bad",
        VerdictKind::Limited => "warn",
        VerdictKind::WouldBlock | VerdictKind::WouldLimit | VerdictKind::Malformed => "calm",
    }
}

/// The verdict as people read it.
pub(in crate::console) fn verdict_word(verdict: VerdictKind) -> &'static str {
    match verdict {
        VerdictKind::WouldBlock => "would block",
        VerdictKind::WouldLimit => "would limit",
        VerdictKind::Admitted
        | VerdictKind::Allowed
        | VerdictKind::Blocked
        | VerdictKind::Limited
        | VerdictKind::Malformed => verdict.as_str(),
    }
}

fn status_class(status: u16) -> &'static str {
    match status {
        500.. => "text-bad",
        400..500 => "text-warn",
        _ => "",
    }
}

/// `0.2 ms`, `35 ms`, `1.2 s`.
pub(in crate::console) fn duration(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", (us + 500) / 1_000),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}
