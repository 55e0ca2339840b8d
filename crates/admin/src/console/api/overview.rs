//! Sums over the log: traffic over time, what comes most often, totals, countries.
//! Must not sum up more than the last thirty-one days at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use portcullis_model::{UnixMs, VerdictKind};
use portcullis_store::{Bucket, OverviewSpan, StatusCounts, TopCount, Traffic as Sums};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::document::Api;
use super::input::{Params, parsed};
use super::problem::Problem;
use super::words::Time;
use crate::console::shared::Shared;

/// How long the summing up may take; the answer then says that it is not complete.
const PATIENCE: Duration = Duration::from_secs(10);
/// What an overview shows of each kind unless asked for, and at most.
const TOP: u8 = 10;
const MAX_TOP: u8 = 100;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_show, show).add(__path_countries, countries)
}

/// A span that ends now.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Range {
    #[default]
    Hour,
    Day,
    Week,
    Month,
}

impl Range {
    fn length(self) -> Duration {
        const HOUR: u64 = 3_600;
        Duration::from_secs(match self {
            Self::Hour => HOUR,
            Self::Day => 24 * HOUR,
            Self::Week => 7 * 24 * HOUR,
            Self::Month => 31 * 24 * HOUR,
        })
    }

    fn buckets(self) -> usize {
        match self {
            Self::Hour => 60,
            Self::Day => 96,
            Self::Week => 84,
            Self::Month => 124,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// The span, which ends now.
    #[serde(default)]
    #[param(inline)]
    range: Range,
    /// How many of each kind.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100)]
    top: Option<Top>,
}

#[derive(Clone, Copy, Debug)]
struct Top(usize);

impl std::str::FromStr for Top {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let top = text.parse().ok().filter(|top| (1..=MAX_TOP).contains(top));
        top.map(|top| Self(usize::from(top))).ok_or_else(|| format!("expected 1 to {MAX_TOP}, got {text:?}"))
    }
}

/// Requests by what became of them.
#[derive(Debug, Serialize, ToSchema)]
struct Verdicts {
    admitted: u64,
    allowed: u64,
    blocked: u64,
    limited: u64,
    would_block: u64,
    would_limit: u64,
    malformed: u64,
}

/// Answers by the first digit of the status.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Statuses {
    /// 1xx, or nothing could be sent.
    other: u64,
    success: u64,
    redirect: u64,
    client_error: u64,
    server_error: u64,
}

impl From<&StatusCounts> for Statuses {
    fn from(counts: &StatusCounts) -> Self {
        let StatusCounts { other, success, redirect, client_error, server_error } = *counts;
        Self { other, success, redirect, client_error, server_error }
    }
}

/// Within how many microseconds this share of the requests was answered; at most a quarter too long.
#[derive(Debug, Serialize, ToSchema)]
struct Percentiles {
    p50: Option<u64>,
    p95: Option<u64>,
    p99: Option<u64>,
}

/// Sums over requests.
#[derive(Debug, Serialize, ToSchema)]
struct Traffic {
    requests: u64,
    verdicts: Verdicts,
    statuses: Statuses,
    /// To sensitive paths, or refused.
    suspicious: u64,
    bytes_in: u64,
    bytes_out: u64,
    latency_us: Percentiles,
}

impl From<&Sums> for Traffic {
    fn from(sums: &Sums) -> Self {
        let with = |verdict| sums.with_verdict(verdict);
        Self {
            requests: sums.requests,
            verdicts: Verdicts {
                admitted: with(VerdictKind::Admitted),
                allowed: with(VerdictKind::Allowed),
                blocked: with(VerdictKind::Blocked),
                limited: with(VerdictKind::Limited),
                would_block: with(VerdictKind::WouldBlock),
                would_limit: with(VerdictKind::WouldLimit),
                malformed: with(VerdictKind::Malformed),
            },
            statuses: Statuses::from(&sums.statuses),
            suspicious: sums.suspicious,
            bytes_in: sums.bytes_in,
            bytes_out: sums.bytes_out,
            latency_us: Percentiles {
                p50: sums.latencies.percentile(0.5),
                p95: sums.latencies.percentile(0.95),
                p99: sums.latencies.percentile(0.99),
            },
        }
    }
}

