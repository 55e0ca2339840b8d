//! Takes one person's data out of a slice: rows, the client, and texts that were theirs alone.
//!
//! Owns what is deleted. Must not begin or commit; the writer does, and reads the live slice's dictionaries anew
//! afterwards. The caller has `secure_delete` on, so that what goes is overwritten.

use std::collections::{BTreeSet, HashSet};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Transaction, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::slice::{Slice, first_number};
use super::sums;
use crate::subject::{ERASED, Subject};

/// The text columns of a row.
const TEXTS: [&str; 5] = ["path", "query", "user_agent", "referer", "user"];

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedFromLog {
    pub requests: u64,
    /// Texts of other clients' requests that mentioned the subject, and texts that nobody refers to any more.
    pub texts: u64,
    /// Once per slice of the log.
    pub clients: u64,
}

impl ErasedFromLog {
    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.texts += other.texts;
        self.clients += other.clients;
    }
}

/// Erases the subject from one slice.
pub(super) fn erase(
    transaction: &Transaction<'_>,
    slice: &Slice,
    subject: &Subject,
) -> rusqlite::Result<ErasedFromLog> {
    let mut erased = ErasedFromLog::default();
    let mut rows = BTreeSet::new();
    let clients = clients_in(transaction, slice, subject)?;
    if let Some(condition) = condition(transaction, slice, subject, &clients)? {
        let referred = referred_to(transaction, slice, &condition)?;
        let sql = format!("DELETE FROM requests_{} WHERE {}", slice.id, condition.sql);
        erased.requests = count(transaction.execute(&sql, params_from_iter(&condition.name))?);
        note_erased(transaction, slice.id, erased.requests)?;
        erased.texts += forget_texts(transaction, slice, referred.texts)?;
        erased.clients +=
            forget_clients(transaction, slice, clients.into_iter().chain(referred.clients).collect())?;
        rows = referred.rows;
    }
    erased.texts += erase_mentions(transaction, slice, subject, &mut rows)?;
    sums::rebuild_zones(transaction, slice, &zones_of(transaction, slice, &rows)?)?;
    if erased.texts > 0 {
        sums::rebuild_marks(transaction, slice)?;
    }
    Ok(erased)
}

/// The last rows of the full zones that have any of these rows.
fn zones_of(connection: &Connection, slice: &Slice, rows: &BTreeSet<i64>) -> rusqlite::Result<BTreeSet<i64>> {
    let mut zones = BTreeSet::new();
    let mut find = connection.prepare(
        "SELECT last_row FROM zones WHERE slice = ?1 AND last_row >= ?2 ORDER BY last_row LIMIT 1",
    )?;
    let mut next = rows.first().copied();
    while let Some(row) = next {
        let last: Option<i64> = find.query_row([slice.id, row], |row| row.get(0)).optional()?;
        // The zone that is not full yet has no sums.
        let Some(last) = last else { break };
        zones.insert(last);
        next = rows.range(last + 1..).next().copied();
    }
    Ok(zones)
}

fn clients_in(connection: &Connection, slice: &Slice, subject: &Subject) -> rusqlite::Result<Vec<i64>> {
    let mut find = connection.prepare(&format!("SELECT id FROM clients_{} WHERE ip = ?1", slice.id))?;
    let mut found = Vec::new();
    for client in subject.clients() {
        found.extend(find.query_row([client.to_string()], |row| row.get::<_, i64>(0)).optional()?);
    }
    Ok(found)
}

/// Which rows are the subject's: SQL that holds numbers of the slice alone, and the name that it asks for as `?1`.
struct Condition {
    sql: String,
    name: Option<String>,
}

/// `None` when there are no such rows.
fn condition(
    connection: &Connection,
    slice: &Slice,
    subject: &Subject,
    clients: &[i64],
) -> rusqlite::Result<Option<Condition>> {
    let list = |numbers: &[i64]| numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let Some(user) = subject.user() else {
        let of_clients = || Condition { sql: format!("client IN ({})", list(clients)), name: None };
        return Ok((!clients.is_empty()).then(of_clients));
    };
    let first = first_number(slice.id);
    let mut numbers =
        connection.prepare("SELECT id - ?1 FROM strings WHERE id > ?1 AND id < ?2 AND text = ?3")?;
    let numbers: Vec<i64> = numbers
        .query_map(params![first, first_number(slice.id + 1), user], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let interned =
        if numbers.is_empty() { String::new() } else { format!("user IN ({}) OR ", list(&numbers)) };
    // A name that came once stands in its row.
    Ok(Some(Condition { sql: format!("{interned}user = ?1"), name: Some(user.to_owned()) }))
}

/// What rows refer to by number.
#[derive(Default)]
struct Referred {
    texts: HashSet<i64>,
    clients: HashSet<i64>,
    /// The rows themselves.
    rows: BTreeSet<i64>,
}

fn referred_to(connection: &Connection, slice: &Slice, condition: &Condition) -> rusqlite::Result<Referred> {
    let mut referred = Referred::default();
    let Condition { sql, name } = condition;
    let sql = format!("SELECT client, {}, rowid FROM requests_{} WHERE {sql}", TEXTS.join(", "), slice.id);
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(name))?;
    while let Some(row) = rows.next()? {
        referred.clients.insert(row.get(0)?);
        referred.rows.insert(row.get(1 + TEXTS.len())?);
        for column in 1..=TEXTS.len() {
            if let ValueRef::Integer(number) = row.get_ref(column)? {
                referred.texts.insert(number);
            }
        }
    }
    // The empty text is everybody's.
    referred.texts.remove(&0);
    Ok(referred)
}

