//! What HTTP sources of locations said, and how it is with the sources, kept across restarts and shared by
//! all processes.
//!
//! Owns the tables `geo_cache` and `geo_sources`. Must not decide how old an answer may be, nor know what
//! the state of a source means: the caller does.

use rusqlite::{OptionalExtension, params};

use portcullis_model::{ClientIp, Location, UnixMs};

use super::{State, parsed, row_limit};
use crate::error::StoreError;

/// What one source said about one address.
#[derive(Clone, Debug, PartialEq)]
pub struct GeoAnswer {
    /// The source's name.
    pub source: String,
    /// An unknown location is an answer too: the source does not know the address.
    pub location: Location,
    pub fetched_at: UnixMs,
}

impl State {
    /// What sources said about an address, whatever its age.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn geo_answers(&self, client: ClientIp) -> Result<Vec<GeoAnswer>, StoreError> {
        let rows: Vec<(String, String, i64)> = self.read("reading the location cache", || {
            self.connection
                .prepare_cached(
                    "SELECT source, location, fetched_at FROM geo_cache WHERE ip = ?1 ORDER BY source",
                )?
                .query_map([client.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        let answer = |(source, json, at): (String, String, i64)| match serde_json::from_str(&json) {
            Ok(location) => Ok(GeoAnswer { source, location, fetched_at: UnixMs(at) }),
            Err(_) => Err(StoreError::BadValue { table: "geo_cache", column: "location", value: json }),
        };
        rows.into_iter().map(answer).collect()
    }

    /// Keeps what a source said about an address, in the place of what it said before.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn keep_geo_answer(&mut self, client: ClientIp, answer: &GeoAnswer) -> Result<(), StoreError> {
        let json = serde_json::json!(answer.location).to_string();
        self.write("keeping a location", |transaction| {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO geo_cache (ip, source, location, fetched_at) \
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![client.to_string(), answer.source, json, answer.fetched_at.0])?;
            Ok(())
        })
    }

    /// The addresses that an answer came for after `after`, the oldest first, each with the time of its
    /// newest answer.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn geo_answers_after(
        &self,
        after: UnixMs,
        limit: usize,
    ) -> Result<Vec<(ClientIp, UnixMs)>, StoreError> {
        self.read("reading the newest locations", || {
            self.connection
                .prepare_cached(
                    "SELECT ip, max(fetched_at) AS newest FROM geo_cache WHERE fetched_at > ?1 \
                     GROUP BY ip ORDER BY newest LIMIT ?2",
                )?
                .query_map(params![after.0, row_limit(limit)], |row| {
                    Ok((parsed(row, 0)?, UnixMs(row.get(1)?)))
                })?
                .collect()
        })
    }

    /// The addresses whose newest answer is from before `before`, the newest of them first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn geo_answers_before(&self, before: UnixMs, limit: usize) -> Result<Vec<ClientIp>, StoreError> {
        self.read("reading old locations", || {
            self.connection
                .prepare_cached(
                    "SELECT ip, max(fetched_at) AS newest FROM geo_cache GROUP BY ip \
                     HAVING newest < ?1 ORDER BY newest DESC LIMIT ?2",
                )?
                .query_map(params![before.0, row_limit(limit)], |row| parsed(row, 0))?
                .collect()
        })
    }

    /// How many answers are kept.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn geo_answer_count(&self) -> Result<u64, StoreError> {
        let count: i64 = self.read("counting locations", || {
            self.connection.query_row("SELECT count(*) FROM geo_cache", [], |row| row.get(0))
        })?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Deletes the oldest answers beyond the newest `max`.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn trim_geo_answers(&mut self, max: usize) -> Result<usize, StoreError> {
        self.write("bounding the location cache", |transaction| {
            transaction.execute(
                "DELETE FROM geo_cache WHERE fetched_at <= \
                 (SELECT fetched_at FROM geo_cache ORDER BY fetched_at DESC LIMIT 1 OFFSET ?1)",
                [row_limit(max)],
            )
        })
    }

    /// What is kept of a source; `None` before the first time.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn geo_source(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.read("reading how it is with a geo source", || {
            self.connection
                .prepare_cached("SELECT state FROM geo_sources WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()
        })
    }

    /// Changes what is kept of a source in one transaction: no other process changes it in between.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn change_geo_source(
        &mut self,
        name: &str,
        change: &mut dyn FnMut(Option<&str>) -> String,
    ) -> Result<(), StoreError> {
        self.write("changing how it is with a geo source", |transaction| {
            let old: Option<String> = transaction
                .prepare_cached("SELECT state FROM geo_sources WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO geo_sources (name, state) VALUES (?1, ?2)")?
                .execute(params![name, change(old.as_deref())])?;
            Ok(())
        })
    }
}
