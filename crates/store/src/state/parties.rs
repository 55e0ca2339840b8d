//! Blocks of users, and of the anonymous clients of an address.
//!
//! Owns the table `party_blocks`. Must not delete a row when a block is removed, nor use a number of `blocks` twice.

use ipnet::IpNet;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use portcullis_model::{BlockSource, ClientIp, Party, PartyBlock, UnixMs};

use super::{State, next_seq, note, parsed, row_limit};
use crate::error::StoreError;

/// A block of somebody behind an address that is to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartyBlock {
    pub party: Party,
    pub reason: String,
    pub source: BlockSource,
    pub created_at: UnixMs,
    /// `None` lasts until somebody removes it.
    pub expires_at: Option<UnixMs>,
    pub finding_id: Option<i64>,
}

/// Such a block as it is or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredPartyBlock {
    #[serde(flatten)]
    pub block: PartyBlock,
    pub removed_at: Option<UnixMs>,
    /// An actor's name, `replaced`, or `expired`.
    pub removed_by: Option<String>,
}

/// Such a block that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartyChange {
    /// It may have an expiry, even one in the past.
    Added(PartyBlock),
    Removed {
        id: i64,
        party: Party,
    },
}

impl PartyChange {
    /// The block's removal.
    pub(super) fn undone(self) -> Self {
        match self {
            Self::Added(PartyBlock { id, party, .. }) | Self::Removed { id, party } => {
                Self::Removed { id, party }
            }
        }
    }
}

pub(super) const COLUMNS: &str =
    "id, user, network, agents, reason, source, created_at, expires_at, finding_id";

fn party(row: &Row<'_>) -> rusqlite::Result<Party> {
    if let Some(user) = row.get::<_, Option<String>>(1)? {
        return Ok(Party::User(user.into()));
    }
    let unreadable = |error| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, Box::new(error));
    let agents = serde_json::from_str(row.get_ref(3)?.as_str()?).map_err(unreadable)?;
    Ok(Party::Anonymous { network: parsed(row, 2)?, agents })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<PartyBlock> {
    Ok(PartyBlock {
        id: row.get(0)?,
        party: party(row)?,
        reason: row.get(4)?,
        source: parsed(row, 5)?,
        created_at: UnixMs(row.get(6)?),
        expires_at: row.get::<_, Option<i64>>(7)?.map(UnixMs),
        finding_id: row.get(8)?,
    })
}

pub(super) fn stored_from_row(row: &Row<'_>) -> rusqlite::Result<StoredPartyBlock> {
    Ok(StoredPartyBlock {
        block: from_row(row)?,
        removed_at: row.get::<_, Option<i64>>(9)?.map(UnixMs),
        removed_by: row.get(10)?,
    })
}

/// Removals first. From the beginning on, what was removed before is left out.
pub(super) fn changes(connection: &Connection, after: i64) -> rusqlite::Result<Vec<PartyChange>> {
    let mut changes = Vec::new();
    let since = format!("SELECT {COLUMNS} FROM party_blocks INDEXED BY party_blocks_seq WHERE seq > ?1");
    if after > 0 {
        let sql = format!("{since} AND removed_at IS NOT NULL ORDER BY id");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            changes.push(PartyChange::Removed { id: row.get(0)?, party: party(row)? });
        }
    }
    let mut statement = connection.prepare_cached(&format!("{since} AND removed_at IS NULL ORDER BY id"))?;
    let mut rows = statement.query([after])?;
    while let Some(row) = rows.next()? {
        changes.push(PartyChange::Added(from_row(row)?));
    }
    Ok(changes)
}

