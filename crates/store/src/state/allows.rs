//! Allows, and the blocks and allows that the configuration file lists.
//!
//! Owns the table `allows`. Must not delete a row when an allow is removed: old decisions refer to it.

use std::collections::HashMap;

use ipnet::IpNet;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use portcullis_model::{Allow, BlockSource, ClientIp, UnixMs};

use super::blocks::{self, NewBlock, networks_around};
use super::{State, next_seq, note, parsed};
use crate::error::StoreError;

/// Who acts when an entry of the configuration file comes or goes.
const CONFIG_ACTOR: &str = "config";

/// An allow as it is or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredAllow {
    pub allow: Allow,
    pub removed_at: Option<UnixMs>,
    /// An actor's name, or `replaced`.
    pub removed_by: Option<String>,
}

pub(super) const COLUMNS: &str = "id, network, reason, source, created_at";

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Allow> {
    Ok(Allow {
        id: row.get(0)?,
        network: parsed(row, 1)?,
        reason: row.get(2)?,
        source: parsed(row, 3)?,
        created_at: UnixMs(row.get(4)?),
    })
}

/// All allows in force, oldest first.
pub(super) fn in_force(connection: &Connection) -> rusqlite::Result<Vec<Allow>> {
    let sql = format!("SELECT {COLUMNS} FROM allows WHERE removed_at IS NULL ORDER BY id");
    connection.prepare_cached(&sql)?.query_map([], from_row)?.collect()
}

impl State {
    /// Adds an allow. One of the same network is replaced.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_allow(
        &mut self,
        network: IpNet,
        reason: &str,
        source: BlockSource,
        actor: &str,
        now: UnixMs,
    ) -> Result<Allow, StoreError> {
        self.write("adding an allow", |transaction| {
            let seq = next_seq(transaction)?;
            let allow = insert(transaction, network, reason, source, now, seq)?;
            let detail = format!("allow {}: {reason}", allow.id);
            note(transaction, now, actor, "allow", &allow.network.to_string(), &detail)?;
            Ok(allow)
        })
    }

    /// Removes the allow of exactly this network. Returns what was in force: empty when there was none.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn remove_allow(
        &mut self,
        network: &IpNet,
        actor: &str,
        now: UnixMs,
    ) -> Result<Vec<Allow>, StoreError> {
        self.write("removing an allow", |transaction| {
            let text = network.to_string();
            let Some(allow) = standing(transaction, &text)? else { return Ok(Vec::new()) };
            let seq = next_seq(transaction)?;
            mark_removed(transaction, allow.id, now, actor, seq)?;
            let detail = format!("allow {}: {}", allow.id, allow.reason);
            note(transaction, now, actor, "disallow", &text, &detail)?;
            Ok(vec![allow])
        })
    }

    /// The allow with this number, also one that has been removed.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn allow(&self, id: i64) -> Result<Option<StoredAllow>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, removed_at, removed_by FROM allows WHERE id = ?1");
        self.read("reading an allow", || {
            let mut statement = self.connection.prepare_cached(&sql)?;
            let stored = statement.query_row([id], |row| {
                Ok(StoredAllow {
                    allow: from_row(row)?,
                    removed_at: row.get::<_, Option<i64>>(5)?.map(UnixMs),
                    removed_by: row.get(6)?,
                })
            });
            stored.optional()
        })
    }

    /// All allows in force, oldest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn allows(&self) -> Result<Vec<Allow>, StoreError> {
        self.read("reading the allows", || in_force(&self.connection))
    }

    /// The allows in force that contain the address, the most specific first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn allows_covering(&self, client: ClientIp) -> Result<Vec<Allow>, StoreError> {
        self.read("reading the allows of an address", || {
            let mut covering = Vec::new();
            for network in networks_around(client) {
                covering.extend(standing(&self.connection, &network)?);
            }
            Ok(covering)
        })
    }

    /// Makes the entries with source `config` exactly those of the configuration file, given as network
    /// and reason. Entries that did not change keep their numbers. A block or allow of the same network
    /// that a person or the detector added stays as it is.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn sync_config(
        &mut self,
        blocks: &[(IpNet, String)],
        allows: &[(IpNet, String)],
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.write("taking over the configuration's blocks and allows", |transaction| {
            sync_blocks(transaction, blocks, now)?;
            sync_allows(transaction, allows, now)
        })
    }
}

/// A table of blocks or allows, as far as the configuration file is concerned.
struct Plan<'a> {
    /// Numbers and networks of rows that the file does not list any more.
    gone: Vec<(i64, String)>,
    /// Entries without a row of the same reason.
    new: Vec<(IpNet, &'a str)>,
}