/// A stretch of time and what happened in it.
#[derive(Debug, Serialize, ToSchema)]
struct Stretch {
    start: Time,
    #[serde(flatten)]
    traffic: Traffic,
}

impl From<&Bucket> for Stretch {
    fn from(bucket: &Bucket) -> Self {
        Self { start: Time(bucket.start), traffic: Traffic::from(&bucket.traffic) }
    }
}

/// How often one value came.
#[derive(Debug, Serialize, ToSchema)]
struct Count {
    /// Empty for requests without a value.
    key: String,
    requests: u64,
    /// Answered by the gateway itself: blocked, limited, malformed.
    refused: u64,
}

impl From<TopCount> for Count {
    fn from(TopCount { key, requests, refused }: TopCount) -> Self {
        Self { key, requests, refused }
    }
}

fn counts(list: Vec<TopCount>) -> Vec<Count> {
    list.into_iter().map(Count::from).collect()
}

/// Traffic over time, and what came most often.
#[derive(Debug, Serialize, ToSchema)]
struct Overview {
    from: Time,
    to: Time,
    /// How long each stretch of `series` is.
    bucket_ms: i64,
    series: Vec<Stretch>,
    totals: Traffic,
    clients: Vec<Count>,
    paths: Vec<Count>,
    countries: Vec<Count>,
    /// By the number of the network and its operator, as in `AS64496 Example`.
    networks: Vec<Count>,
    user_agents: Vec<Count>,
    hosts: Vec<Count>,
    /// False when it took too long: what is oldest is missing.
    is_complete: bool,
}

/// Traffic over time, and what came most often
#[utoipa::path(get, path = "/overview", tag = "log", params(Asked), responses((status = 200, body = Overview)))]
async fn show(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Overview>, Problem> {
    let (from, to) = span(asked.range, shared.now());
    let span = OverviewSpan { from, to, buckets: asked.range.buckets() };
    let top = asked.top.map_or(usize::from(TOP), |top| top.0);
    let overview = shared.log(move |log| log.overview(span, top, Instant::now() + PATIENCE)).await?;
    Ok(Json(Overview {
        from: Time(overview.from),
        to: Time(overview.to),
        bucket_ms: overview.bucket_ms,
        series: overview.series.iter().map(Stretch::from).collect(),
        totals: Traffic::from(&overview.totals),
        clients: counts(overview.clients),
        paths: counts(overview.paths),
        countries: counts(overview.countries),
        networks: counts(overview.networks),
        user_agents: counts(overview.user_agents),
        hosts: counts(overview.hosts),
        is_complete: overview.is_complete,
    }))
}

fn span(range: Range, now: UnixMs) -> (UnixMs, UnixMs) {
    (now.minus(range.length()), now.plus(Duration::from_millis(1)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CountriesAsked {
    /// The span, which ends now.
    #[serde(default)]
    #[param(inline)]
    range: Range,
}

/// Requests by country; there are some 250.
#[derive(Debug, Serialize, ToSchema)]
struct Countries {
    items: Vec<Count>,
}

/// Requests by country
///
/// The empty key stands for addresses of which no country is known.
#[utoipa::path(get, path = "/overview/countries", tag = "log", params(CountriesAsked),
    responses((status = 200, body = Countries)))]
async fn countries(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<CountriesAsked>,
) -> Result<Json<Countries>, Problem> {
    let (from, to) = span(asked.range, shared.now());
    let found = shared.log(move |log| log.by_country(from, to, Instant::now() + PATIENCE)).await?;
    Ok(Json(Countries { items: counts(found) }))
}
