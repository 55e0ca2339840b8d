//! The log: requests by filter, newest first, and what one decision was.
//! Must not show more than one page at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use portcullis_model::Location;
use portcullis_store::{LogCursor, LogFilter, LogRow, StatusFilter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::document::Api;
use super::input::{Params, Part, parsed};
use super::problem::Problem;
use super::words::{Address, DecisionId, Limit, Network, Text, Time, Verdict};
use crate::console::error::PageError;
use crate::console::running::stories::{Advice, Story, Told};
use crate::console::shared::Shared;

/// How long one look into the log may take; the answer then says how far it came.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_list, list).add(__path_show, show).add(__path_explain, explain)
}

/// A request of the log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Request {
    id: DecisionId,
    /// When it began.
    time: Time,
    ip: Address,
    method: String,
    host: String,
    path: String,
    query: String,
    /// What the client was sent; 0 when nothing could be sent.
    status: u16,
    /// Bytes of the body from the client.
    bytes_in: u64,
    /// Bytes of the body to the client.
    bytes_out: u64,
    latency_us: u64,
    user_agent: String,
    referer: String,
    protocol: String,
    /// Verified by the gateway; empty for anonymous requests.
    user: String,
    #[serde(flatten)]
    place: Place,
    verdict: Verdict,
    /// What led to the verdict, such as `block:7` or `limit:login`.
    reason: String,
    /// It was refused, or asked for a sensitive path.
    is_suspicious: bool,
}

/// Where an address is, as far as it is known.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Place {
    /// ISO 3166-1 alpha-2.
    country: Option<String>,
    city: Option<String>,
    region: Option<String>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    /// Who operates the network.
    isp: Option<String>,
    /// The number of the network.
    asn: Option<u32>,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let Location { country, city, region, latitude, longitude, isp, asn } = location;
        Self { country, city, region, latitude, longitude, isp, asn }
    }
}

impl From<LogRow> for Request {
    fn from(row: LogRow) -> Self {
        Self {
            id: DecisionId(row.id),
            time: Time(row.time()),
            ip: Address(row.client),
            method: row.method,
            host: row.host,
            path: row.path,
            query: row.query,
            status: row.status,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            latency_us: row.latency_us,
            user_agent: row.user_agent,
            referer: row.referer,
            protocol: row.protocol,
            user: row.user,
            place: row.location.into(),
            verdict: Verdict(row.verdict),
            reason: row.reason,
            is_suspicious: row.is_suspicious,
        }
    }
}

/// Which requests. Everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Of this address or prefix.
    ip: Option<Network>,
    /// In any case.
    #[param(inline)]
    method: Option<Text<64>>,
    /// In any case.
    #[param(inline)]
    host: Option<Text<255>>,
    /// The path begins with it; with `*`, which stands for any text, the whole path matches.
    #[param(inline)]
    path: Option<Text<1024>>,
    /// The query has it in it.
    #[param(inline)]
    query: Option<Text<1024>>,
    /// The user agent has it in it; letters in any case.
    #[param(inline)]
    user_agent: Option<Text<512>>,
    /// The whole name of a verified user.
    #[param(inline)]
    user: Option<Text<256>>,
    /// A status, or a class of them: `404`, `4xx`.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<String>, pattern = "^([1-5][0-9][0-9]|[1-5][xX][xX])$")]
    status: Option<Status>,
    verdict: Option<Verdict>,
    /// What the reason begins with, such as `limit:login`.
    #[param(inline)]
    reason: Option<Text<256>>,
    /// Refused, or to a sensitive path.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<bool>)]
    suspicious: Option<bool>,
    /// Two letters.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<String>, pattern = "^[A-Za-z]{2}$")]
    country: Option<Country>,
    /// The number of a network.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<i64>, minimum = 0, maximum = 4294967295_i64)]
    asn: Option<u32>,
    /// Began then or later.
    since: Option<Time>,
    /// Began before.
    until: Option<Time>,
    /// `next` of the page before.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,18}-[0-9]{1,18}$")]
    cursor: Option<LogCursor>,
    #[serde(default)]
    limit: Limit,
}

/// Those that an answer can have; what could not be answered has none.
#[derive(Debug)]
struct Status(StatusFilter);

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse()? {
            StatusFilter::Exact(status) if !(100..600).contains(&status) => {
                Err(format!("expected a status such as 404 or 4xx, got {text:?}"))
            }
            status => Ok(Self(status)),
        }
    }
}

#[derive(Debug)]
struct Country(String);

impl std::str::FromStr for Country {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("expected the two letters of a country such as DE, got {text:?}")),
        }
    }
}

