//! Blocks, allows, findings and what was dismissed for good, as the API shows them.
//! Must not read or change anything.

use portcullis_model::{Allow as ModelAllow, Block as ModelBlock, Party, PartyBlock, UnixMs};
use portcullis_store::{Never as StoredNever, StoredAllow, StoredBlock, StoredFinding, StoredPartyBlock};
use serde::Serialize;
use utoipa::ToSchema;

use super::words::{Address, FindingSeverity, Judgement, Network, Source, Time};

/// A refused address or prefix.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Block {
    id: i64,
    network: Network,
    reason: String,
    source: Source,
    created_at: Time,
    /// None: until somebody lifts it.
    expires_at: Option<Time>,
    /// The finding that led to it, of blocks by the detector.
    finding_id: Option<i64>,
    in_force: bool,
    removed_at: Option<Time>,
    /// Who lifted it, `replaced` or `expired`.
    removed_by: Option<String>,
}

impl Block {
    pub(super) fn standing(block: ModelBlock, now: UnixMs) -> Self {
        Self::new(StoredBlock { block, removed_at: None, removed_by: None }, now)
    }

    pub(super) fn new(stored: StoredBlock, now: UnixMs) -> Self {
        let StoredBlock { block, removed_at, removed_by } = stored;
        Self {
            in_force: removed_at.is_none() && !block.is_expired(now),
            id: block.id,
            network: Network(block.network),
            reason: block.reason,
            source: Source(block.source),
            created_at: Time(block.created_at),
            expires_at: block.expires_at.map(Time),
            finding_id: block.finding_id,
            removed_at: removed_at.map(Time),
            removed_by,
        }
    }
}

/// A refused user, or the refused anonymous clients of an address: one of `user` and `network` is there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserBlock {
    /// Never that of a block of an address.
    id: i64,
    /// A verified user, from whatever address.
    user: Option<String>,
    /// Who comes from there without being verified.
    network: Option<Network>,
    /// Of anonymous clients: who comes with one of these does not even get the room to log in.
    user_agents: Vec<String>,
    reason: String,
    source: Source,
    created_at: Time,
    /// None: until somebody lifts it.
    expires_at: Option<Time>,
    /// The finding that led to it, of blocks by the detector.
    finding_id: Option<i64>,
    in_force: bool,
    removed_at: Option<Time>,
    /// Who lifted it, `replaced` or `expired`.
    removed_by: Option<String>,
}

impl UserBlock {
    pub(super) fn standing(block: PartyBlock, now: UnixMs) -> Self {
        Self::new(StoredPartyBlock { block, removed_at: None, removed_by: None }, now)
    }

    pub(super) fn new(stored: StoredPartyBlock, now: UnixMs) -> Self {
        let StoredPartyBlock { block, removed_at, removed_by } = stored;
        let in_force = removed_at.is_none() && !block.is_expired(now);
        let (user, network, user_agents) = match block.party {
            Party::User(name) => (Some(name.into_string()), None, Vec::new()),
            Party::Anonymous { network, agents } => {
                (None, Some(Network(network)), agents.into_iter().map(String::from).collect())
            }
        };
        Self {
            id: block.id,
            user,
            network,
            user_agents,
            reason: block.reason,
            source: Source(block.source),
            created_at: Time(block.created_at),
            expires_at: block.expires_at.map(Time),
            finding_id: block.finding_id,
            in_force,
            removed_at: removed_at.map(Time),
            removed_by,
        }
    }
}

/// An address or a prefix that no block and no limit touches.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Allow {
    id: i64,
    network: Network,
    reason: String,
    source: Source,
    created_at: Time,
    in_force: bool,
    removed_at: Option<Time>,
    /// Who removed it, or `replaced`.
    removed_by: Option<String>,
}

impl From<StoredAllow> for Allow {
    fn from(StoredAllow { allow, removed_at, removed_by }: StoredAllow) -> Self {
        Self {
            id: allow.id,
            network: Network(allow.network),
            reason: allow.reason,
            source: Source(allow.source),
            created_at: Time(allow.created_at),
            in_force: removed_at.is_none(),
            removed_at: removed_at.map(Time),
            removed_by,
        }
    }
}

impl From<ModelAllow> for Allow {
    fn from(allow: ModelAllow) -> Self {
        Self::from(StoredAllow { allow, removed_at: None, removed_by: None })
    }
}

/// A suspicious client, with everything that a person needs to judge it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Finding {
    id: i64,
    status: Judgement,
    client: Address,
    /// The verified user on it who did this; none: whoever on it is none, or the address as a whole.
    user: Option<String>,
    /// The strongest rule.
    reason: String,
    severity: FindingSeverity,
    request_count: u64,
    first_seen: Time,
    last_seen: Time,
    detected_at: Time,
    /// The block that it led to.
    block_id: Option<i64>,
    /// What each rule says with sample requests, how the score grew, what the isolation forest found unusual. Its
    /// fields are those of the detector that wrote it.
    #[schema(value_type = Object, additional_properties)]
    details: serde_json::Value,
}

impl From<StoredFinding> for Finding {
    fn from(stored: StoredFinding) -> Self {
        let finding = stored.finding;
        Self {
            id: stored.id,
            status: Judgement(stored.status),
            client: Address(finding.client),
            user: finding.user,
            reason: finding.reason,
            severity: FindingSeverity(finding.severity),
            request_count: finding.request_count,
            first_seen: Time(finding.first_seen),
            last_seen: Time(finding.last_seen),
            detected_at: Time(finding.detected_at),
            block_id: stored.block_id,
            details: finding.details,
        }
    }
}

/// A rule that is silent about something, for good.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Never {
    id: i64,
    rule: String,
    /// None: whoever it is.
    network: Option<Network>,
    /// And what is below it; none: whatever was asked for.
    path: Option<String>,
    note: String,
    /// The finding that was dismissed.
    finding_id: Option<i64>,
    created_at: Time,
    created_by: String,
    in_force: bool,
    removed_at: Option<Time>,
    removed_by: Option<String>,
}

impl From<StoredNever> for Never {
    fn from(never: StoredNever) -> Self {
        Self {
            id: never.id,
            rule: never.rule,
            network: never.network.map(Network),
            path: never.path,
            note: never.note,
            finding_id: never.finding_id,
            created_at: Time(never.created_at),
            created_by: never.created_by,
            in_force: never.removed_at.is_none(),
            removed_at: never.removed_at.map(Time),
            removed_by: never.removed_by,
        }
    }
}
