//! The tables of blocks and allows, a page at a time.
//! Must not change anything.

use std::sync::Arc;

use ipnet::IpNet;
use maud::{Markup, html};
use portcullis_model::{Allow, BlockSource, Party, UnixMs, bare};
use portcullis_store::{Listing, Standing, State, StoreError, StoredBlock, StoredPartyBlock};

use super::{Asked, Which};
use crate::console::error::PageError;
use crate::console::layout::{empty, form_token, table as framed};
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::{address, encoded, relative, time, visible};

/// Rows of one page.
const ROWS: usize = 50;

/// A page of a list.
pub(super) struct Page {
    rows: Vec<Line>,
    /// The number to go on below.
    next: Option<i64>,
}

/// A block or an allow, as a row.
struct Line {
    id: i64,
    whom: Whom,
    reason: String,
    source: BlockSource,
    /// The person who added it, if one did.
    by: Option<String>,
    since: UnixMs,
    expires_at: Option<UnixMs>,
    finding: Option<i64>,
    ended: Option<(UnixMs, String)>,
}

enum Whom {
    Network(IpNet),
    Party(Party),
}

impl From<StoredBlock> for Line {
    fn from(StoredBlock { block, removed_at, removed_by }: StoredBlock) -> Self {
        Self {
            id: block.id,
            whom: Whom::Network(block.network),
            reason: block.reason,
            source: block.source,
            by: None,
            since: block.created_at,
            expires_at: block.expires_at,
            finding: block.finding_id,
            ended: removed_at.map(|at| (at, removed_by.unwrap_or_default())),
        }
    }
}

impl From<StoredPartyBlock> for Line {
    fn from(StoredPartyBlock { block, removed_at, removed_by }: StoredPartyBlock) -> Self {
        Self {
            id: block.id,
            whom: Whom::Party(block.party),
            reason: block.reason,
            source: block.source,
            by: None,
            since: block.created_at,
            expires_at: block.expires_at,
            finding: block.finding_id,
            ended: removed_at.map(|at| (at, removed_by.unwrap_or_default())),
        }
    }
}

impl From<Allow> for Line {
    fn from(allow: Allow) -> Self {
        Self {
            id: allow.id,
            whom: Whom::Network(allow.network),
            reason: allow.reason,
            source: allow.source,
            by: None,
            since: allow.created_at,
            expires_at: None,
            finding: None,
            ended: None,
        }
    }
}

impl Whom {
    fn name(&self) -> String {
        match self {
            Self::Network(network) => bare(network),
            Self::Party(party) => party.to_string(),
        }
    }

    /// As the audit trail names it.
    fn subject(&self) -> String {
        match self {
            Self::Network(network) => network.to_string(),
            Self::Party(party) => party.to_string(),
        }
    }

    /// Where there is more about it.
    fn link(&self) -> String {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                format!("/clients/{}", encoded(&network.addr().to_string()))
            }
            Self::Network(network) | Self::Party(Party::Anonymous { network, .. }) => {
                address("/requests", &[("ip", &network.to_string())])
            }
            Self::Party(Party::User(user)) => address("/requests", &[("user", user)]),
        }
    }
}

pub(super) async fn read(
    shared: &Arc<Shared>,
    which: Which,
    asked: &Asked,
) -> Result<(Page, Standing), PageError> {
    let listing = Listing {
        text: asked.q.clone(),
        source: asked.source()?,
        has_ended: which == Which::Ended,
        before: asked.before()?,
        // One more, to know whether there are more.
        limit: ROWS + 1,
    };
    let now = shared.now();
    shared
        .state(move |state| {
            let mut rows = lines(state, which, &listing, now)?;
            let next = (rows.len() > ROWS).then(|| rows[ROWS - 1].id);
            rows.truncate(ROWS);
            for line in &mut rows {
                line.by = author(state, which, line)?;
            }
            Ok((Page { rows, next }, state.standing(now)?))
        })
        .await
}

fn lines(state: &State, which: Which, listing: &Listing, now: UnixMs) -> Result<Vec<Line>, StoreError> {
    let networks = || -> Result<Vec<Line>, StoreError> {
        Ok(state.list_blocks(listing, now)?.into_iter().map(Line::from).collect())
    };
    let parties = || -> Result<Vec<Line>, StoreError> {
        Ok(state.list_party_blocks(listing, now)?.into_iter().map(Line::from).collect())
    };
    match which {
        Which::Blocks => networks(),
        Which::Users => parties(),
        Which::Allows => Ok(state.list_allows(listing)?.into_iter().map(Line::from).collect()),
        Which::Ended => {
            let mut all = networks()?;
            all.extend(parties()?);
            all.sort_unstable_by_key(|line| std::cmp::Reverse(line.id));
            all.truncate(listing.limit);
            Ok(all)
        }
    }
}

/// Who added it, where that was a person.
fn author(state: &State, which: Which, line: &Line) -> Result<Option<String>, StoreError> {
    let action = match which {
        Which::Allows => "allow",
        Which::Blocks | Which::Users | Which::Ended => "block",
    };
    match line.source {
        BlockSource::Cli | BlockSource::Console | BlockSource::Import => {
            let actor = state.author(action, &line.whom.subject(), line.since)?;
            Ok(actor.and_then(|actor| actor.split_once(':').map(|(_, name)| name.to_owned())))
        }
        BlockSource::Config | BlockSource::Detector => Ok(None),
    }
}

