//! Blocks and allows as people look through them: a page at a time, those in force or those that have ended.
//! Must not change anything.

use ipnet::IpNet;
use portcullis_model::{Allow, BlockSource, UnixMs, network_of};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::blocks::{self, StoredBlock};
use super::parties::{self, StoredPartyBlock};
use super::{State, allows};
use crate::error::StoreError;

/// Which blocks or allows to list. Everything that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// In the reason or the name; a network also finds what covers it and what is inside of it.
    pub text: String,
    pub source: Option<BlockSource>,
    /// Those that have ended instead of those in force.
    pub has_ended: bool,
    /// Only those with a lower number.
    pub before: Option<i64>,
    pub limit: usize,
}

/// How many there are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub blocks: u64,
    /// Of users, and of the anonymous clients of an address.
    pub party_blocks: u64,
    pub allows: u64,
}

/// What was typed into the search, ready to be compared.
struct Sought {
    text: String,
    network: Option<IpNet>,
}

impl Sought {
    fn new(text: &str) -> Self {
        let text = text.trim().to_lowercase();
        let network = network_of(&text).ok();
        Self { text, network }
    }

    fn is_in(&self, name: &str, reason: &str) -> bool {
        if self.text.is_empty() || reason.to_lowercase().contains(&self.text) {
            return true;
        }
        match self.network {
            None => name.to_lowercase().contains(&self.text),
            Some(sought) => {
                name.parse::<IpNet>().is_ok_and(|net| net.contains(&sought) || sought.contains(&net))
            }
        }
    }
}

/// Whether a row is one of those in force, as a condition; `?1` is now, `?2` the number to begin below, `?3` the source.
fn conditions(has_ended: bool) -> &'static str {
    match has_ended {
        false => {
            "removed_at IS NULL AND (expires_at IS NULL OR expires_at > ?1) AND id < ?2 \
             AND (?3 IS NULL OR source = ?3) ORDER BY id DESC"
        }
        true => {
            "(removed_at IS NOT NULL OR expires_at <= ?1) AND id < ?2 \
             AND (?3 IS NULL OR source = ?3) ORDER BY id DESC"
        }
    }
}

/// The rows of `sql` that are sought, up to the limit. The first of its columns is what the row is of, the second why.
fn rows<T>(
    connection: &Connection,
    sql: &str,
    (listing, now): (&Listing, UnixMs),
    columns: (usize, usize),
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let sought = Sought::new(&listing.text);
    let mut statement = connection.prepare_cached(sql)?;
    let before = listing.before.unwrap_or(i64::MAX);
    let mut rows = statement.query(params![now.0, before, listing.source.map(BlockSource::as_str)])?;
    let mut found = Vec::new();
    while found.len() < listing.limit {
        let Some(row) = rows.next()? else { break };
        let name = row.get_ref(columns.0)?.as_str_or_null()?.unwrap_or_default();
        let reason = row.get_ref(columns.1)?.as_str_or_null()?.unwrap_or_default();
        if sought.is_in(name, reason) {
            found.push(read(row)?);
        }
    }
    Ok(found)
}

