//! What people said is no attack, and what the detector remembers of clients that were odd.
//!
//! Owns the tables `nevers` and `weak_evidence`. Must not know what a rule does, or what a memory means.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use portcullis_model::{UnixMs, bare};

use super::{State, note, parsed};
use crate::error::StoreError;

/// The most that are in force at once: each is looked at for each request that is evidence.
pub const MAX_NEVERS: usize = 1_000;

/// What a rule is to be silent about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNever {
    pub rule: String,
    pub network: Option<IpNet>,
    pub path: Option<String>,
    pub note: String,
    pub finding_id: Option<i64>,
}

/// A rule that is silent about something, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Never {
    pub id: i64,
    pub rule: String,
    /// `None`: whoever it is.
    pub network: Option<IpNet>,
    /// And what is below it; `None`: whatever was asked for.
    pub path: Option<String>,
    pub note: String,
    /// The finding that was dismissed.
    pub finding_id: Option<i64>,
    pub created_at: UnixMs,
    pub created_by: String,
    pub removed_at: Option<UnixMs>,
    pub removed_by: Option<String>,
}

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.network, &self.path) {
            (Some(network), _) => write!(f, "{} about {}", self.rule, bare(network)),
            (None, Some(path)) => write!(f, "{} for {path} and what is below it", self.rule),
            (None, None) => write!(f, "{} about anybody", self.rule),
        }
    }
}

const COLUMNS: &str =
    "id, rule, network, path, note, finding_id, created_at, created_by, removed_at, removed_by";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Never> {
    let network: Option<String> = row.get(2)?;
    Ok(Never {
        id: row.get(0)?,
        rule: row.get(1)?,
        network: network.map(|_| parsed(row, 2)).transpose()?,
        path: row.get(3)?,
        note: row.get(4)?,
        finding_id: row.get(5)?,
        created_at: UnixMs(row.get(6)?),
        created_by: row.get(7)?,
        removed_at: row.get::<_, Option<i64>>(8)?.map(UnixMs),
        removed_by: row.get(9)?,
    })
}

fn in_force(connection: &Connection) -> rusqlite::Result<Vec<Never>> {
    let sql = format!("SELECT {COLUMNS} FROM nevers WHERE removed_at IS NULL ORDER BY id");
    connection.prepare_cached(&sql)?.query_map([], from_row)?.collect()
}

impl State {
    /// Makes a rule silent about something; returns what says so now, the same as before when it was silent already.
    /// `None` when there are [`MAX_NEVERS`].
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_never(
        &mut self,
        new: &NewNever,
        actor: &str,
        now: UnixMs,
    ) -> Result<Option<Never>, StoreError> {
        self.write("noting what is no attack", |transaction| {
            let known = in_force(transaction)?;
            let is_same = |never: &Never| {
                never.rule == new.rule && never.network == new.network && never.path == new.path
            };
            let count = known.len();
            if let Some(same) = known.into_iter().find(is_same) {
                return Ok(Some(same));
            }
            if count >= MAX_NEVERS {
                return Ok(None);
            }
            transaction.execute(
                "INSERT INTO nevers (rule, network, path, note, finding_id, created_at, created_by) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    new.rule,
                    new.network.map(|network| network.to_string()),
                    new.path,
                    new.note,
                    new.finding_id,
                    now.0,
                    actor
                ],
            )?;
            let id = transaction.last_insert_rowid();
            note(transaction, now, actor, "never", &id.to_string(), &new.rule)?;
            by_id(transaction, id)
        })
    }

    /// Lets a rule speak again; the row stays, so that old findings can be explained. False when it is not in force.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn remove_never(&mut self, id: i64, actor: &str, now: UnixMs) -> Result<bool, StoreError> {
        self.write("taking back what is no attack", |transaction| {
            let changed = transaction.execute(
                "UPDATE nevers SET removed_at = ?2, removed_by = ?3 WHERE id = ?1 AND removed_at IS NULL",
                params![id, now.0, actor],
            )?;
            if changed > 0 {
                note(transaction, now, actor, "never again", &id.to_string(), "taken back")?;
            }
            Ok(changed > 0)
        })
    }

    /// All that are in force, the oldest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn nevers(&self) -> Result<Vec<Never>, StoreError> {
        self.read("reading what is no attack", || in_force(&self.connection))
    }

    /// What the detector remembers of clients that were odd, each as it was stored.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn weak_evidence(&self) -> Result<Vec<(IpAddr, String)>, StoreError> {
        self.read("reading what was odd", || {
            self.connection
                .prepare_cached("SELECT client, memory FROM weak_evidence ORDER BY client")?
                .query_map([], |row| Ok((parsed(row, 0)?, row.get(1)?)))?
                .collect()
        })
    }

    /// Stores what changed of it, and forgets what was last odd before `forget`.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn remember_weak_evidence(
        &mut self,
        changed: &[(IpAddr, String)],
        now: UnixMs,
        forget: UnixMs,
    ) -> Result<(), StoreError> {
        self.write("remembering what was odd", |transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO weak_evidence (client, last_seen, memory) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (client) DO UPDATE SET last_seen = excluded.last_seen, memory = excluded.memory",
            )?;
            for (client, memory) in changed {
                insert.execute(params![client.to_string(), now.0, memory])?;
            }
            transaction.execute("DELETE FROM weak_evidence WHERE last_seen < ?1", [forget.0])?;
            Ok(())
        })
    }
}

