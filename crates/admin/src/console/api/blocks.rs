//! Blocks of addresses and of users: listed, added, lifted.
//! Must not lift what its address does not name.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ipnet::IpNet;
use portcullis_model::{BlockSource, UnixMs, bare};
use portcullis_store::{Listing, NewBlock};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::caller::Caller;
use super::document::Api;
use super::entries::{Block, UserBlock};
use super::input::{Body, Params, Part, parsed};
use super::problem::{Kind, Problem};
use super::words::{Done, Limit, Network, Note, Page, Source, Text, Time, UserName};
use crate::console::actions::{self, Entry, Whom};
use crate::console::error::PageError;
use crate::console::shared::Shared;
use crate::console::visitor::Visitor;

/// Networks of one import.
const MAX_IMPORT: usize = 10_000;
/// The longest that a block can last when its length is given: ten years.
const MAX_SECONDS: u32 = 10 * 366 * 24 * 3_600;
/// Networks with objections that a refusal names.
const NAMED: usize = 10;

pub(super) fn add_to(api: Api) -> Api {
    api.add(__path_list, list)
        .add(__path_add, add)
        .add(__path_import, import)
        .add(__path_show, show)
        .add(__path_lift, lift)
        .add(__path_list_of_users, list_of_users)
        .add(__path_add_of_user, add_of_user)
        .add(__path_show_of_user, show_of_user)
        .add(__path_lift_of_user, lift_of_user)
}

/// Which blocks. Everything that is given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// In the reason or the name; an address or prefix finds what covers it and what is inside of it.
    #[param(inline)]
    q: Option<Text<200>>,
    source: Option<Source>,
    /// Those that have ended instead of those in force.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<bool>)]
    ended: Option<bool>,
    /// `next` of the page before.
    #[serde(default, deserialize_with = "parsed")]
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,18}$")]
    cursor: Option<i64>,
    #[serde(default)]
    limit: Limit,
}

impl Asked {
    /// One more than fits on the page, to know whether there is another one.
    pub(super) fn listing(&self) -> Listing {
        Listing {
            text: self.q.as_ref().map_or_else(String::new, |text| text.0.clone()),
            source: self.source.map(|source| source.0),
            has_ended: self.ended.unwrap_or_default(),
            before: self.cursor,
            limit: self.limit.get() + 1,
        }
    }

    pub(super) fn limit(&self) -> Limit {
        self.limit
    }
}

/// How long something holds: until a moment, for a time, or without either until somebody ends it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expiry {
    pub(super) at: Option<Time>,
    pub(super) seconds: Option<u32>,
}

impl Expiry {
    /// `field` is what the expiry belongs to, with a full stop, or nothing.
    pub(super) fn resolve(self, now: UnixMs, field: &str) -> Result<Option<UnixMs>, Problem> {
        match (self.at, self.seconds) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(Problem::field(format!("{field}expires_in"), "expected one of expires_at and expires_in"))
            }
            (Some(at), None) if at.0 <= now => Err(Problem::field(
                format!("{field}expires_at"),
                format!("expected a time to come, got {at}, which is not in the future"),
            )),
            (Some(at), None) => Ok(Some(at.0)),
            (None, Some(seconds @ 1..=MAX_SECONDS)) => {
                Ok(Some(now.plus(Duration::from_secs(seconds.into()))))
            }
            (None, Some(seconds)) => Err(Problem::field(
                format!("{field}expires_in"),
                format!("expected 1 to {MAX_SECONDS} seconds, got {seconds}"),
            )),
        }
    }
}

/// Blocks of addresses and prefixes, newest first
#[utoipa::path(get, path = "/blocks", tag = "blocks", params(Asked), responses((status = 200, body = Page<Block>)))]
async fn list(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Page<Block>>, Problem> {
    let (listing, limit, now) = (asked.listing(), asked.limit(), shared.now());
    let found = shared.state(move |state| state.list_blocks(&listing, now)).await?;
    Ok(Json(Page::of(found, limit, |stored| stored.block.id, |stored| Block::new(stored, now))))
}

/// A block to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewNetworkBlock {
    network: Network,
    #[serde(default)]
    reason: Note,
    /// Without it, and without `expires_in`, it lasts until somebody lifts it.
    #[serde(default)]
    expires_at: Option<Time>,
    /// In so many seconds.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 316224000)]
    expires_in: Option<u32>,
    /// Block it although it is or contains this machine, a trusted proxy, the caller, or a large part of the Internet.
    #[serde(default)]
    force: bool,
}

/// A block that was added.
#[derive(Debug, Serialize, ToSchema)]
struct AddedBlock {
    block: Block,
    /// In one sentence: what was done.
    text: String,
    /// What keeps it from having its full effect.
    remarks: Vec<String>,
}

