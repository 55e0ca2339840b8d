//! Takes kinds of fields out of sealed slices whose rows have kept them long enough.
//!
//! Owns what is left of a row afterwards. Must not begin or commit; the writer does, with `secure_delete`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use portcullis_model::{ClientIp, UnixMs};
use rusqlite::{Connection, Transaction, params};

use super::erase::forget_texts;
use super::slice::Slice;
use super::sums;

/// How long kinds of fields are kept, where that is shorter than the row itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldRetention {
    /// Afterwards the /24 or the IPv6 /48 is left.
    pub addresses: Option<Duration>,
    pub user_agents: Option<Duration>,
    pub referers: Option<Duration>,
    pub queries: Option<Duration>,
    pub users: Option<Duration>,
}

/// The column of each kind, in the order of the bits in `slices.scrubbed`; the addresses come first.
const COLUMNS: [Option<&str>; 5] = [None, Some("user_agent"), Some("referer"), Some("query"), Some("user")];

impl FieldRetention {
    fn all(&self) -> [Option<Duration>; COLUMNS.len()] {
        [self.addresses, self.user_agents, self.referers, self.queries, self.users]
    }

    /// The shortest of them.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        self.all().into_iter().flatten().min()
    }

    /// The kinds whose time is over for a slice, as bits.
    fn due(&self, slice: &Slice, now: UnixMs) -> i64 {
        let Some((_, newest)) = slice.span else { return 0 };
        let is_over = |kept: Option<Duration>| kept.is_some_and(|kept| UnixMs(newest) < now.minus(kept));
        self.all().into_iter().enumerate().filter(|(_, kept)| is_over(*kept)).map(|(bit, _)| 1 << bit).sum()
    }
}

/// What is to be taken out of a slice and has not been yet, as bits.
pub(super) fn due(
    connection: &Connection,
    slice: &Slice,
    fields: &FieldRetention,
    now: UnixMs,
) -> rusqlite::Result<i64> {
    let due = fields.due(slice, now);
    if due == 0 || !slice.is_sealed {
        return Ok(0);
    }
    let done: i64 =
        connection.query_row("SELECT scrubbed FROM slices WHERE id = ?1", [slice.id], |row| row.get(0))?;
    Ok(due & !done)
}

/// Takes the kinds out, and notes that.
pub(super) fn scrub(transaction: &Transaction<'_>, slice: &Slice, kinds: i64) -> rusqlite::Result<()> {
    let mut orphans = HashSet::new();
    for (bit, column) in COLUMNS.into_iter().enumerate().filter(|(bit, _)| kinds >> bit & 1 == 1) {
        match column {
            Some(column) => empty(transaction, slice, column, &mut orphans)?,
            None => truncate_clients(transaction, slice)?,
        }
        transaction.execute(
            "UPDATE slices SET scrubbed = scrubbed | ?2 WHERE id = ?1",
            params![slice.id, 1_i64 << bit],
        )?;
    }
    forget_texts(transaction, slice, orphans)?;
    sums::rebuild_all(transaction, slice)?;
    sums::rebuild_marks(transaction, slice)
}

fn empty(
    transaction: &Transaction<'_>,
    slice: &Slice,
    column: &str,
    orphans: &mut HashSet<i64>,
) -> rusqlite::Result<()> {
    let table = slice.id;
    let sql = format!("SELECT DISTINCT {column} FROM requests_{table} WHERE typeof({column}) = 'integer'");
    let mut statement = transaction.prepare(&sql)?;
    for number in statement.query_map([], |row| row.get::<_, i64>(0))? {
        orphans.insert(number?);
    }
    // Text 0 is the empty one, and everybody's.
    orphans.remove(&0);
    transaction.execute(&format!("UPDATE requests_{table} SET {column} = 0 WHERE {column} IS NOT 0"), [])?;
    Ok(())
}

/// All clients of a network become one.
fn truncate_clients(transaction: &Transaction<'_>, slice: &Slice) -> rusqlite::Result<()> {
    let id = slice.id;
    let mut networks: BTreeMap<ClientIp, Vec<(i64, i64)>> = BTreeMap::new();
    let mut statement =
        transaction.prepare(&format!("SELECT id, ip, first_row FROM clients_{id} ORDER BY id"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let client: ClientIp = crate::state::parsed(row, 1)?;
        networks.entry(client.network()).or_default().push((row.get(0)?, row.get(2)?));
    }
    let mut forward =
        transaction.prepare(&format!("UPDATE requests_{id} SET client = ?1 WHERE client = ?2"))?;
    let mut delete = transaction.prepare(&format!("DELETE FROM clients_{id} WHERE id = ?1"))?;
    let mut rename =
        transaction.prepare(&format!("UPDATE clients_{id} SET ip = ?2, first_row = ?3 WHERE id = ?1"))?;
    for (network, clients) in networks {
        let Some((&(kept, _), others)) = clients.split_first() else { continue };
        for (other, _) in others {
            forward.execute([kept, *other])?;
            delete.execute([*other])?;
        }
        let first = clients.iter().map(|(_, first)| *first).min();
        rename.execute(params![kept, network.to_string(), first])?;
    }
    transaction.execute_batch(&format!("REINDEX clients_{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_due_when_the_slices_newest_row_is_too_old() {
        let fields = FieldRetention {
            addresses: Some(Duration::from_millis(100)),
            users: Some(Duration::from_millis(50)),
            ..FieldRetention::default()
        };
        let slice =
            Slice { id: 1, base_ms: 0, is_sealed: true, rows: 1, span: Some((0, 10)), is_indexed: true };
        assert_eq!(fields.due(&slice, UnixMs(60)), 0);
        assert_eq!(fields.due(&slice, UnixMs(61)), 1 << 4);
        assert_eq!(fields.due(&slice, UnixMs(111)), 1 << 4 | 1);
        assert_eq!(fields.shortest(), Some(Duration::from_millis(50)));
    }
}
