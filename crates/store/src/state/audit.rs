//! The audit trail: who changed what, when and from where.
//!
//! Owns the table `audit`. Every change notes itself in its own transaction; must not note secrets.

use std::net::IpAddr;

use rusqlite::{Connection, Row, params};
use serde::Serialize;

use portcullis_model::UnixMs;

use super::{State, row_limit};
use crate::error::StoreError;

/// Who did what, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    pub id: i64,
    pub at: UnixMs,
    pub actor: String,
    /// `block`, `unblock`, `allow`, `disallow`, `set`, `finding`, ...
    pub action: String,
    /// What it was done to: a network, a setting's name, a finding's number.
    pub subject: String,
    pub detail: String,
    /// The address that it was done from, where it was not done on this machine's command line or by the gateway itself.
    pub origin: Option<String>,
}

/// Which entries of the audit trail; an empty one is all of them.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// What the actor begins with: `console:`, `cli:alice`.
    pub actor: Option<String>,
    pub action: Option<String>,
    /// Only entries older than the one with this number.
    pub before: Option<i64>,
}

impl State {
    /// The newest audit entries since `since`, newest first.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn audit(&self, since: UnixMs, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let sql = "SELECT id, at, actor, action, subject, detail, origin FROM audit \
                   WHERE at >= ?1 ORDER BY id DESC LIMIT ?2";
        self.read("reading the audit trail", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_map(params![since.0, row_limit(limit)], entry)?.collect()
        })
    }

    /// Entries of the audit trail, newest first.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn audit_page(&self, filter: &AuditFilter, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let sql = "SELECT id, at, actor, action, subject, detail, origin FROM audit \
                   WHERE id < ?1 AND (?2 IS NULL OR substr(actor, 1, length(?2)) = ?2) \
                   AND (?3 IS NULL OR action = ?3) ORDER BY id DESC LIMIT ?4";
        let AuditFilter { actor, action, before } = filter;
        self.read("reading the audit trail", || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let bounds = params![before.unwrap_or(i64::MAX), actor, action, row_limit(limit)];
            statement.query_map(bounds, entry)?.collect()
        })
    }

    /// Notes what changed no row: a sign-in that failed, an export.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn note_act(
        &mut self,
        actor: &str,
        action: &str,
        subject: &str,
        detail: &str,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.write("noting an act", |transaction| note(transaction, now, actor, action, subject, detail))
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        id: row.get(0)?,
        at: UnixMs(row.get(1)?),
        actor: row.get(2)?,
        action: row.get(3)?,
        subject: row.get(4)?,
        detail: row.get(5)?,
        origin: row.get(6)?,
    })
}

pub(super) fn note(
    transaction: &Connection,
    at: UnixMs,
    actor: &str,
    action: &str,
    subject: &str,
    detail: &str,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO audit (at, actor, action, subject, detail) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![at.0, actor, action, subject, detail])?;
    Ok(())
}

/// Runs `change`, and adds the address to what it has noted. Nobody else writes meanwhile.
pub(super) fn noting_origin<T>(
    transaction: &Connection,
    from: IpAddr,
    change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let newest = "SELECT coalesce(max(id), 0) FROM audit";
    let before: i64 = transaction.prepare_cached(newest)?.query_row([], |row| row.get(0))?;
    let value = change(transaction)?;
    transaction
        .prepare_cached("UPDATE audit SET origin = ?1 WHERE id > ?2")?
        .execute(params![from.to_string(), before])?;
    Ok(value)
}
