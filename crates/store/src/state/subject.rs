//! One person's data in the state database: all tables, whatever they are, so that none is forgotten.
//!
//! Owns finding and erasing it. Must leave no block in the live lists of a gateway without telling it first:
//! `lift_blocks` comes before `erase`.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use serde::Serialize;
use serde_json::{Map, json};

use portcullis_model::{Block, UnixMs};

use super::{NewBlock, State, next_seq, note};
use super::{blocks, parsed};
use crate::error::{StoreError, sqlite_error};
use crate::subject::Subject;

/// Kept with the subject taken out: that something happened is not about anybody.
const RECORDS: [&str; 3] = ["audit", "task_runs", "settings"];

/// Columns that hold the name of a user.
const NAMES: [(&str, &str); 2] = [("findings", "user"), ("party_blocks", "user")];
/// Columns with sentences, or with what clients sent, in which a user may be named. The other ones hold words of this
/// program or of its operator, and a user may be called like any of them: "detector", "report", "open".
const SENTENCES: [(&str, &str); 12] = [
    ("alert_outbox", "message"),
    ("alerts", "body"),
    ("allows", "reason"),
    ("audit", "detail"),
    ("audit", "subject"),
    ("blocks", "reason"),
    ("findings", "details"),
    ("limit_events", "endpoint"),
    ("nevers", "note"),
    ("nevers", "path"),
    ("party_blocks", "reason"),
    ("task_runs", "summary"),
];

/// Columns that are networks. A wider one than the subject is nobody's, though it begins with somebody's address, and
/// without that it would be none.
const NETWORKS: [(&str, &str); 4] =
    [("allows", "network"), ("blocks", "network"), ("nevers", "network"), ("party_blocks", "network")];

/// Whether the column may speak of the subject, beside being the subject itself.
fn may_mention(subject: &Subject, table: &str, column: &str) -> bool {
    let place = (table, column);
    if NETWORKS.contains(&place) {
        return false;
    }
    subject.user().is_none() || NAMES.contains(&place) || SENTENCES.contains(&place)
}

/// Whether the value of the column is the subject itself.
fn is_subject(subject: &Subject, table: &str, column: &str, value: &str) -> bool {
    (subject.user().is_none() || NAMES.contains(&(table, column))) && subject.is_whole(value)
}

/// A block that was lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifted {
    pub block: Block,
    /// The number of the block that goes on in its place.
    pub kept: Option<i64>,
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    pub table: String,
    /// Each as an object with the columns' names.
    pub rows: Vec<serde_json::Value>,
}

/// What went, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ErasedFromState {
    /// Rows that were about the subject, deleted.
    pub deleted: Vec<(String, u64)>,
    /// Rows about something else, of which a mention was taken out.
    pub altered: Vec<(String, u64)>,
}

/// A row that speaks of the subject.
struct Mention {
    values: Vec<Value>,
    is_about: bool,
}

impl State {
    /// Everything about the subject, by table.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn rows_about(&self, subject: &Subject) -> Result<Vec<Found>, StoreError> {
        self.read("looking for a person's data", || {
            let mut all = Vec::new();
            for table in tables(&self.connection)? {
                let columns = columns(&self.connection, &table)?;
                let mentions = mentions(&self.connection, &table, &columns, subject)?;
                if !mentions.is_empty() {
                    let rows = mentions.into_iter().map(|mention| object(&columns, mention.values)).collect();
                    all.push(Found { table, rows });
                }
            }
            Ok(all)
        })
    }

    /// Lifts the blocks and allows of exactly this subject, so that a running gateway hears of it while their rows
    /// still say what they are of. At the same moment what `keep` makes of a block goes in its place: whatever becomes
    /// of the erasure, nobody is let in by it. Returns the blocks of addresses that were in force.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn lift_blocks(
        &mut self,
        subject: &Subject,
        keep: impl Fn(&Block) -> Option<NewBlock>,
        (actor, now): (&str, UnixMs),
    ) -> Result<Vec<Lifted>, StoreError> {
        self.write("lifting a person's blocks", |transaction| {
            let sql = format!("SELECT {} FROM blocks WHERE removed_at IS NULL", blocks::COLUMNS);
            let is_theirs =
                |block: &Block| is_subject(subject, "blocks", "network", &block.network.to_string());
            let standing: Vec<Block> = transaction
                .prepare(&sql)?
                .query_map([], blocks::from_row)?
                .filter(|block| block.as_ref().map_or(true, is_theirs))
                .collect::<rusqlite::Result<_>>()?;
            let seq = next_seq(transaction)?;
            for block in &standing {
                blocks::mark_removed(transaction, block.id, now, actor, seq)?;
            }
            for (table, column) in
                [("allows", "network"), ("party_blocks", "network"), ("party_blocks", "user")]
            {
                lift(transaction, (table, column), subject, (actor, now, seq))?;
            }
            let in_force = standing.into_iter().filter(|block| !block.is_expired(now));
            in_force
                .map(|block| {
                    let kept = keep(&block).map(|new| blocks::insert(transaction, &new, seq)).transpose()?;
                    Ok(Lifted { block, kept })
                })
                .collect()
        })
    }

    /// Erases everything about the subject but the blocks with the numbers `kept`, and writes the receipt into the
    /// audit trail. `receipt` gets what went and gives the entry's subject and detail.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn erase(
        &mut self,
        subject: &Subject,
        kept: &[i64],
        (actor, now): (&str, UnixMs),
        receipt: impl FnOnce(&ErasedFromState) -> (String, String),
    ) -> Result<ErasedFromState, StoreError> {
        self.write("erasing a person's data", |transaction| {
            let mut erased = ErasedFromState::default();
            for table in tables(transaction)? {
                let (deleted, altered) = erase_from(transaction, &table, subject, kept)?;
                if deleted > 0 {
                    erased.deleted.push((table.clone(), deleted));
                }
                if altered > 0 {
                    erased.altered.push((table, altered));
                }
            }
            let (about, detail) = receipt(&erased);
            note(transaction, now, actor, "erase", &about, &detail)?;
            Ok(erased)
        })
    }

    /// Writes the whole database anew, so that no page holds what was deleted, and empties the write-ahead log.
    /// Returns whether that is empty: a program that reads may keep it.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        let run = || {
            self.connection.execute_batch("PRAGMA temp_store = MEMORY; VACUUM")?;
            let busy: i64 =
                self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            Ok(busy == 0)
        };
        run().map_err(sqlite_error(&self.path, "writing the database anew"))
    }
}

