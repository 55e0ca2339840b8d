//! Settings that were changed while running and win over the configuration file.
//!
//! Owns the table `settings`. Must not know what a setting means.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use portcullis_model::UnixMs;

use super::{State, next_seq, note};
use crate::error::StoreError;

/// A setting's name and its value as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    pub key: String,
    pub value: String,
}

impl State {
    /// The value of a setting.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.read("reading a setting", || {
            self.connection
                .prepare_cached("SELECT value FROM settings WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()
        })
    }

    /// Sets a value.
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
            let seq = next_seq(transaction)?;
            let before: Option<String> = transaction
                .query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get(0))
                .optional()?;
            transaction.execute(
                "INSERT INTO settings (key, value, seq) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, seq = excluded.seq",
                params![key, value, seq],
            )?;
            let detail = match before {
                Some(before) => format!("{before} -> {value}"),
                None => value.to_owned(),
            };
            note(transaction, now, actor, "set", key, &detail)
        })
    }

    /// All settings, by name.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        self.read("reading the settings", || {
            let mut statement =
                self.connection.prepare_cached("SELECT key, value FROM settings ORDER BY key")?;
            let settings =
                statement.query_map([], |row| Ok(Setting { key: row.get(0)?, value: row.get(1)? }))?;
            settings.collect()
        })
    }
}
