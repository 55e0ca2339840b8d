//! Findings: listed, judged, acted upon; and what was dismissed for good.
//! Must not find anything.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use portcullis_detect::Never as About;
use portcullis_model::{FindingStatus, UnixMs};
use portcullis_store::{FindingFilter, State as Database, StoredFinding};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::blocks::Expiry;
use super::caller::Caller;
use super::document::Api;
use super::entries::{Finding, Never};
use super::input::{Body, Params, Part, parsed};
use super::problem::Problem;
use super::words::{Address, Done, FindingSeverity, Judgement, Limit, Note, Page, Text, Time};
use crate::console::actions::{self, Author, ForGood};
use crate::console::error::PageError;
use crate::console::running::stories::FindingStory;
use crate::console::shared::Shared;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_list, list)
        .add(__path_show, show)
        .add(__path_confirm, confirm)
        .add(__path_reopen, reopen)
        .add(__path_dismiss, dismiss)
        .add(__path_block, block)
        .add(__path_nevers, nevers)
        .add(__path_forget, forget)
}

/// The place of a finding in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor(UnixMs, i64);

impl Cursor {
    fn of(stored: &StoredFinding) -> Self {
        Self(stored.finding.detected_at, stored.id)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.0, self.1)
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a cursor as an earlier page gave it";
        let (at, id) = text.split_once('-').ok_or(EXPECTED)?;
        let number = |text: &str| text.parse().map_err(|_| EXPECTED);
        Ok(Self(UnixMs(number(at)?), number(id)?))
    }
}

/// Which findings. Everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    status: Option<Judgement>,
    /// At least so severe.
    min_severity: Option<FindingSeverity>,
    /// Whose strongest rule is this.
    #[param(inline)]
    rule: Option<Text<128>>,
    /// About exactly this address.
    client: Option<Address>,
    /// Detected then or later.
    since: Option<Time>,
    /// `next` of the page before.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,18}-[0-9]{1,18}$")]
    cursor: Option<Cursor>,
    #[serde(default)]
    limit: Limit,
}

/// Findings, newest first
#[utoipa::path(get, path = "/findings", tag = "findings", params(Asked),
    responses((status = 200, body = Page<Finding>)))]
async fn list(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Page<Finding>>, Problem> {
    let limit = asked.limit;
    let filter = FindingFilter {
        client: asked.client.map(|client| client.0),
        min_severity: asked.min_severity.map(|severity| severity.0),
        status: asked.status.map(|status| status.0),
        since: asked.since.map(|since| since.0),
        rule: asked.rule.map(|rule| rule.0),
        before: asked.cursor.map(|Cursor(at, id)| (at, id)),
        // To know whether there is another page.
        limit: limit.get() + 1,
    };
    let found = shared.state(move |state| state.findings(&filter)).await?;
    Ok(Json(Page::of(found, limit, Cursor::of, Finding::from)))
}

fn no_finding(id: i64) -> String {
    format!("There is no finding {id}. Findings are kept for 30 days.")
}

/// A finding with what its details mean.
#[derive(Debug, Serialize, ToSchema)]
struct ExplainedFinding {
    #[serde(flatten)]
    finding: Finding,
    /// What was done, or why nothing was.
    outcome: String,
    /// At request time or by the hourly run, and after how long.
    found: Option<String>,
    /// Why it is not more severe than it is.
    held_down: Option<String>,
    /// Who shares the address, and whom a block leaves alone.
    spared: Vec<String>,
    /// Rules that had something to say and were not to be asked.
    silent: Vec<String>,
    /// Which model found it unusual, and how clearly.
    model: Option<String>,
}

impl From<FindingStory> for ExplainedFinding {
    fn from(story: FindingStory) -> Self {
        let FindingStory { stored, outcome, found, held_down, spared, silent, model } = story;
        Self { finding: stored.into(), outcome, found, held_down, spared, silent, model }
    }
}

/// One finding, with what its details mean
#[utoipa::path(get, path = "/findings/{id}", tag = "findings", params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = ExplainedFinding)))]
async fn show(
    State(shared): State<Arc<Shared>>,
    Part(id): Part<i64>,
) -> Result<Json<ExplainedFinding>, Problem> {
    let found = shared.blocking(move |shared| shared.running.finding(id).map_err(PageError::Failed)).await?;
    found.map(ExplainedFinding::from).map(Json).ok_or_else(|| Problem::not_found(no_finding(id)))
}

/// A finding that somebody has done something about.
#[derive(Debug, Serialize, ToSchema)]
struct Judged {
    finding: Finding,
    /// What was done, and what still holds.
    text: String,
}

async fn judge(
    shared: &Arc<Shared>,
    caller: &Caller,
    id: i64,
    change: impl FnOnce(&mut Database, &Author) -> Result<actions::Done, PageError> + Send + 'static,
) -> Result<Json<Judged>, Problem> {
    let judged = shared.act(&caller.0, move |state, author| {
        let done = change(state, author)?;
        let finding = state.finding(id)?.ok_or_else(|| PageError::NotFound(no_finding(id)))?;
        Ok(Judged { finding: Finding::from(finding), text: done.text })
    });
    Ok(Json(judged.await?))
}

/// Confirm a finding
#[utoipa::path(post, path = "/findings/{id}/confirm", tag = "findings",
    params(("id" = i64, Path, description = "Its number")), responses((status = 200, body = Judged)))]