impl State {
    /// A page of the blocks of networks, newest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn list_blocks(&self, listing: &Listing, now: UnixMs) -> Result<Vec<StoredBlock>, StoreError> {
        let sql = format!(
            "SELECT {}, removed_at, removed_by FROM blocks WHERE {}",
            blocks::COLUMNS,
            conditions(listing.has_ended)
        );
        self.read("reading the blocks", || {
            rows(&self.connection, &sql, (listing, now), (1, 2), blocks::stored_from_row)
        })
    }

    /// A page of the blocks of users and of anonymous clients, newest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn list_party_blocks(
        &self,
        listing: &Listing,
        now: UnixMs,
    ) -> Result<Vec<StoredPartyBlock>, StoreError> {
        let sql = format!(
            "SELECT {}, removed_at, removed_by, coalesce(user, network) FROM party_blocks WHERE {}",
            parties::COLUMNS,
            conditions(listing.has_ended)
        );
        self.read("reading the blocks", || {
            rows(&self.connection, &sql, (listing, now), (11, 4), parties::stored_from_row)
        })
    }

    /// A page of the allows in force, newest first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn list_allows(&self, listing: &Listing) -> Result<Vec<Allow>, StoreError> {
        let sql = format!(
            "SELECT {} FROM allows WHERE removed_at IS NULL AND ?1 IS NOT NULL AND id < ?2 \
             AND (?3 IS NULL OR source = ?3) ORDER BY id DESC",
            allows::COLUMNS
        );
        self.read("reading the allows", || {
            rows(&self.connection, &sql, (listing, UnixMs(0)), (1, 2), allows::from_row)
        })
    }

    /// How many blocks and allows are in force at `now`.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn standing(&self, now: UnixMs) -> Result<Standing, StoreError> {
        let count = |table: &str| -> rusqlite::Result<u64> {
            let sql = format!(
                "SELECT count(*) FROM {table} WHERE removed_at IS NULL AND (expires_at IS NULL OR expires_at > ?1)"
            );
            self.connection.prepare_cached(&sql)?.query_row([now.0], |row| row.get::<_, i64>(0)).map(positive)
        };
        self.read("counting the blocks", || {
            let allows = "SELECT count(*) FROM allows WHERE removed_at IS NULL";
            let allows = self.connection.prepare_cached(allows)?.query_row([], |row| row.get::<_, i64>(0))?;
            Ok(Standing {
                blocks: count("blocks")?,
                party_blocks: count("party_blocks")?,
                allows: positive(allows),
            })
        })
    }

    /// Who did this at that moment, as the audit trail has it; also as one of many.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn author(&self, action: &str, subject: &str, at: UnixMs) -> Result<Option<String>, StoreError> {
        let sql = "SELECT actor FROM audit WHERE at = ?1 AND action = ?2 AND subject IN (?3, 'many') LIMIT 1";
        self.read("reading the audit trail", || {
            self.connection
                .prepare_cached(sql)?
                .query_row(params![at.0, action, subject], |row| row.get(0))
                .optional()
        })
    }
}

fn positive(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewBlock;

    fn state() -> (tempfile::TempDir, State) {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        for (at, network, reason, expires_at) in [
            (1, "192.0.2.0/24", "Tries passwords", None),
            (2, "192.0.2.9/32", "scans", Some(UnixMs(50))),
            (3, "2001:db8::/32", "scans", Some(UnixMs(500))),
            (4, "198.51.100.7/32", "other", None),
        ] {
            let new = NewBlock {
                network: network.parse().unwrap(),
                reason: reason.to_owned(),
                source: if at == 4 { BlockSource::Console } else { BlockSource::Detector },
                created_at: UnixMs(at),
                expires_at,
                finding_id: None,
            };
            state.add_block(new, "console:ana").unwrap();
        }
        (folder, state)
    }

    fn ids(state: &State, listing: &Listing) -> Vec<i64> {
        let listing = Listing { limit: 10, ..listing.clone() };
        state.list_blocks(&listing, UnixMs(100)).unwrap().iter().map(|stored| stored.block.id).collect()
    }

    #[test]
    fn blocks_are_found_by_network_reason_and_source() {
        let (_folder, state) = state();
        let text = |text: &str| Listing { text: text.to_owned(), ..Listing::default() };
        assert_eq!(ids(&state, &text("")), [4, 3, 1]);
        assert_eq!(ids(&state, &text(" PASSwords")), [1]);
        assert_eq!(ids(&state, &text("192.0.2.77")), [1]);
        assert_eq!(ids(&state, &text("2001:db8::5")), [3]);
        assert_eq!(ids(&state, &text("198.51")), [4]);
        assert_eq!(ids(&state, &text("0.0.0.0/0")), [4, 1]);
        assert_eq!(ids(&state, &Listing { source: Some(BlockSource::Console), ..Listing::default() }), [4]);
        assert_eq!(ids(&state, &Listing { has_ended: true, ..Listing::default() }), [2]);
        assert_eq!(ids(&state, &Listing { before: Some(4), ..Listing::default() }), [3, 1]);
        assert_eq!(state.standing(UnixMs(100)).unwrap().blocks, 3);
        assert_eq!(
            state.author("block", "198.51.100.7/32", UnixMs(4)).unwrap().as_deref(),
            Some("console:ana")
        );
    }

    #[test]
    fn many_are_lifted_at_once_and_those_that_have_ended_do_not_count() {
        let (_folder, mut state) = state();
        assert_eq!(state.remove_blocks(1..=3, "ana", UnixMs(100)).unwrap(), 2);
        assert_eq!(state.remove_blocks([1, 99], "ana", UnixMs(101)).unwrap(), 0);
        assert_eq!(ids(&state, &Listing::default()), [4]);
        assert_eq!(state.newest_block().unwrap(), 4);
        assert!(state.block_of(&"192.0.2.0/24".parse().unwrap(), UnixMs(100)).unwrap().is_none());
    }
}