fn lift(
    transaction: &Connection,
    (table, column): (&str, &str),
    subject: &Subject,
    (actor, now, seq): (&str, UnixMs, i64),
) -> rusqlite::Result<()> {
    let sql = format!("SELECT id, {column} FROM {table} WHERE removed_at IS NULL AND {column} IS NOT NULL");
    let mut statement = transaction.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let sql = format!("UPDATE {table} SET removed_at = ?2, removed_by = ?3, seq = ?4 WHERE id = ?1");
    let mut remove = transaction.prepare(&sql)?;
    while let Some(row) = rows.next()? {
        if is_subject(subject, table, column, &parsed::<String>(row, 1)?) {
            remove.execute(rusqlite::params![row.get::<_, i64>(0)?, now.0, actor, seq])?;
        }
    }
    Ok(())
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_info(?1) ORDER BY cid";
    connection.prepare(sql)?.query_map([table], |row| row.get(0))?.collect()
}

/// The rows of a table that speak of the subject.
fn mentions(
    connection: &Connection,
    table: &str,
    columns: &[String],
    subject: &Subject,
) -> rusqlite::Result<Vec<Mention>> {
    let texts = subject.texts();
    let conditions: Vec<String> = columns
        .iter()
        .filter(|column| may_mention(subject, table, column) || NETWORKS.contains(&(table, column.as_str())))
        .flat_map(|column| (1..=texts.len()).map(move |n| format!("instr(\"{column}\", ?{n}) > 0")))
        .collect();
    if conditions.is_empty() {
        return Ok(Vec::new());
    }
    let names = columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {names} FROM \"{table}\" WHERE {}", conditions.join(" OR "));
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(&texts))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values: Vec<Value> =
            (0..columns.len()).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()?;
        let texts = || {
            columns.iter().zip(&values).filter_map(|(column, value)| match value {
                Value::Text(text) => Some((column.as_str(), text.as_str())),
                Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => None,
            })
        };
        let is_about = texts().any(|(column, text)| is_subject(subject, table, column, text));
        let is_in = |(column, text)| may_mention(subject, table, column) && subject.is_in(text);
        if is_about || texts().any(is_in) {
            found.push(Mention { values, is_about });
        }
    }
    Ok(found)
}

fn object(columns: &[String], values: Vec<Value>) -> serde_json::Value {
    let fields = columns.iter().cloned().zip(values.into_iter().map(|value| match value {
        Value::Null => json!(null),
        Value::Integer(number) => json!(number),
        Value::Real(number) => json!(number),
        // JSON in a column comes out as JSON.
        Value::Text(text) if text.starts_with(['{', '[']) => {
            serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
        }
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!(format!("{} bytes", bytes.len())),
    }));
    serde_json::Value::Object(fields.collect::<Map<_, _>>())
}

/// Deletes what is about the subject, and takes mentions out of the rest. Returns how many rows each.
fn erase_from(
    transaction: &Connection,
    table: &str,
    subject: &Subject,
    kept: &[i64],
) -> rusqlite::Result<(u64, u64)> {
    let columns = columns(transaction, table)?;
    let is_row = |from: usize| {
        let parts = columns.iter().enumerate().map(|(n, column)| format!("\"{column}\" IS ?{}", from + n));
        parts.collect::<Vec<_>>().join(" AND ")
    };
    let (mut deleted, mut altered) = (0, 0);
    for Mention { values, is_about } in mentions(transaction, table, &columns, subject)? {
        // A number is the first column where there is one.
        if table == "blocks" && matches!(values.first(), Some(Value::Integer(id)) if kept.contains(id)) {
            continue;
        }
        if is_about && !RECORDS.contains(&table) {
            let sql = format!("DELETE FROM \"{table}\" WHERE {}", is_row(1));
            deleted += transaction.prepare_cached(&sql)?.execute(params_from_iter(&values))? as u64;
            continue;
        }
        let left = columns.iter().zip(&values).map(|(column, value)| match value {
            Value::Text(text) if may_mention(subject, table, column) => {
                Value::Text(subject.without(text).into_owned())
            }
            other => other.clone(),
        });
        let set = columns.iter().enumerate().map(|(n, column)| format!("\"{column}\" = ?{}", n + 1));
        let sql = format!(
            "UPDATE OR REPLACE \"{table}\" SET {} WHERE {}",
            set.collect::<Vec<_>>().join(", "),
            is_row(columns.len() + 1)
        );
        let parameters: Vec<Value> = left.chain(values.iter().cloned()).collect();
        altered += transaction.prepare_cached(&sql)?.execute(params_from_iter(&parameters))? as u64;
    }
    Ok((deleted, altered))
}