/// Empties the texts that no row refers to any more. Their numbers stay taken: the writer gives out the next one by
/// counting.
pub(super) fn forget_texts(
    transaction: &Transaction<'_>,
    slice: &Slice,
    mut orphans: HashSet<i64>,
) -> rusqlite::Result<u64> {
    if orphans.is_empty() {
        return Ok(0);
    }
    let mut statement =
        transaction.prepare(&format!("SELECT {} FROM requests_{}", TEXTS.join(", "), slice.id))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..TEXTS.len() {
            if let ValueRef::Integer(number) = row.get_ref(column)? {
                orphans.remove(&number);
            }
        }
    }
    let mut empty = transaction.prepare("UPDATE strings SET text = ?2 WHERE id = ?1")?;
    for number in &orphans {
        // Different for each, as texts of the dictionary are.
        empty.execute(params![first_number(slice.id) + number, format!("{ERASED} {number}")])?;
    }
    Ok(orphans.len() as u64)
}

/// Deletes clients without any row, and writes the index of addresses anew: SQLite leaves copies of what it moved
/// from page to page.
fn forget_clients(
    transaction: &Transaction<'_>,
    slice: &Slice,
    candidates: HashSet<i64>,
) -> rusqlite::Result<u64> {
    let id = slice.id;
    let mut has_rows =
        transaction.prepare(&format!("SELECT 1 FROM requests_{id} WHERE client = ?1 LIMIT 1"))?;
    let mut delete = transaction.prepare(&format!("DELETE FROM clients_{id} WHERE id = ?1"))?;
    let mut gone = 0;
    for client in candidates {
        if !has_rows.exists([client])? {
            gone += count(delete.execute([client])?);
        }
    }
    if gone > 0 {
        transaction.execute_batch(&format!("REINDEX clients_{id}"))?;
    }
    Ok(gone)
}

/// Takes the subject out of the texts of others; `rows` gets the rows whose own text changed.
fn erase_mentions(
    transaction: &Transaction<'_>,
    slice: &Slice,
    subject: &Subject,
    rows: &mut BTreeSet<i64>,
) -> rusqlite::Result<u64> {
    let mut erased = 0;
    for sought in subject.texts() {
        let (first, last) = (first_number(slice.id), first_number(slice.id + 1) - 1);
        let sql = "SELECT id, text FROM strings WHERE id BETWEEN ?1 AND ?2 AND instr(text, ?3) > 0";
        let mut statement = transaction.prepare(sql)?;
        let mentions: Vec<(i64, String)> = statement
            .query_map(params![first, last, sought], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (id, text) in mentions {
            let left = subject.without(&text);
            if *left != *text {
                transaction.execute("UPDATE strings SET text = ?2 WHERE id = ?1", params![id, left])?;
                erased += 1;
            }
        }
        erased += erase_inline_mentions(transaction, slice, subject, &sought, rows)?;
    }
    Ok(erased)
}

fn erase_inline_mentions(
    transaction: &Transaction<'_>,
    slice: &Slice,
    subject: &Subject,
    sought: &str,
    rows: &mut BTreeSet<i64>,
) -> rusqlite::Result<u64> {
    let mut erased = 0;
    for column in TEXTS {
        let sql = format!(
            "SELECT rowid, {column} FROM requests_{} WHERE typeof({column}) = 'text' AND instr({column}, ?1) > 0",
            slice.id
        );
        let mut statement = transaction.prepare(&sql)?;
        let mentions: Vec<(i64, String)> = statement
            .query_map([sought], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut put = transaction
            .prepare(&format!("UPDATE requests_{} SET {column} = ?2 WHERE rowid = ?1", slice.id))?;
        for (row, text) in mentions {
            let left = subject.without(&text);
            if *left != *text {
                put.execute(params![row, Value::Text(left.into_owned())])?;
                rows.insert(row);
                erased += 1;
            }
        }
    }
    Ok(erased)
}

fn note_erased(transaction: &Transaction<'_>, slice: i64, rows: u64) -> rusqlite::Result<()> {
    if rows > 0 {
        transaction.execute(
            "INSERT INTO erased (slice, rows) VALUES (?1, ?2) \
             ON CONFLICT (slice) DO UPDATE SET rows = rows + excluded.rows",
            params![slice, i64::try_from(rows).unwrap_or(i64::MAX)],
        )?;
    }
    Ok(())
}

fn count(rows: usize) -> u64 {
    rows as u64
}
