//! Locations that came after a client's first row: written to the client, so that all its rows show them.
//!
//! Owns the orders that wait and which slices they reach. Must not begin or commit: the writer does.

use std::collections::HashMap;

use rusqlite::{Transaction, params};

use portcullis_model::{ClientIp, Location};

use super::batch::LiveSlice;
use super::slice::first_number;
use super::sums;

/// Locations that wait for the next commit; further ones are refused, and asked for again later.
pub(super) const MAX_WAITING: usize = 4_096;
/// The live slice and those before it in which a late location is still written: with the usual retention
/// more than a day.
pub(super) const SLICES: usize = 4;

/// A client and where it is.
pub(super) type Late = (ClientIp, Location);

/// Writes the locations into the live slice and into `sealed` ones. After an error `live` does not match the
/// database any more.
pub(super) fn write(
    transaction: &Transaction<'_>,
    live: &mut LiveSlice,
    sealed: &[i64],
    late: &[Late],
) -> rusqlite::Result<()> {
    for (client, location) in late {
        live.relocate(transaction, *client, location)?;
    }
    sealed.iter().try_for_each(|id| write_sealed(transaction, *id, late))
}

fn write_sealed(transaction: &Transaction<'_>, id: i64, late: &[Late]) -> rusqlite::Result<()> {
    let first = first_number(id);
    let mut next: i64 = transaction.query_row(
        "SELECT coalesce(max(id) - ?1, 0) + 1 FROM places WHERE id BETWEEN ?1 AND ?2",
        [first, first_number(id + 1) - 1],
        |row| row.get(0),
    )?;
    let mut has = transaction.prepare(&format!("SELECT 1 FROM clients_{id} WHERE ip = ?1"))?;
    let mut put = transaction.prepare(&format!("UPDATE clients_{id} SET place = ?2 WHERE ip = ?1"))?;
    let mut places: HashMap<String, i64> = HashMap::new();
    let mut is_changed = false;
    for (client, location) in late {
        let ip = client.to_string();
        if !has.exists([&ip])? {
            continue;
        }
        let place = match places.get(&key(location)) {
            Some(place) => *place,
            None => {
                insert_place(transaction, first + next, location)?;
                places.insert(key(location), next);
                next += 1;
                next - 1
            }
        };
        put.execute(params![ip, place])?;
        is_changed = true;
    }
    // They have countries.
    if is_changed { sums::forget_slice_sums(transaction, id) } else { Ok(()) }
}

/// What tells one location from another.
pub(super) fn key(location: &Location) -> String {
    format!("{location:?}")
}

fn insert_place(transaction: &Transaction<'_>, id: i64, location: &Location) -> rusqlite::Result<()> {
    transaction.prepare_cached("INSERT INTO places VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
        params![
            id,
            location.country,
            location.city,
            location.region,
            location.latitude,
            location.longitude,
            location.isp,
            location.asn
        ],
    )?;
    Ok(())
}
