//! What is going on: traffic, verdicts, clients, origins, health.
//! Must not decide about requests.

mod health;
mod live;
mod panels;
mod range;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use portcullis_model::{Block, UnixMs};
use portcullis_store::{FindingFilter, Overview, OverviewSpan, StoredFinding, TopCount};
use serde::Deserialize;

use crate::console::error::PageError;
use crate::console::layout::{self, Tab, page_with};
use crate::console::running::figures::Health;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;
use crate::console::words::time;

use range::{MapOf, Range};

/// Rows of each list.
const TOP: usize = 10;
/// How long the log is read for one overview; then what is oldest is missing, and the page says so.
const READ_TIME: Duration = Duration::from_secs(2);
/// Newest blocks and findings.
const NEWEST: usize = 5;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/", get(show)).route("/live", get(live::live))
}

/// The address of the page.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    range: String,
    #[serde(default)]
    map: String,
}

/// Everything that the page shows.
struct Shown {
    range: Range,
    map: MapOf,
    now: UnixMs,
    /// `None` before the first request is logged.
    traffic: Option<(Overview, Vec<TopCount>)>,
    lists: Lists,
    health: Vec<Health>,
}

/// What of the state database is shown.
struct Lists {
    blocks: usize,
    newest_blocks: Vec<Block>,
    findings: Vec<StoredFinding>,
}

async fn show(
    State(shared): State<Arc<Shared>>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, PageError> {
    let (range, map, now) = (asked.range.parse()?, asked.map.parse()?, shared.now());
    let (traffic, lists, health) =
        tokio::try_join!(traffic(&shared, range, now), lists(&shared, now), health(&shared))?;
    let shown = Shown { range, map, now, traffic, lists, health };
    Ok(page_with(&visitor, Tab::Overview, "Overview", &["overview.js"], body(&shown)))
}

async fn traffic(
    shared: &Arc<Shared>,
    range: Range,
    now: UnixMs,
) -> Result<Option<(Overview, Vec<TopCount>)>, PageError> {
    shared
        .log_if_any(move |log| {
            let deadline = Instant::now() + READ_TIME;
            let span = OverviewSpan { from: now.minus(range.length()), to: now, buckets: range.bars() };
            let overview = log.overview(span, TOP, deadline)?;
            let countries = log.by_country(span.from, span.to, deadline)?;
            Ok((overview, countries))
        })
        .await
}

async fn lists(shared: &Arc<Shared>, now: UnixMs) -> Result<Lists, PageError> {
    shared
        .state(move |state| {
            // Oldest first.
            let mut blocks = state.active_blocks(now)?;
            let all = blocks.len();
            let newest_blocks = blocks.split_off(all.saturating_sub(NEWEST)).into_iter().rev().collect();
            let findings = state.findings(&FindingFilter { limit: NEWEST, ..FindingFilter::default() })?;
            Ok(Lists { blocks: all, newest_blocks, findings })
        })
        .await
}

async fn health(shared: &Arc<Shared>) -> Result<Vec<Health>, PageError> {
    shared.blocking(|shared| Ok(shared.running.health())).await
}

fn body(shown: &Shown) -> Markup {
    html! {
        (live::panel())
        (health::attention(&shown.health))
        (range::choice(shown.range, shown.map))
        @match &shown.traffic {
            Some((overview, countries)) if overview.totals.requests > 0 => (history(shown, overview, countries)),
            Some(_) | None => (nothing(shown.range)),
        }
        div.columns { (panels::blocks(&shown.lists, shown.now)) (panels::findings(&shown.lists, shown.now)) }
        (health::parts(&shown.health))
    }
}

fn history(shown: &Shown, overview: &Overview, countries: &[TopCount]) -> Markup {
    html! {
        @if !overview.is_complete { (incomplete(overview)) }
        (panels::totals(overview))
        (panels::over_time(overview))
        div.columns { (panels::statuses(&overview.totals)) (panels::latency(&overview.totals)) }
        (panels::origins(shown, countries))
        (panels::tops(shown.range, overview))
    }
}

fn nothing(range: Range) -> Markup {
    layout::empty(&format!(
        "No request in the last {}. Send one through the gateway, and it appears here.",
        range.as_str()
    ))
}

fn incomplete(overview: &Overview) -> Markup {
    let oldest = overview.series.iter().find(|bucket| bucket.traffic.requests > 0);
    html! {
        div.notice.warning role="note" {
            p {
                "There is more in the log than could be read in time"
                @if let Some(oldest) = oldest { ": the figures begin at about " (time(oldest.start)) }
                ". A shorter range is complete."
            }
        }
    }
}
