//! One client: what it did, and how it stands.
//! Must not judge: findings are the detector's.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use portcullis_detect::is_sensitive;
use portcullis_store::ClientReport;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::caller::Caller;
use super::document::Api;
use super::entries::{Allow, Block, Finding, UserBlock};
use super::input::{Params, Part, parsed};
use super::overview::Statuses;
use super::problem::{Kind, Problem};
use super::requests::Place;
use super::words::{Address, Time};
use crate::console::data_export::data_export;
use crate::console::error::PageError;
use crate::console::running::clients::{ClientStanding, Erased};
use crate::console::shared::Shared;

/// How far back the report looks unless asked, and at most: a year.
const HOURS: u32 = 24;
const MAX_HOURS: u32 = 8_784;
/// The newest findings that are shown with a client.
const MAX_FINDINGS: usize = 100;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_show, show).add(__path_data, data).add(__path_erase, erase)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// How far back to look.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 8784)]
    hours: Option<Hours>,
}

#[derive(Clone, Copy, Debug)]
struct Hours(u32);

impl std::str::FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hours = text.parse().ok().filter(|hours| (1..=MAX_HOURS).contains(hours));
        hours.map(Self).ok_or_else(|| format!("expected 1 to {MAX_HOURS}, got {text:?}"))
    }
}

/// Requests to sensitive paths.
#[derive(Debug, Serialize, ToSchema)]
struct Sensitive {
    count: u64,
    /// The first ten different paths.
    samples: Vec<String>,
}

/// Requests with one verdict.
#[derive(Debug, Serialize, ToSchema)]
struct VerdictCount {
    verdict: &'static str,
    requests: u64,
}

/// Requests within one hour.
#[derive(Debug, Serialize, ToSchema)]
struct HourCount {
    time: Time,
    requests: u64,
}

/// Requests for one path.
#[derive(Debug, Serialize, ToSchema)]
struct PathCount {
    path: String,
    requests: u64,
}

/// Requests with one user agent.
#[derive(Debug, Serialize, ToSchema)]
struct UserAgentCount {
    user_agent: String,
    requests: u64,
}

/// How a client stands at this moment.
#[derive(Debug, Serialize, ToSchema)]
struct Standing {
    /// Whether it is let in, in a sentence.
    now: String,
    /// Feeds that list it.
    feeds: Vec<String>,
    /// Rules that are silent about it, because a person has said so.
    silent: Vec<String>,
    /// Crawlers that it has named itself as, and whether it is them.
    bots: Vec<String>,
    /// Those that contain the address, the most specific first.
    allows: Vec<Allow>,
    blocks: Vec<Block>,
    /// That of whoever comes from there without being verified.
    of_anonymous: Option<UserBlock>,
    /// Of IPv6 about its /64; the newest first.
    findings: Vec<Finding>,
}

/// What one client did, and how it stands.
#[derive(Debug, Serialize, ToSchema)]
struct Client {
    client: Address,
    since: Time,
    until: Time,
    requests: u64,
    /// All but those that the gateway refused.
    answered: u64,
    /// The site's own 4xx over `answered`.
    error_rate: f64,
    client_errors: u64,
    server_errors: u64,
    bytes_in: u64,
    bytes_out: u64,
    distinct_paths: u64,
    sensitive: Sensitive,
    verdicts: Vec<VerdictCount>,
    statuses: Statuses,
    /// Hours with requests.
    per_hour: Vec<HourCount>,
    top_paths: Vec<PathCount>,
    user_agents: Vec<UserAgentCount>,
    first_seen: Option<Time>,
    last_seen: Option<Time>,
    location: Place,
    standing: Standing,
}

impl Client {
    fn new(report: ClientReport, standing: Standing) -> Self {
        let path = |(path, requests)| PathCount { path, requests };
        let agent = |(user_agent, requests)| UserAgentCount { user_agent, requests };
        let hour = |(hour, requests)| HourCount { time: Time(hour), requests };
        let verdict = |(verdict, requests)| VerdictCount { verdict, requests };
        Self {
            client: Address(report.client),
            since: Time(report.since),
            until: Time(report.until),
            requests: report.requests,
            answered: report.answered,
            error_rate: report.error_rate,
            client_errors: report.client_errors,
            server_errors: report.server_errors,
            bytes_in: report.bytes_in,
            bytes_out: report.bytes_out,
            distinct_paths: report.distinct_paths,
            sensitive: Sensitive { count: report.sensitive.count, samples: report.sensitive.samples },
            verdicts: report.verdicts.into_iter().map(verdict).collect(),
            statuses: Statuses::from(&report.statuses),
            per_hour: report.per_hour.into_iter().map(hour).collect(),
            top_paths: report.top_paths.into_iter().map(path).collect(),
            user_agents: report.user_agents.into_iter().map(agent).collect(),
            first_seen: report.first_seen.map(Time),
            last_seen: report.last_seen.map(Time),
            location: report.location.into(),
            standing,
        }
    }
}