async fn confirm(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Part(id): Part<i64>,
) -> Result<Json<Judged>, Problem> {
    judge(&shared, &caller, id, move |state, author| {
        actions::judge(state, &[id], FindingStatus::Confirmed, author)
    })
    .await
}

/// Take a judgement back
#[utoipa::path(post, path = "/findings/{id}/reopen", tag = "findings",
    params(("id" = i64, Path, description = "Its number")), responses((status = 200, body = Judged)))]
async fn reopen(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Part(id): Part<i64>,
) -> Result<Json<Judged>, Problem> {
    judge(&shared, &caller, id, move |state, author| {
        actions::judge(state, &[id], FindingStatus::Open, author)
    })
    .await
}

/// About what a rule is to be silent for good.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum NeverAgain {
    /// About this client: its address, of IPv6 the /64.
    Client,
    /// About requests at and below a path.
    Path,
    /// About anybody.
    Rule,
}

/// A dismissal; the empty object dismisses this finding alone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDismissal {
    /// Never flag this again.
    #[serde(default)]
    never: Option<NeverAgain>,
    /// Of `never`: another rule than the finding's strongest.
    #[serde(default)]
    #[schema(inline)]
    rule: Option<Text<128>>,
    /// Of `never` with `path`: without it, the one path of the finding's samples.
    #[serde(default)]
    #[schema(inline)]
    path: Option<Text<1024>>,
    /// Why, for people.
    #[serde(default)]
    note: Note,
}

/// Dismiss a finding, for now or for good
///
/// A dismissal lifts no block.
#[utoipa::path(post, path = "/findings/{id}/dismiss", tag = "findings", request_body = NewDismissal,
    params(("id" = i64, Path, description = "Its number")), responses(
        (status = 200, body = Judged),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "There are as many dismissals for good as there can be."),
    ))]
async fn dismiss(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Part(id): Part<i64>,
    Body(asked): Body<NewDismissal>,
) -> Result<Json<Judged>, Problem> {
    judge(&shared, &caller, id, move |state, author| match asked.never {
        None => actions::judge(state, &[id], FindingStatus::Dismissed, author),
        Some(never) => {
            let asked = ForGood {
                never: match never {
                    NeverAgain::Client => About::Client,
                    NeverAgain::Path => About::Path,
                    NeverAgain::Rule => About::Rule,
                },
                rule: asked.rule.map(|rule| rule.0),
                path: asked.path.map(|path| path.0),
                note: asked.note.0,
            };
            actions::dismiss_for_good(state, id, &asked, author)
        }
    })
    .await
}

/// A block because of a finding.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FindingBlock {
    /// Without it, and without `expires_in`, it lasts until somebody lifts it.
    #[serde(default)]
    expires_at: Option<Time>,
    /// In so many seconds.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 316224000)]
    expires_in: Option<u32>,
}

/// Block the client of a finding, or its user
///
/// A finding that nobody has judged is confirmed by it.
#[utoipa::path(post, path = "/findings/{id}/block", tag = "findings", request_body = FindingBlock,
    params(("id" = i64, Path, description = "Its number")), responses((status = 200, body = Judged)))]
async fn block(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Part(id): Part<i64>,
    Body(asked): Body<FindingBlock>,
) -> Result<Json<Judged>, Problem> {
    let expiry = Expiry { at: asked.expires_at, seconds: asked.expires_in };
    let expires_at = expiry.resolve(shared.now(), "")?;
    judge(&shared, &caller, id, move |state, author| actions::block_client(state, &[id], expires_at, author))
        .await
}

/// What was dismissed for good and is in force, the oldest first
///
/// There are at most a thousand: one page.
#[utoipa::path(get, path = "/nevers", tag = "findings", responses((status = 200, body = Page<Never>)))]
async fn nevers(State(shared): State<Arc<Shared>>) -> Result<Json<Page<Never>>, Problem> {
    let found = shared.state(|state| state.nevers()).await?;
    Ok(Json(Page { items: found.into_iter().map(Never::from).collect(), next: None }))
}

/// Let a rule speak again
#[utoipa::path(delete, path = "/nevers/{id}", tag = "findings", params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = Done)))]
async fn forget(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Part(id): Part<i64>,
) -> Result<Json<Done>, Problem> {
    let done = shared.act(&caller, move |state, author| actions::remove_never(state, id, author));
    Done::of(Some(done.await?))
        .ok_or_else(|| Problem::not_found(format!("{id} has been taken back already.")))
}