impl From<Filter> for LogFilter {
    fn from(asked: Filter) -> Self {
        Self {
            network: asked.ip.map(|network| network.0),
            method: asked.method.map(|text| text.0),
            host: asked.host.map(|text| text.0),
            path: asked.path.map(|text| text.0),
            query: asked.query.map(|text| text.0),
            user_agent: asked.user_agent.map(|text| text.0),
            user: asked.user.map(|text| text.0),
            status: asked.status.map(|status| status.0),
            verdict: asked.verdict.map(|verdict| verdict.0),
            reason: asked.reason.map(|text| text.0),
            is_suspicious: asked.suspicious,
            country: asked.country.map(|country| country.0),
            asn: asked.asn,
            since: asked.since.map(|at| at.0),
            until: asked.until.map(|at| at.0),
        }
    }
}

/// A page of the log, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct RequestPage {
    items: Vec<Request>,
    /// The parameter `cursor` of the next page; none: nothing older matches.
    next: Option<String>,
    /// False when the search took too long before the page was full: `next` goes on searching.
    is_complete: bool,
    /// Nothing else that ended since then matches.
    searched_to: Option<Time>,
}

/// Requests of the log
///
/// Newest first, by the time at which they ended.
#[utoipa::path(get, path = "/requests", tag = "log", params(Filter), responses((status = 200, body = RequestPage)))]
async fn list(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<Filter>,
) -> Result<Json<RequestPage>, Problem> {
    let (before, limit) = (asked.cursor, asked.limit.get());
    let filter = LogFilter::from(asked);
    let page = shared.log(move |log| log.page(&filter, before, limit, Instant::now() + PATIENCE)).await?;
    Ok(Json(RequestPage {
        items: page.rows.into_iter().map(Request::from).collect(),
        next: page.next.map(|next| next.to_string()),
        is_complete: page.is_complete,
        searched_to: (page.searched_to.0 > i64::MIN).then_some(Time(page.searched_to)),
    }))
}

/// One request of the log
#[utoipa::path(get, path = "/requests/{id}", tag = "log", params(("id" = DecisionId, Path, description = "Its ID")),
    responses((status = 200, body = Request)))]
async fn show(
    State(shared): State<Arc<Shared>>,
    Part(id): Part<DecisionId>,
) -> Result<Json<Request>, Problem> {
    let found = shared.log(move |log| log.find(id.0)).await?;
    found.map(Request::from).map(Json).ok_or_else(|| {
        Problem::not_found(format!(
            "The log has no request {id}. It is written a moment after the request has ended, and deleted after \
             log.retention. GET /api/v1/decisions/{id} says more."
        ))
    })
}

/// What can be done about a decision.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DecisionAdvice {
    /// What it leads to.
    to: String,
    /// What to type at the server's command line.
    command: Option<String>,
}

/// Lines about one thing that the decision rests on.
#[derive(Debug, Serialize, ToSchema)]
struct DecisionEvidence {
    about: String,
    lines: Vec<String>,
}

/// A decision with all that is known about it.
#[derive(Debug, Serialize, ToSchema)]
struct Decision {
    request: Request,
    /// What became of the request, in one sentence.
    outcome: String,
    /// Which rule, in sentences.
    because: Vec<String>,
    evidence: Vec<DecisionEvidence>,
    /// The latest requests that the limit counted, newest first.
    counted: Vec<Request>,
    /// The block that refused it.
    block_id: Option<i64>,
    /// The finding that the block came of.
    finding_id: Option<i64>,
    /// How long it holds, or that it is over.
    lasts: Option<String>,
    /// How the client stands at this moment.
    now: String,
    advice: Vec<DecisionAdvice>,
}

impl From<Advice> for DecisionAdvice {
    fn from(Advice { to, command, .. }: Advice) -> Self {
        Self { to, command }
    }
}

impl From<Story> for Decision {
    fn from(story: Story) -> Self {
        let evidence = story.evidence.into_iter();
        Self {
            request: story.request.into(),
            outcome: story.outcome,
            because: story.because,
            evidence: evidence
                .map(|passage| DecisionEvidence { about: passage.heading.to_owned(), lines: passage.lines })
                .collect(),
            counted: story.counted.into_iter().map(Request::from).collect(),
            block_id: story.block,
            finding_id: story.finding,
            lasts: story.lasts,
            now: story.now,
            advice: story.advice.into_iter().map(DecisionAdvice::from).collect(),
        }
    }
}

/// A decision explained
///
/// What was asked, what became of it, which rule, what evidence, until when, and how to undo it.
#[utoipa::path(get, path = "/decisions/{id}", tag = "log", params(("id" = DecisionId, Path, description = "The ID")),
    responses((status = 200, body = Decision)))]
async fn explain(
    State(shared): State<Arc<Shared>>,
    Part(id): Part<DecisionId>,
) -> Result<Json<Decision>, Problem> {
    let told =
        shared.blocking(move |shared| shared.running.decision(id.0).map_err(PageError::Failed)).await?;
    match told {
        Told::Story(story) => Ok(Json(Decision::from(*story))),
        Told::Nowhere(why) => Err(Problem::not_found(why)),
    }
}