impl State {
    /// Adds a block of somebody behind an address. One of the same party that is in force is replaced.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_party_block(&mut self, block: NewPartyBlock, actor: &str) -> Result<PartyBlock, StoreError> {
        self.write("adding a block", |transaction| {
            let seq = next_seq(transaction)?;
            let id = insert(transaction, &block, seq)?;
            let detail = format!("block {id}: {}", block.reason);
            note(transaction, block.created_at, actor, "block", &block.party.to_string(), &detail)?;
            let NewPartyBlock { party, reason, source, created_at, expires_at, finding_id } = block;
            Ok(PartyBlock { id, party, reason, source, created_at, expires_at, finding_id })
        })
    }

    /// Removes the block of exactly this party; of anonymous clients the network counts alone. Returns what was in
    /// force.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn remove_party_block(
        &mut self,
        party: &Party,
        actor: &str,
        now: UnixMs,
    ) -> Result<Option<PartyBlock>, StoreError> {
        self.write("removing a block", |transaction| {
            let Some(block) = standing(transaction, party)?.filter(|block| !block.is_expired(now)) else {
                return Ok(None);
            };
            let seq = next_seq(transaction)?;
            transaction
                .prepare_cached(
                    "UPDATE party_blocks SET removed_at = ?2, removed_by = ?3, seq = ?4 WHERE id = ?1",
                )?
                .execute(params![block.id, now.0, actor, seq])?;
            let detail = format!("block {}: {}", block.id, block.reason);
            note(transaction, now, actor, "unblock", &block.party.to_string(), &detail)?;
            Ok(Some(block))
        })
    }

    /// The block of somebody behind an address with this number, also one that has been removed or has run out.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn party_block(&self, id: i64) -> Result<Option<StoredPartyBlock>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, removed_at, removed_by FROM party_blocks WHERE id = ?1");
        self.read("reading a block", || {
            self.connection.prepare_cached(&sql)?.query_row([id], stored_from_row).optional()
        })
    }

    /// The newest of these blocks, also those that have been removed or have run out, newest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn recent_party_blocks(&self, limit: usize) -> Result<Vec<StoredPartyBlock>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS}, removed_at, removed_by FROM party_blocks ORDER BY id DESC LIMIT ?1");
        self.read("reading the blocks", || {
            self.connection.prepare_cached(&sql)?.query_map([row_limit(limit)], stored_from_row)?.collect()
        })
    }

    /// All of these blocks in force at `now`, oldest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn active_party_blocks(&self, now: UnixMs) -> Result<Vec<PartyBlock>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM party_blocks \
             WHERE removed_at IS NULL AND (expires_at IS NULL OR expires_at > ?1) ORDER BY id"
        );
        self.read("reading the blocks", || {
            self.connection.prepare_cached(&sql)?.query_map([now.0], from_row)?.collect()
        })
    }

    /// The block of this user in force at `now`.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn block_of_user(&self, user: &str, now: UnixMs) -> Result<Option<PartyBlock>, StoreError> {
        self.read("reading the block of a user", || {
            let block = standing(&self.connection, &Party::User(user.into()))?;
            Ok(block.filter(|block| !block.is_expired(now)))
        })
    }

    /// How often the detector has blocked this user since then. Blocks that a person lifted do not count: they were
    /// mistakes.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn earlier_blocks_of_user(&self, user: &str, since: UnixMs) -> Result<usize, StoreError> {
        let sql = "SELECT count(*) FROM party_blocks WHERE source = 'detector' AND user = ?1 AND created_at >= ?2 \
                   AND (removed_by IS NULL OR removed_by IN ('expired', 'replaced'))";
        self.read("counting the earlier blocks of a user", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let count: i64 = statement.query_row(params![user, since.0], |row| row.get(0))?;
            Ok(usize::try_from(count).unwrap_or(0))
        })
    }

    /// The block of the anonymous clients around this address in force at `now`.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn block_of_anonymous(
        &self,
        client: ClientIp,
        now: UnixMs,
    ) -> Result<Option<PartyBlock>, StoreError> {
        let key = client.limit_key();
        let network = IpNet::new_assert(key, if key.is_ipv4() { 32 } else { 64 });
        self.read("reading the block of anonymous clients", || {
            let block = standing(&self.connection, &Party::Anonymous { network, agents: Vec::new() })?;
            Ok(block.filter(|block| !block.is_expired(now)))
        })
    }
}

/// How the table finds a party.
fn key(party: &Party) -> (&'static str, String) {
    match party {
        Party::User(user) => ("user", user.to_string()),
        Party::Anonymous { network, .. } => ("network", network.trunc().to_string()),
    }
}

/// The block of this party that nobody has removed; it may have run out.
fn standing(connection: &Connection, party: &Party) -> rusqlite::Result<Option<PartyBlock>> {
    let (column, value) = key(party);
    let sql = format!("SELECT {COLUMNS} FROM party_blocks WHERE {column} = ?1 AND removed_at IS NULL");
    connection.prepare_cached(&sql)?.query_row([value], from_row).optional()
}

fn insert(transaction: &Connection, block: &NewPartyBlock, seq: i64) -> rusqlite::Result<i64> {
    let (column, value) = key(&block.party);
    let replace = format!(
        "UPDATE party_blocks SET removed_at = ?2, seq = ?3, \
         removed_by = CASE WHEN expires_at <= ?2 THEN 'expired' ELSE 'replaced' END \
         WHERE {column} = ?1 AND removed_at IS NULL"
    );
    transaction.prepare_cached(&replace)?.execute(params![value, block.created_at.0, seq])?;
    let agents = match &block.party {
        Party::User(_) => "[]".to_owned(),
        Party::Anonymous { agents, .. } => serde_json::to_string(agents)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?,
    };
    let id: i64 = transaction
        .prepare_cached("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'blocks' RETURNING seq")?
        .query_row([], |row| row.get(0))?;
    let sql = format!(
        "INSERT INTO party_blocks \
         (id, {column}, agents, reason, source, created_at, expires_at, finding_id, seq) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    );
    transaction.prepare_cached(&sql)?.execute(params![
        id,
        value,
        agents,
        block.reason,
        block.source.as_str(),
        block.created_at.0,
        block.expires_at.map(|at| at.0),
        block.finding_id,
        seq
    ])?;
    Ok(id)
}