/// Block an address or a prefix
///
/// In force at once. A block of the same network is replaced.
#[utoipa::path(post, path = "/blocks", tag = "blocks", request_body = NewNetworkBlock, responses(
    (status = 201, body = AddedBlock),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "It would block this machine, a trusted proxy, the caller, or a large part of the Internet."),
))]
async fn add(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Body(asked): Body<NewNetworkBlock>,
) -> Result<(StatusCode, Json<AddedBlock>), Problem> {
    let network = asked.network.0;
    let expiry = Expiry { at: asked.expires_at, seconds: asked.expires_in };
    let entry = Entry {
        whom: Whom::Network(network),
        reason: asked.reason.0,
        expires_at: expiry.resolve(shared.now(), "")?,
        finding: None,
    };
    if !asked.force {
        unless_objected(&shared, &[network], &caller).await?;
    }
    let config = shared.config();
    let added = shared.act(&caller, move |state, author| {
        let (id, done) = actions::block(state, entry, author)?;
        let stored = state.block(id)?.ok_or_else(|| gone(id))?;
        let remarks = actions::remarks(state, &network, &config)?;
        Ok(AddedBlock { block: Block::new(stored, author.now), text: done.text, remarks })
    });
    Ok((StatusCode::CREATED, Json(added.await?)))
}

fn gone(id: i64) -> PageError {
    PageError::Conflict(format!("Block {id} was added, and removed by somebody else at once."))
}

/// Says what speaks against blocks of these, unless nothing does.
async fn unless_objected(shared: &Arc<Shared>, networks: &[IpNet], caller: &Visitor) -> Result<(), Problem> {
    let (networks, from) = (networks.to_vec(), caller.from);
    let objections = shared.blocking(move |shared| {
        let of = |network: &IpNet| shared.running.objections(network, from);
        let named = networks.iter().map(|network| (bare(network), of(network)));
        Ok(named.filter(|(_, why)| !why.is_empty()).take(NAMED).collect::<Vec<_>>())
    });
    let objections = objections.await?;
    if objections.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        objections.iter().map(|(network, why)| format!("{network}: {}", why.join("; "))).collect();
    Err(Problem::new(
        Kind::Conflict,
        format!("Nothing was blocked. {}. To block it all the same, send \"force\": true.", lines.join(". ")),
    ))
}

/// One of the blocks of an import.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImportedBlock {
    network: Network,
    #[serde(default)]
    reason: Note,
    /// Without it, and without `expires_in`, it lasts until somebody lifts it.
    #[serde(default)]
    expires_at: Option<Time>,
    /// In so many seconds.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 316224000)]
    expires_in: Option<u32>,
}

/// Blocks to add, all or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Import {
    #[schema(min_items = 1, max_items = 10000)]
    blocks: Vec<ImportedBlock>,
    /// Say what would happen, and change nothing.
    #[serde(default)]
    rehearse: bool,
    /// Block it all although there are objections.
    #[serde(default)]
    force: bool,
}

/// What became of an import.
#[derive(Debug, Serialize, ToSchema)]
struct Imported {
    added: u64,
    /// Blocked before, for as long or longer: they stay as they were.
    kept: u64,
    /// Nothing was changed: it was a rehearsal.
    rehearsed: bool,
}

/// Block many addresses and prefixes
///
/// All or none. Importing the same list again changes nothing.
#[utoipa::path(post, path = "/blocks/import", tag = "blocks", request_body = Import, responses(
    (status = 200, body = Imported),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "It would block this machine, a trusted proxy, the caller, or a large part of the Internet."),
))]
async fn import(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Body(asked): Body<Import>,
) -> Result<Json<Imported>, Problem> {
    let now = shared.now();
    let (count, rehearsed) = (asked.blocks.len(), asked.rehearse);
    if !(1..=MAX_IMPORT).contains(&count) {
        return Err(Problem::field("blocks", format!("expected 1 to {MAX_IMPORT} of them, got {count}")));
    }
    let new = |(n, block): (usize, ImportedBlock)| {
        let expiry = Expiry { at: block.expires_at, seconds: block.expires_in };
        Ok(NewBlock {
            network: block.network.0,
            reason: block.reason.0,
            source: BlockSource::Import,
            created_at: now,
            expires_at: expiry.resolve(now, &format!("blocks[{n}]."))?,
            finding_id: None,
        })
    };
    let blocks: Vec<NewBlock> =
        asked.blocks.into_iter().enumerate().map(new).collect::<Result<_, Problem>>()?;
    if !asked.force {
        let networks: Vec<IpNet> = blocks.iter().map(|block| block.network).collect();
        unless_objected(&shared, &networks, &caller).await?;
    }
    let done = match rehearsed {
        true => shared.state(move |state| state.rehearse_import(&blocks, now)).await?,
        false => {
            let import = shared.act(&caller, move |state, author| actions::import(state, &blocks, author));
            import.await?.0
        }
    };
    Ok(Json(Imported { added: done.added, kept: done.kept, rehearsed }))
}

