//! Settings that were changed while running and win over the configuration file.
//!
//! Owns the table `settings`. Must not know what a setting means.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use portcullis_model::UnixMs;

use super::{State, next_seq, note};
use crate::error::StoreError;

/// A setting's name and its value as text, and who gave it that value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    pub key: String,
    pub value: String,
    /// `None`: the audit trail does not go back so far.
    pub changed_at: Option<UnixMs>,
    pub changed_by: Option<String>,
}

/// What stands in the place of a value that was taken back: the row stays, so that the change has a number.
const NONE: &str = "";

/// The last entry of the audit trail about a setting.
const LAST_CHANGE: &str = "(SELECT max(id) FROM audit WHERE action = 'set' AND subject = settings.key)";

impl State {
    /// The value of a setting.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.read("reading a setting", || value_of(&self.connection, key))
    }

    /// Sets a value, which is not empty.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn set_setting(
        &mut self,
        key: &str,
        value: &str,
        actor: &str,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        self.write("changing a setting", |transaction| {
            let before = value_of(transaction, key)?;
            put(transaction, key, value)?;
            let detail = match before {
                Some(before) => format!("{before} -> {value}"),
                None => value.to_owned(),
            };
            note(transaction, now, actor, "set", key, &detail)
        })
    }

    /// Takes a value back, and says what it was; `None` when there was none.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn unset_setting(
        &mut self,
        key: &str,
        actor: &str,
        now: UnixMs,
    ) -> Result<Option<String>, StoreError> {
        self.write("taking a setting back", |transaction| {
            let Some(before) = value_of(transaction, key)? else { return Ok(None) };
            put(transaction, key, NONE)?;
            note(transaction, now, actor, "unset", key, &before)?;
            Ok(Some(before))
        })
    }

    /// All settings that have a value, by name.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        let sql = format!(
            "SELECT key, value, audit.at, audit.actor FROM settings \
             LEFT JOIN audit ON audit.id = {LAST_CHANGE} WHERE value <> ?1 ORDER BY key"
        );
        self.read("reading the settings", || {
            let mut statement = self.connection.prepare_cached(&sql)?;
            let settings = statement.query_map([NONE], |row| {
                Ok(Setting {
                    key: row.get(0)?,
                    value: row.get(1)?,
                    changed_at: row.get::<_, Option<i64>>(2)?.map(UnixMs),
                    changed_by: row.get(3)?,
                })
            })?;
            settings.collect()
        })
    }
}

fn value_of(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM settings WHERE key = ?1 AND value <> ?2")?
        .query_row([key, NONE], |row| row.get(0))
        .optional()
}

fn put(transaction: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    let seq = next_seq(transaction)?;
    transaction.execute(
        "INSERT INTO settings (key, value, seq) VALUES (?1, ?2, ?3) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, seq = excluded.seq",
        params![key, value, seq],
    )?;
    Ok(())
}