/// Where a block or an allow came from, in a word or two.
pub(in crate::console::pages) fn source_in_words(source: BlockSource) -> &'static str {
    match source {
        BlockSource::Cli => "command line",
        BlockSource::Console => "console",
        BlockSource::Config => "configuration",
        BlockSource::Detector => "detector",
        BlockSource::Import => "import",
    }
}

/// What is done to the rows of a list.
struct Deed {
    path: &'static str,
    one: &'static str,
    many: &'static str,
}

fn deed(which: Which) -> Option<Deed> {
    match which {
        Which::Blocks | Which::Users => {
            Some(Deed { path: "/blocks/lift", one: "Lift", many: "Lift what is ticked" })
        }
        Which::Allows => {
            Some(Deed { path: "/allows/remove", one: "Take back", many: "Take back what is ticked" })
        }
        Which::Ended => None,
    }
}

pub(super) fn table(visitor: &Visitor, which: Which, page: &Page, asked: &Asked, now: UnixMs) -> Markup {
    if page.rows.is_empty() {
        return nothing(which, asked);
    }
    let deed = deed(which).filter(|_| visitor.is_operator());
    let rows = html! {
        thead { tr {
            @if deed.is_some() {
                th scope="col" {
                    input.scripted type="checkbox" data-select-all="id" aria-label="Tick all rows";
                    span.hidden { "Ticked" }
                }
            }
            th scope="col" { "Whom" }
            @if which != Which::Allows { th scope="col" { @if which == Which::Ended { "Ended" } @else { "Until" } } }
            th scope="col" { "Reason" }
            th scope="col" { "From" }
            th scope="col" { "Since" }
            @if deed.is_some() { th scope="col" { span.hidden { "Actions" } } }
        } }
        tbody { @for line in &page.rows { (row(line, which, deed.as_ref(), now)) } }
    };
    let back = asked.address(which, &asked.before);
    html! {
        @match &deed {
            Some(deed) => form action=(deed.path) method="post" {
                (form_token(visitor))
                input type="hidden" name="back" value=(back);
                (framed(which.label(), rows))
                div.actions { button.quiet { (deed.many) } }
            },
            None => (framed(which.label(), rows)),
        }
        nav.pager aria-label="Pages of the list" {
            @if !asked.before.is_empty() { a.button.quiet href=(asked.address(which, "")) { "Back to the newest" } }
            @if let Some(next) = page.next {
                a.button.quiet rel="next" href=(asked.address(which, &next.to_string())) { "Older" }
            }
        }
    }
}

fn nothing(which: Which, asked: &Asked) -> Markup {
    if !asked.q.is_empty() || !asked.source.is_empty() || !asked.before.is_empty() {
        return empty("Nothing matches. Search for less, or for something else.");
    }
    empty(match which {
        Which::Blocks => "Nobody is blocked by address.",
        Which::Users => "No user is blocked, and no anonymous clients of a shared address are.",
        Which::Allows => "Nothing is allowed: blocks and limits hold for everybody.",
        Which::Ended => "No block has ended in the last 90 days.",
    })
}

fn row(line: &Line, which: Which, deed: Option<&Deed>, now: UnixMs) -> Markup {
    let name = line.whom.name();
    html! {
        tr {
            @if deed.is_some() {
                td { input type="checkbox" name="id" value=(line.id) aria-label=(format!("Tick {name}")); }
            }
            th.keep.mono scope="row" { a href=(line.whom.link()) { (visible(&name)) } }
            @if which != Which::Allows { td.keep { (end(line, now)) } }
            td.wide {
                (visible(&line.reason))
                @if let Some(finding) = line.finding { " " a href=(format!("/findings/{finding}")) { "finding " (finding) } }
            }
            td {
                (source_in_words(line.source))
                @if let Some(by) = &line.by { div.dim { (visible(by)) } }
            }
            td.keep { (relative(line.since, now)) }
            @if let Some(deed) = deed {
                td { button.quiet name="only" value=(line.id) aria-label=(format!("{} {name}", deed.one)) { (deed.one) } }
            }
        }
    }
}

fn end(line: &Line, now: UnixMs) -> Markup {
    html! {
        @match (&line.ended, line.expires_at) {
            (Some((at, by)), _) => {
                @match by.as_str() {
                    "replaced" => "replaced ",
                    "expired" | "" => "ran out ",
                    by => { "lifted by " (visible(by)) " " }
                }
                (relative(*at, now))
            }
            (None, Some(at)) if at <= now => { "ran out " (relative(at, now)) }
            (None, Some(at)) => { (time(at)) div.dim { (relative(at, now)) } }
            (None, None) => "without end",
        }
    }
}

/// What can be done with all of them.
pub(super) fn more(asked: &Asked, visitor: &Visitor) -> Markup {
    let export = |format| address("/blocks/export", &[("format", format), ("source", &asked.source)]);
    html! {
        p.actions {
            @if visitor.is_operator() { a.button.quiet href="/blocks/import" { "Import many" } }
            "Export what is in force:"
            @for (format, name) in [("csv", "CSV"), ("plain", "plain text"), ("json", "JSON"), ("nginx", "nginx")] {
                a.button.quiet href=(export(format)) download { (name) }
            }
        }
        p.dim { "The networks of feeds are not in the list; " code { "portcullis feeds" } " shows them." }
    }
}
