//! Of how many clients the log knows the country, and of which it does not.
//!
//! Owns the look at the clients of slices. Must not read rows: there are many more of them.

use serde::Serialize;

use portcullis_model::{ClientIp, UnixMs};

use super::{LogReader, Window};
use crate::error::StoreError;
use crate::log::slice::{Slice, first_number};

/// Slices that are looked at, the newest; more would be more terms than one statement may have.
const MAX_SLICES: usize = 100;

/// The clients of a stretch of time, and of how many the country is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    pub clients: u64,
    pub with_country: u64,
}

impl LogReader {
    /// Of how many clients since `since` the country is known. Whole slices are looked at, so that a few
    /// clients from before `since` are among them.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn coverage(&self, since: UnixMs) -> Result<Coverage, StoreError> {
        let Some(clients) = self.clients_since(since)? else { return Ok(Coverage::default()) };
        let sql = format!("SELECT count(*), coalesce(sum(has), 0) FROM ({clients})");
        let counts: Result<(i64, i64), _> =
            self.connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        let (all, with) = counts.map_err(self.error("counting the clients with a country"))?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Ok(Coverage { clients: count(all), with_country: count(with) })
    }

    /// Clients since `since` of which no country is known, at most `limit`. What is no address, because the
    /// log keeps none, is left out.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn clients_without_country(&self, since: UnixMs, limit: usize) -> Result<Vec<ClientIp>, StoreError> {
        let Some(clients) = self.clients_since(since)? else { return Ok(Vec::new()) };
        let error = || self.error("looking for clients without a country");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = format!("SELECT ip FROM ({clients}) WHERE has = 0 LIMIT {limit}");
        let mut statement = self.connection.prepare(&sql).map_err(error())?;
        let texts = statement.query_map([], |row| row.get::<_, String>(0));
        let texts: Vec<String> = texts.and_then(Iterator::collect).map_err(error())?;
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// A statement with each client once, and whether its country is known; `None` without any slice.
    fn clients_since(&self, since: UnixMs) -> Result<Option<String>, StoreError> {
        let slices = self.slices_in(Window { from: since.0, to: i64::MAX })?;
        let newest = &slices[slices.len().saturating_sub(MAX_SLICES)..];
        let arm = |slice: &Slice| {
            format!(
                "SELECT c.ip AS ip, p.country IS NOT NULL AS has FROM clients_{id} AS c \
                 LEFT JOIN places AS p ON p.id = {first} + c.place",
                id = slice.id,
                first = first_number(slice.id)
            )
        };
        let arms: Vec<String> = newest.iter().map(arm).collect();
        Ok((!arms.is_empty())
            .then(|| format!("SELECT ip, max(has) AS has FROM ({}) GROUP BY ip", arms.join(" UNION ALL "))))
    }
}
