//! Who has opted out of being logged by name: keyed hashes alone.
//!
//! Owns the table `opt_outs`. Must not know whom a hash is of.

use rusqlite::{Connection, params};
use serde::Serialize;

use portcullis_model::UnixMs;

use super::{State, next_seq, note};
use crate::error::StoreError;

/// The most opt-outs that there can be: all of them are in the gateway's memory.
pub const MAX_OPT_OUTS: usize = 1_000_000;

/// One address or user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OptOut {
    pub digest: String,
    /// `address` or `user`.
    pub kind: String,
    pub created_at: UnixMs,
}

/// Those in force, by number of change.
pub(super) fn in_force(connection: &Connection) -> rusqlite::Result<Vec<OptOut>> {
    let sql =
        "SELECT digest, kind, created_at FROM opt_outs WHERE removed_at IS NULL ORDER BY created_at, digest";
    connection
        .prepare_cached(sql)?
        .query_map([], |row| {
            Ok(OptOut { digest: row.get(0)?, kind: row.get(1)?, created_at: UnixMs(row.get(2)?) })
        })?
        .collect()
}

impl State {
    /// Opts somebody out. False when that is so already, or when there are [`MAX_OPT_OUTS`].
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn opt_out(
        &mut self,
        digest: &str,
        kind: &str,
        actor: &str,
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        self.write("opting out", |transaction| {
            let count: i64 = transaction.query_row(
                "SELECT count(*) FROM opt_outs WHERE removed_at IS NULL",
                [],
                |row| row.get(0),
            )?;
            if usize::try_from(count).unwrap_or(usize::MAX) >= MAX_OPT_OUTS {
                return Ok(false);
            }
            let seq = next_seq(transaction)?;
            let changed = transaction.execute(
                "INSERT INTO opt_outs (digest, kind, created_at, seq) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (digest) DO UPDATE SET removed_at = NULL, created_at = excluded.created_at, \
                 seq = excluded.seq WHERE removed_at IS NOT NULL",
                params![digest, kind, now.0, seq],
            )?;
            if changed > 0 {
                note(transaction, now, actor, "opt-out", digest, kind)?;
            }
            Ok(changed > 0)
        })
    }

    /// Takes an opt-out back. False when there is none.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn opt_in(&mut self, digest: &str, actor: &str, now: UnixMs) -> Result<bool, StoreError> {
        self.write("taking an opt-out back", |transaction| {
            let seq = next_seq(transaction)?;
            let changed = transaction.execute(
                "UPDATE opt_outs SET removed_at = ?2, seq = ?3 WHERE digest = ?1 AND removed_at IS NULL",
                params![digest, now.0, seq],
            )?;
            if changed > 0 {
                note(transaction, now, actor, "opt-in", digest, "")?;
            }
            Ok(changed > 0)
        })
    }

    /// All opt-outs in force, oldest first.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn opt_outs(&self) -> Result<Vec<OptOut>, StoreError> {
        self.read("reading the opt-outs", || in_force(&self.connection))
    }
}