/// What one client did, and how it stands
#[utoipa::path(get, path = "/clients/{ip}", tag = "clients",
    params(("ip" = Address, Path, description = "Its address"), Asked), responses((status = 200, body = Client)))]
async fn show(
    State(shared): State<Arc<Shared>>,
    Part(client): Part<Address>,
    Params(asked): Params<Asked>,
) -> Result<Json<Client>, Problem> {
    let now = shared.now();
    let hours = asked.hours.map_or(HOURS, |hours| hours.0);
    let since = now.minus(Duration::from_secs(u64::from(hours) * 3_600));
    // What began this very moment belongs to it.
    let until = now.plus(Duration::from_millis(1));
    let config = shared.config();
    let report = shared.log(move |log| {
        log.client_report(client.0, since, until, &|path| is_sensitive(&config.detection, path))
    });
    let report = report.await?;
    let agents: Vec<String> = report.user_agents.iter().map(|(agent, _)| agent.clone()).collect();
    let known =
        shared.blocking(move |shared| shared.running.standing(client.0, &agents).map_err(PageError::Failed));
    let ClientStanding { now: says, feeds, silent, bots } = known.await?;
    let standing = shared.state(move |state| {
        let mut findings = state.findings_about(client.0)?;
        findings.truncate(MAX_FINDINGS);
        let blocks = state.covering(client.0, now)?.into_iter();
        let of_anonymous = state.block_of_anonymous(client.0, now)?;
        Ok(Standing {
            now: says,
            feeds,
            silent,
            bots,
            allows: state.allows_covering(client.0)?.into_iter().map(Allow::from).collect(),
            blocks: blocks.map(|block| Block::standing(block, now)).collect(),
            of_anonymous: of_anonymous.map(|block| UserBlock::standing(block, now)),
            findings: findings.into_iter().map(Finding::from).collect(),
        })
    });
    Ok(Json(Client::new(report, standing.await?)))
}

/// Everything that is kept about a client, for that client
///
/// Requests, findings, blocks, limits that it met, and whatever else mentions it, as it is read. Needs a token with the
/// scope "write": it hands out all data of a person.
#[utoipa::path(get, path = "/clients/{ip}/data", tag = "clients",
    params(("ip" = Address, Path, description = "Its address")), responses(
        (status = 200, body = Object, content_type = "application/json"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Other exports are under way."),
    ))]
async fn data(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Part(client): Part<Address>,
) -> Result<Response, Problem> {
    if !caller.is_operator() {
        return Err(Problem::new(
            Kind::Forbidden,
            "This token may only read; all data of a person is handed out to tokens with the scope \"write\".",
        ));
    }
    Ok(data_export(shared, client.0)?)
}

/// What was erased. The receipt names nobody.
#[derive(Debug, Serialize, ToSchema)]
struct ErasedClient {
    requests: u64,
    /// Entries of the state that were deleted, and others of which a mention was taken out.
    entries: u64,
    /// The address is let in again.
    blocks_lifted: u64,
    receipt: String,
    /// Files of the data folder in which the address still stands: old copies, to be deleted by hand.
    left_in: Vec<String>,
}

impl From<Erased> for ErasedClient {
    fn from(erased: Erased) -> Self {
        Self {
            requests: erased.requests,
            entries: erased.entries,
            blocks_lifted: erased.blocks_lifted as u64,
            receipt: erased.receipt,
            left_in: erased.left_in,
        }
    }
}

/// Erase everything that is kept about a client
///
/// From both databases and every file; it cannot be brought back. Blocks of the address are lifted. Takes as long as the
/// whole log takes to be read.
#[utoipa::path(delete, path = "/clients/{ip}/data", tag = "clients",
    params(("ip" = Address, Path, description = "Its address")), responses((status = 200, body = ErasedClient)))]
async fn erase(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Part(client): Part<Address>,
) -> Result<Json<ErasedClient>, Problem> {
    let actor = caller.actor();
    let erased =
        shared.blocking(move |shared| shared.running.erase(client.0, &actor).map_err(PageError::Failed));
    Ok(Json(erased.await?.into()))
}