impl State {
    /// The one with this number, also one that was taken back.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn never(&self, id: i64) -> Result<Option<Never>, StoreError> {
        self.read("reading what is no attack", || by_id(&self.connection, id))
    }
}

fn by_id(connection: &Connection, id: i64) -> rusqlite::Result<Option<Never>> {
    let sql = format!("SELECT {COLUMNS} FROM nevers WHERE id = ?1");
    connection.prepare_cached(&sql)?.query_row([id], from_row).optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never(rule: &str, network: Option<&str>) -> NewNever {
        NewNever {
            rule: rule.to_owned(),
            network: network.map(|network| network.parse().unwrap()),
            path: None,
            note: "ours".to_owned(),
            finding_id: Some(3),
        }
    }

    #[test]
    fn what_was_said_once_is_said_once_and_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open_or_create(dir.path()).unwrap();
        let of_client = never("path_probing", Some("203.0.113.9/32"));
        let first = state.add_never(&of_client, "ann", UnixMs(5)).unwrap().unwrap();
        let again = state.add_never(&of_client, "bob", UnixMs(6)).unwrap().unwrap();
        assert_eq!(first, again);
        assert_eq!((first.created_by.as_str(), first.finding_id), ("ann", Some(3)));
        let everybody = state.add_never(&never("error_rate", None), "ann", UnixMs(7)).unwrap().unwrap();
        assert_eq!(state.nevers().unwrap(), [first.clone(), everybody]);
        assert!(state.remove_never(first.id, "ann", UnixMs(8)).unwrap());
        assert!(!state.remove_never(first.id, "ann", UnixMs(9)).unwrap());
        assert_eq!(state.nevers().unwrap().len(), 1);
        let anew = state.add_never(&of_client, "ann", UnixMs(10)).unwrap().unwrap();
        assert_ne!(anew.id, first.id);
    }

    #[test]
    fn there_are_never_more_than_can_be_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open_or_create(dir.path()).unwrap();
        state
            .connection
            .execute_batch(&format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_NEVERS}) \
                 INSERT INTO nevers (rule, path, note, created_at, created_by) SELECT 'x', '/' || i, '', 1, 'a' \
                 FROM n"
            ))
            .unwrap();
        assert_eq!(state.add_never(&never("y", None), "ann", UnixMs(5)).unwrap(), None);
    }

    #[test]
    fn memories_are_kept_until_they_are_old() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open_or_create(dir.path()).unwrap();
        let client = |n: u8| IpAddr::from([192, 0, 2, n]);
        let memory = |n: u8, text: &str| (client(n), text.to_owned());
        state.remember_weak_evidence(&[memory(1, "a"), memory(2, "b")], UnixMs(100), UnixMs(0)).unwrap();
        state.remember_weak_evidence(&[memory(2, "c")], UnixMs(200), UnixMs(150)).unwrap();
        assert_eq!(state.weak_evidence().unwrap(), [memory(2, "c")]);
    }
}