fn plan<'a>(
    transaction: &Connection,
    table: &str,
    unexpired: &str,
    entries: &'a [(IpNet, String)],
    now: UnixMs,
) -> rusqlite::Result<Plan<'a>> {
    let mut wanted: HashMap<String, (IpNet, &str)> = entries
        .iter()
        .map(|(network, reason)| (network.trunc().to_string(), (network.trunc(), reason.as_str())))
        .collect();
    let mut plan = Plan { gone: Vec::new(), new: Vec::new() };
    let sql = format!(
        "SELECT id, network, reason, source FROM {table} \
         WHERE removed_at IS NULL AND (?1 IS NOT NULL {unexpired})"
    );
    let mut statement = transaction.prepare(&sql)?;
    let mut rows = statement.query([now.0])?;
    while let Some(row) = rows.next()? {
        let (id, network): (i64, String) = (row.get(0)?, row.get(1)?);
        let (reason, source): (String, BlockSource) = (row.get(2)?, parsed(row, 3)?);
        match (wanted.get(&network), source) {
            (Some((_, wanted_reason)), BlockSource::Config) if *wanted_reason == reason => {
                wanted.remove(&network);
            }
            // Its new row replaces it.
            (Some(_), BlockSource::Config) => {}
            (
                Some(_),
                BlockSource::Cli | BlockSource::Console | BlockSource::Detector | BlockSource::Import,
            ) => {
                wanted.remove(&network);
            }
            (None, BlockSource::Config) => plan.gone.push((id, network)),
            (None, BlockSource::Cli | BlockSource::Console | BlockSource::Detector | BlockSource::Import) => {
            }
        }
    }
    plan.new.extend(wanted.into_values());
    plan.new.sort_unstable();
    Ok(plan)
}

fn sync_blocks(transaction: &Connection, entries: &[(IpNet, String)], now: UnixMs) -> rusqlite::Result<()> {
    let unexpired = "AND (expires_at IS NULL OR expires_at > ?1)";
    let Plan { gone, new } = plan(transaction, "blocks", unexpired, entries, now)?;
    if gone.is_empty() && new.is_empty() {
        return Ok(());
    }
    let seq = next_seq(transaction)?;
    for (id, network) in gone {
        blocks::mark_removed(transaction, id, now, CONFIG_ACTOR, seq)?;
        note(transaction, now, CONFIG_ACTOR, "unblock", &network, &format!("block {id}"))?;
    }
    for (network, reason) in new {
        let block = NewBlock {
            network,
            reason: reason.to_owned(),
            source: BlockSource::Config,
            created_at: now,
            expires_at: None,
            finding_id: None,
        };
        let id = blocks::insert(transaction, &block, seq)?;
        let detail = format!("block {id}: {reason}");
        note(transaction, now, CONFIG_ACTOR, "block", &network.to_string(), &detail)?;
    }
    Ok(())
}

fn sync_allows(transaction: &Connection, entries: &[(IpNet, String)], now: UnixMs) -> rusqlite::Result<()> {
    let Plan { gone, new } = plan(transaction, "allows", "", entries, now)?;
    if gone.is_empty() && new.is_empty() {
        return Ok(());
    }
    let seq = next_seq(transaction)?;
    for (id, network) in gone {
        mark_removed(transaction, id, now, CONFIG_ACTOR, seq)?;
        note(transaction, now, CONFIG_ACTOR, "disallow", &network, &format!("allow {id}"))?;
    }
    for (network, reason) in new {
        let allow = insert(transaction, network, reason, BlockSource::Config, now, seq)?;
        let detail = format!("allow {}: {reason}", allow.id);
        note(transaction, now, CONFIG_ACTOR, "allow", &network.to_string(), &detail)?;
    }
    Ok(())
}

fn standing(connection: &Connection, network: &str) -> rusqlite::Result<Option<Allow>> {
    let sql = format!("SELECT {COLUMNS} FROM allows WHERE network = ?1 AND removed_at IS NULL");
    connection.prepare_cached(&sql)?.query_row([network], from_row).optional()
}

fn insert(
    transaction: &Connection,
    network: IpNet,
    reason: &str,
    source: BlockSource,
    now: UnixMs,
    seq: i64,
) -> rusqlite::Result<Allow> {
    let network = network.trunc();
    if let Some(old) = standing(transaction, &network.to_string())? {
        mark_removed(transaction, old.id, now, "replaced", seq)?;
    }
    transaction
        .prepare_cached(
            "INSERT INTO allows (network, reason, source, created_at, seq) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![network.to_string(), reason, source.as_str(), now.0, seq])?;
    let id = transaction.last_insert_rowid();
    Ok(Allow { id, network, reason: reason.to_owned(), source, created_at: now })
}

fn mark_removed(
    transaction: &Connection,
    id: i64,
    now: UnixMs,
    actor: &str,
    seq: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE allows SET removed_at = ?2, removed_by = ?3, seq = ?4 WHERE id = ?1")?
        .execute(params![id, now.0, actor, seq])?;
    Ok(())
}
