//! Blocks: added, replaced, removed, and kept afterwards because old decisions refer to them.
//!
//! Owns the table `blocks`. Must not delete a row when a block is removed.

use ipnet::IpNet;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use portcullis_model::{Block, BlockSource, ClientIp, UnixMs};

use super::{State, next_seq, note, parsed, row_limit};
use crate::error::StoreError;

/// A block that is to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBlock {
    pub network: IpNet,
    pub reason: String,
    pub source: BlockSource,
    pub created_at: UnixMs,
    /// `None` lasts until somebody removes it.
    pub expires_at: Option<UnixMs>,
    pub finding_id: Option<i64>,
}

/// A block as it is or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredBlock {
    pub block: Block,
    pub removed_at: Option<UnixMs>,
    /// An actor's name, `replaced`, or `expired`.
    pub removed_by: Option<String>,
}

/// What became of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    pub added: u64,
    /// Blocked before, for as long or longer.
    pub kept: u64,
}

pub(super) const COLUMNS: &str = "id, network, reason, source, created_at, expires_at, finding_id";

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Block> {
    Ok(Block {
        id: row.get(0)?,
        network: parsed(row, 1)?,
        reason: row.get(2)?,
        source: parsed(row, 3)?,
        created_at: UnixMs(row.get(4)?),
        expires_at: row.get::<_, Option<i64>>(5)?.map(UnixMs),
        finding_id: row.get(6)?,
    })
}

/// Reads [`COLUMNS`] and the two columns of a removal.
pub(super) fn stored_from_row(row: &Row<'_>) -> rusqlite::Result<StoredBlock> {
    Ok(StoredBlock {
        block: from_row(row)?,
        removed_at: row.get::<_, Option<i64>>(7)?.map(UnixMs),
        removed_by: row.get(8)?,
    })
}

impl State {
    /// Adds a block. One of the same network that is in force is replaced.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_block(&mut self, block: NewBlock, actor: &str) -> Result<Block, StoreError> {
        self.write("adding a block", |transaction| {
            let seq = next_seq(transaction)?;
            let id = insert(transaction, &block, seq)?;
            note(
                transaction,
                block.created_at,
                actor,
                "block",
                &block.network.to_string(),
                &format!("block {id}: {}", block.reason),
            )?;
            Ok(Block {
                id,
                network: block.network,
                reason: block.reason,
                source: block.source,
                created_at: block.created_at,
                expires_at: block.expires_at,
                finding_id: block.finding_id,
            })
        })
    }

    /// Adds many blocks in one transaction, with one audit entry. Returns how many there were.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_blocks(
        &mut self,
        blocks: impl IntoIterator<Item = NewBlock>,
        actor: &str,
    ) -> Result<usize, StoreError> {
        self.write("adding blocks", |transaction| {
            let seq = next_seq(transaction)?;
            let mut count = 0;
            let mut at = UnixMs(0);
            for block in blocks {
                insert(transaction, &block, seq)?;
                at = block.created_at;
                count += 1;
            }
            if count > 0 {
                note(transaction, at, actor, "block", "many", &format!("{count} blocks"))?;
            }
            Ok(count)
        })
    }

    /// Adds the blocks of a list in one transaction, with one audit entry. A network that is blocked already,
    /// for as long or longer, stays as it is, so that importing the same list again changes nothing.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn import_blocks(
        &mut self,
        blocks: &[NewBlock],
        actor: &str,
        now: UnixMs,
    ) -> Result<Imported, StoreError> {
        self.write("importing blocks", |transaction| {
            let seq = next_seq(transaction)?;
            let mut imported = Imported::default();
            for block in blocks {
                if outlasts(transaction, block, now)? {
                    imported.kept += 1;
                } else {
                    insert(transaction, block, seq)?;
                    imported.added += 1;
                }
            }
            if imported.added > 0 {
                let detail = format!("{} blocks imported", imported.added);
                note(transaction, now, actor, "block", "many", &detail)?;
            }
            Ok(imported)
        })
    }

    /// What [`State::import_blocks`] would do.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn rehearse_import(&self, blocks: &[NewBlock], now: UnixMs) -> Result<Imported, StoreError> {
        self.read("reading the blocks", || {
            let mut imported = Imported::default();
            for block in blocks {
                match outlasts(&self.connection, block, now)? {
                    true => imported.kept += 1,
                    false => imported.added += 1,
                }
            }
            Ok(imported)
        })
    }

    /// Removes the block of exactly this network. Returns what was in force: empty when there was none.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn remove_block(
        &mut self,
        network: &IpNet,
        actor: &str,
        now: UnixMs,
    ) -> Result<Vec<Block>, StoreError> {
        self.write("removing a block", |transaction| {
            let text = network.to_string();
            let Some(block) = standing(transaction, &text)?.filter(|block| !block.is_expired(now)) else {
                return Ok(Vec::new());
            };
            let seq = next_seq(transaction)?;
            mark_removed(transaction, block.id, now, actor, seq)?;
            let detail = format!("block {}: {}", block.id, block.reason);
            note(transaction, now, actor, "unblock", &text, &detail)?;
            Ok(vec![block])
        })
    }

    /// Removes the blocks with these numbers, with one audit entry. Returns how many of them were in force.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn remove_blocks(
        &mut self,
        ids: impl IntoIterator<Item = i64>,
        actor: &str,
        now: UnixMs,
    ) -> Result<u64, StoreError> {
        self.write("removing blocks", |transaction| {
            let seq = next_seq(transaction)?;
            let mut removed = 0;
            for id in ids {
                let changed = transaction
                    .prepare_cached(
                        "UPDATE blocks SET removed_at = ?2, removed_by = ?3, seq = ?4 WHERE id = ?1 \
                         AND removed_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)",
                    )?
                    .execute(params![id, now.0, actor, seq])?;
                removed += changed as u64;
            }
            if removed > 0 {
                note(transaction, now, actor, "unblock", "many", &format!("{removed} blocks"))?;
            }
            Ok(removed)
        })
    }

    /// The block of exactly this network in force at `now`.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn block_of(&self, network: &IpNet, now: UnixMs) -> Result<Option<Block>, StoreError> {
        self.read("reading the block of a network", || {
            let block = standing(&self.connection, &network.trunc().to_string())?;
            Ok(block.filter(|block| !block.is_expired(now)))
        })
    }

    /// The highest number that a block has had.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn newest_block(&self) -> Result<i64, StoreError> {
        self.read("reading the newest block", || {
            self.connection
                .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'blocks'")?
                .query_row([], |row| row.get(0))
        })
    }

    /// The block with this number, also one that has been removed or has run out.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn block(&self, id: i64) -> Result<Option<StoredBlock>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, removed_at, removed_by FROM blocks WHERE id = ?1");
        self.read("reading a block", || {
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.query_row([id], stored_from_row).optional()
        })
    }

    /// The newest blocks, also those that have been removed or have run out, newest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn recent_blocks(&self, limit: usize) -> Result<Vec<StoredBlock>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, removed_at, removed_by FROM blocks ORDER BY id DESC LIMIT ?1");
        self.read("reading the blocks", || {
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.query_map([row_limit(limit)], stored_from_row)?.collect()
        })
    }

    /// How often the detector has blocked exactly this network since then. Blocks that a person lifted do not
    /// count: they were mistakes.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn earlier_blocks(&self, network: &IpNet, since: UnixMs) -> Result<usize, StoreError> {
        let sql = "SELECT count(*) FROM blocks WHERE source = 'detector' AND network = ?1 AND created_at >= ?2 \
                   AND (removed_by IS NULL OR removed_by IN ('expired', 'replaced'))";
        self.read("counting the earlier blocks of a network", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let count: i64 =
                statement.query_row(params![network.trunc().to_string(), since.0], |row| row.get(0))?;
            Ok(usize::try_from(count).unwrap_or(0))
        })
    }

    /// All blocks in force at `now`, oldest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn active_blocks(&self, now: UnixMs) -> Result<Vec<Block>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM blocks \
             WHERE removed_at IS NULL AND (expires_at IS NULL OR expires_at > ?1) ORDER BY id"
        );
        self.read("reading the blocks", || {
            self.connection.prepare_cached(&sql)?.query_map([now.0], from_row)?.collect()
        })
    }

    /// The blocks in force at `now` that contain the address, the most specific first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn covering(&self, client: ClientIp, now: UnixMs) -> Result<Vec<Block>, StoreError> {
        self.read("reading the blocks of an address", || {
            let mut covering = Vec::new();
            for network in networks_around(client) {
                covering.extend(standing(&self.connection, &network)?.filter(|block| !block.is_expired(now)));
            }
            Ok(covering)
        })
    }
}

