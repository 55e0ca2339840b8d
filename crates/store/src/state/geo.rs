//! Locations that an HTTP source gave, kept across restarts.
//!
//! Owns the table `geo_cache`. Must not decide how old a location may be: the caller does.

use rusqlite::{OptionalExtension, params};

use portcullis_model::{ClientIp, Location, UnixMs};

use super::State;
use crate::error::StoreError;

impl State {
    /// The location that was fetched at `not_before` or later, and when.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn cached_location(
        &self,
        client: ClientIp,
        not_before: UnixMs,
    ) -> Result<Option<(Location, UnixMs)>, StoreError> {
        let read = self.read("reading the location cache", || {
            self.connection
                .prepare_cached(
                    "SELECT location, fetched_at FROM geo_cache WHERE ip = ?1 AND fetched_at >= ?2",
                )?
                .query_row(params![client.to_string(), not_before.0], |row| {
                    Ok((row.get::<_, String>(0)?, UnixMs(row.get(1)?)))
                })
                .optional()
        })?;
        let Some((json, at)) = read else {
            return Ok(None);
        };
        let location = serde_json::from_str(&json).map_err(|_| StoreError::BadValue {
            table: "geo_cache",
            column: "location",
            value: json,
        })?;
        Ok(Some((location, at)))
    }

    /// Keeps what a source said about an address.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn cache_location(
        &mut self,
        client: ClientIp,
        location: &Location,
        source: &str,
        fetched_at: UnixMs,
    ) -> Result<(), StoreError> {
        let json = serde_json::json!(location).to_string();
        self.write("keeping a location", |transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO geo_cache (ip, location, source, fetched_at) VALUES (?1, ?2, ?3, ?4)",
                params![client.to_string(), json, source, fetched_at.0],
            )?;
            Ok(())
        })
    }
}