fn no_block(id: i64) -> Problem {
    Problem::not_found(format!("There is no block {id}. Blocks that have ended are kept for 90 days."))
}

fn not_in_force(id: i64) -> Problem {
    Problem::not_found(format!("No block {id} is in force, so nothing was lifted."))
}

/// One block of an address or a prefix, also one that has ended
#[utoipa::path(get, path = "/blocks/{id}", tag = "blocks", params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = Block)))]
async fn show(State(shared): State<Arc<Shared>>, Part(id): Part<i64>) -> Result<Json<Block>, Problem> {
    let now = shared.now();
    let found = shared.state(move |state| state.block(id)).await?;
    found.map(|stored| Json(Block::new(stored, now))).ok_or_else(|| no_block(id))
}

/// Lift a block of an address or a prefix
#[utoipa::path(delete, path = "/blocks/{id}", tag = "blocks", params(("id" = i64, Path, description = "Its number")),
    responses((status = 200, body = Done)))]
async fn lift(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Part(id): Part<i64>,
) -> Result<Json<Done>, Problem> {
    let done = shared.act(&caller, move |state, author| match state.block(id)? {
        None => Ok(None),
        Some(_) => actions::lift(state, &[id], author).map(Some),
    });
    Done::of(done.await?).ok_or_else(|| not_in_force(id))
}

/// Blocks of users and of anonymous clients, newest first
#[utoipa::path(get, path = "/user-blocks", tag = "blocks", params(Asked),
    responses((status = 200, body = Page<UserBlock>)))]
async fn list_of_users(
    State(shared): State<Arc<Shared>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Page<UserBlock>>, Problem> {
    let (listing, limit, now) = (asked.listing(), asked.limit(), shared.now());
    let found = shared.state(move |state| state.list_party_blocks(&listing, now)).await?;
    Ok(Json(Page::of(found, limit, |stored| stored.block.id, |stored| UserBlock::new(stored, now))))
}

/// A block of a verified user to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUserBlock {
    user: UserName,
    #[serde(default)]
    reason: Note,
    /// Without it, and without `expires_in`, it lasts until somebody lifts it.
    #[serde(default)]
    expires_at: Option<Time>,
    /// In so many seconds.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 316224000)]
    expires_in: Option<u32>,
}

/// A block of a user that was added.
#[derive(Debug, Serialize, ToSchema)]
struct AddedUserBlock {
    block: UserBlock,
    /// In one sentence: what was done.
    text: String,
}

/// Block a verified user, from whatever address
///
/// In force at once. A block of the same user is replaced.
#[utoipa::path(post, path = "/user-blocks", tag = "blocks", request_body = NewUserBlock,
    responses((status = 201, body = AddedUserBlock)))]
async fn add_of_user(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Body(asked): Body<NewUserBlock>,
) -> Result<(StatusCode, Json<AddedUserBlock>), Problem> {
    let expiry = Expiry { at: asked.expires_at, seconds: asked.expires_in };
    let entry = Entry {
        whom: Whom::User(asked.user.0),
        reason: asked.reason.0,
        expires_at: expiry.resolve(shared.now(), "")?,
        finding: None,
    };
    let added = shared.act(&caller, move |state, author| {
        let (id, done) = actions::block(state, entry, author)?;
        let stored = state.party_block(id)?.ok_or_else(|| gone(id))?;
        Ok(AddedUserBlock { block: UserBlock::new(stored, author.now), text: done.text })
    });
    Ok((StatusCode::CREATED, Json(added.await?)))
}

/// One block of a user or of anonymous clients, also one that has ended
#[utoipa::path(get, path = "/user-blocks/{id}", tag = "blocks",
    params(("id" = i64, Path, description = "Its number")), responses((status = 200, body = UserBlock)))]
async fn show_of_user(
    State(shared): State<Arc<Shared>>,
    Part(id): Part<i64>,
) -> Result<Json<UserBlock>, Problem> {
    let now = shared.now();
    let found = shared.state(move |state| state.party_block(id)).await?;
    found.map(|stored| Json(UserBlock::new(stored, now))).ok_or_else(|| no_block(id))
}

/// Lift a block of a user or of anonymous clients
#[utoipa::path(delete, path = "/user-blocks/{id}", tag = "blocks",
    params(("id" = i64, Path, description = "Its number")), responses((status = 200, body = Done)))]
async fn lift_of_user(
    State(shared): State<Arc<Shared>>,
    Caller(caller): Caller,
    Part(id): Part<i64>,
) -> Result<Json<Done>, Problem> {
    let done = shared.act(&caller, move |state, author| match state.party_block(id)? {
        None => Ok(None),
        Some(_) => actions::lift(state, &[id], author).map(Some),
    });
    Done::of(done.await?).ok_or_else(|| not_in_force(id))
}