/// Every prefix that contains the address, as the tables write them, the longest first.
pub(super) fn networks_around(client: ClientIp) -> impl Iterator<Item = String> {
    let host = IpNet::from(client.ip());
    std::iter::successors(Some(host), IpNet::supernet).map(|network| network.to_string())
}

/// The block of exactly this network that nobody has removed; it may have run out.
fn standing(connection: &Connection, network: &str) -> rusqlite::Result<Option<Block>> {
    let sql = format!("SELECT {COLUMNS} FROM blocks WHERE network = ?1 AND removed_at IS NULL");
    connection.prepare_cached(&sql)?.query_row([network], from_row).optional()
}

/// Whether the network is blocked already, for as long as the new block or longer.
fn outlasts(connection: &Connection, new: &NewBlock, now: UnixMs) -> rusqlite::Result<bool> {
    let standing = standing(connection, &new.network.trunc().to_string())?;
    Ok(standing.filter(|block| !block.is_expired(now)).is_some_and(|block| {
        match (block.expires_at, new.expires_at) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(old), Some(new)) => old >= new,
        }
    }))
}

/// Inserts a block in the place of the one that stands for the same network.
pub(super) fn insert(transaction: &Connection, block: &NewBlock, seq: i64) -> rusqlite::Result<i64> {
    let network = block.network.trunc().to_string();
    transaction
        .prepare_cached(
            "UPDATE blocks SET removed_at = ?2, seq = ?3, \
             removed_by = CASE WHEN expires_at <= ?2 THEN 'expired' ELSE 'replaced' END \
             WHERE network = ?1 AND removed_at IS NULL",
        )?
        .execute(params![network, block.created_at.0, seq])?;
    transaction
        .prepare_cached(
            "INSERT INTO blocks (network, reason, source, created_at, expires_at, finding_id, seq) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            network,
            block.reason,
            block.source.as_str(),
            block.created_at.0,
            block.expires_at.map(|at| at.0),
            block.finding_id,
            seq
        ])?;
    Ok(transaction.last_insert_rowid())
}

pub(super) fn mark_removed(
    transaction: &Connection,
    id: i64,
    now: UnixMs,
    actor: &str,
    seq: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE blocks SET removed_at = ?2, removed_by = ?3, seq = ?4 WHERE id = ?1")?
        .execute(params![id, now.0, actor, seq])?;
    Ok(())
}
