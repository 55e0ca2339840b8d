//! What has changed since a reader last looked.
//!
//! Owns the change numbers. Must not drop a change: a reader that applies all answers in order holds
//! what the database holds.

use ipnet::IpNet;
use rusqlite::params;

use portcullis_model::{Allow, Block};

use super::{OptOut, PartyChange, State, parsed};
use super::{allows, blocks, opt_outs, parties};
use crate::error::StoreError;

/// The number of a change; the default comes before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(pub i64);

/// A block that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockChange {
    /// It may have an expiry, even one in the past.
    Added(Block),
    Removed {
        id: i64,
        network: IpNet,
    },
}

impl BlockChange {
    /// The block's removal.
    pub(super) fn undone(self) -> Self {
        match self {
            Self::Added(Block { id, network, .. }) | Self::Removed { id, network } => {
                Self::Removed { id, network }
            }
        }
    }
}

/// Everything after a change number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Removals first, so that a block in the place of another one can be applied by network.
    pub blocks: Vec<BlockChange>,
    /// The same of blocks of somebody behind an address.
    pub parties: Vec<PartyChange>,
    /// All allows in force, if any of them has changed.
    pub allows: Option<Vec<Allow>>,
    /// All opt-outs in force, if any of them has changed.
    pub opt_outs: Option<Vec<OptOut>>,
    pub settings_changed: bool,
    /// Another database stands in the place of the one that was watched. The configuration's entries may
    /// be missing in it.
    pub is_replaced: bool,
    /// The number to ask from next time.
    pub seq: Seq,
}

impl Changes {
    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
            && self.parties.is_empty()
            && self.allows.is_none()
            && self.opt_outs.is_none()
            && !self.settings_changed
    }
}

/// With the index by name: in the order of their numbers SQLite would read all blocks that ever were.
const REMOVED_SINCE: &str = "SELECT id, network FROM blocks INDEXED BY blocks_seq \
                             WHERE seq > ?1 AND removed_at IS NOT NULL ORDER BY id";

impl State {
    /// What has changed after `after`. From the default number on, that is all that is in force: blocks
    /// removed before are left out.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn changes(&self, after: Seq) -> Result<Changes, StoreError> {
        self.read("reading the changes", || self.read_changes(after))
    }

    fn read_changes(&self, after: Seq) -> rusqlite::Result<Changes> {
        // One transaction, so that the number belongs to what was read.
        let transaction = self.connection.unchecked_transaction()?;
        let seq: i64 = transaction.query_row("SELECT seq FROM counter", [], |row| row.get(0))?;
        if seq <= after.0 {
            return Ok(Changes { seq: after, ..Changes::default() });
        }
        let mut changes = Changes { seq: Seq(seq), ..Changes::default() };
        if after > Seq::default() {
            let mut removed = transaction.prepare_cached(REMOVED_SINCE)?;
            let mut rows = removed.query([after.0])?;
            while let Some(row) = rows.next()? {
                changes.blocks.push(BlockChange::Removed { id: row.get(0)?, network: parsed(row, 1)? });
            }
        }
        // From the beginning on, the table in its own order is quicker than its index on seq.
        let index = if after > Seq::default() { "INDEXED BY blocks_seq" } else { "NOT INDEXED" };
        let sql = format!(
            "SELECT {} FROM blocks {index} WHERE seq > ?1 AND removed_at IS NULL ORDER BY id",
            blocks::COLUMNS
        );
        let mut added = transaction.prepare_cached(&sql)?;
        let mut rows = added.query([after.0])?;
        while let Some(row) = rows.next()? {
            changes.blocks.push(BlockChange::Added(blocks::from_row(row)?));
        }
        changes.parties = parties::changes(&transaction, after.0)?;
        let exists = |table: &str| {
            transaction
                .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE seq > ?1)"))?
                .query_row(params![after.0], |row| row.get::<_, bool>(0))
        };
        if exists("allows")? {
            changes.allows = Some(allows::in_force(&transaction)?);
        }
        if exists("opt_outs")? {
            changes.opt_outs = Some(opt_outs::in_force(&transaction)?);
        }
        changes.settings_changed = exists("settings")?;
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_found_without_reading_every_block() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let plan: String = state
            .connection
            .query_row(&format!("EXPLAIN QUERY PLAN {REMOVED_SINCE}"), [1], |row| row.get(3))
            .unwrap();
        assert!(plan.contains("USING INDEX blocks_seq (seq>?)"), "{plan}");
    }
}
