//! Time slices: the tables of each, and the view that shows all of them as one.
//!
//! Owns the log's schema. Must not insert requests (`batch.rs`) or decide when a slice ends or goes
//! (`retention.rs`).

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use portcullis_model::UnixMs;

/// The schema steps of log.db, oldest first.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/log/001_initial.sql"),
    include_str!("../../migrations/log/002_privacy.sql"),
    include_str!("../../migrations/log/003_sums.sql"),
];

/// SQLite takes at most 500 terms in a compound SELECT, and the view has one per slice.
pub(crate) const MAX_SLICES: usize = 400;

/// Rows per zone, the unit in which a time finds its rows.
pub(crate) const ZONE_ROWS: i64 = 4_096;

/// A row of `slices`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) id: i64,
    pub(crate) base_ms: i64,
    pub(crate) is_sealed: bool,
    pub(crate) rows: i64,
    /// The earliest and latest start of a request; `None` while it has no rows.
    pub(crate) span: Option<(i64, i64)>,
    pub(crate) is_indexed: bool,
}

const COLUMNS: &str = "SELECT id, base_ms, sealed_ms IS NOT NULL, rows, min_ms, max_ms, indexed FROM slices";

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Slice> {
    let (min, max): (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
    Ok(Slice {
        id: row.get(0)?,
        base_ms: row.get(1)?,
        is_sealed: row.get(2)?,
        rows: row.get(3)?,
        span: min.zip(max),
        is_indexed: row.get(6)?,
    })
}

/// All slices, oldest first.
pub(crate) fn list(connection: &Connection) -> rusqlite::Result<Vec<Slice>> {
    connection.prepare_cached(&format!("{COLUMNS} ORDER BY id"))?.query_map([], from_row)?.collect()
}

/// The slice with this number, unless it has been dropped.
pub(crate) fn get(connection: &Connection, id: i64) -> rusqlite::Result<Option<Slice>> {
    connection.prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?.query_row([id], from_row).optional()
}

/// The slice that rows are appended to.
pub(crate) fn live(connection: &Connection) -> rusqlite::Result<Option<Slice>> {
    let sql = format!("{COLUMNS} WHERE sealed_ms IS NULL ORDER BY id DESC LIMIT 1");
    connection.prepare_cached(&sql)?.query_row([], from_row).optional()
}

/// Seals the live slice, if there is one, and opens the next.
pub(crate) fn open_next(transaction: &Transaction<'_>, now: UnixMs) -> rusqlite::Result<Slice> {
    transaction.execute("UPDATE slices SET sealed_ms = ?1 WHERE sealed_ms IS NULL", [now.0])?;
    transaction.execute("INSERT INTO slices (base_ms, rows, indexed) VALUES (?1, 0, 0)", [now.0])?;
    let id = transaction.last_insert_rowid();
    // Columns without a type keep what they are given: the number of an interned string, or the text
    // itself. String 0 is the empty one, because SQLite stores the number 0 in no bytes.
    transaction.execute_batch(&format!(
        "CREATE TABLE requests_{id} (
             t INTEGER, random INTEGER, client INTEGER, shape INTEGER,
             path, query, user_agent, referer, user,
             bytes_in INTEGER, bytes_out INTEGER, latency_us INTEGER);
         CREATE TABLE clients_{id} (id INTEGER PRIMARY KEY, ip TEXT UNIQUE, place INTEGER, first_row INTEGER);
         INSERT INTO strings VALUES ({first}, '');",
        first = first_number(id),
    ))?;
    rebuild_view(transaction)?;
    Ok(Slice { id, base_ms: now.0, is_sealed: false, rows: 0, span: None, is_indexed: false })
}

/// The first number that a slice has in strings, shapes and places. Its rows hold what is above it, so
/// that their numbers stay small.
pub(crate) fn first_number(id: i64) -> i64 {
    id << 32
}

/// Drops a slice with all its tables.
pub(crate) fn drop_slice(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    // The view goes first: SQLite refuses to drop a table under it in some versions.
    transaction.execute_batch("DROP VIEW IF EXISTS request_log")?;
    for table in ["requests", "clients"] {
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table}_{id}"))?;
    }
    for table in ["strings", "shapes", "places", "zone_sums", "string_marks"] {
        transaction.execute(
            &format!("DELETE FROM {table} WHERE id BETWEEN ?1 AND ?2"),
            [first_number(id), first_number(id + 1) - 1],
        )?;
    }
    transaction.execute("DELETE FROM zones WHERE slice = ?1", [id])?;
    transaction.execute("DELETE FROM erased WHERE slice = ?1", [id])?;
    transaction.execute("DELETE FROM slices WHERE id = ?1", params![id])?;
    rebuild_view(transaction)
}

/// Gives a sealed slice the index that finds a client's rows. Built once, it costs a fraction of
/// keeping it up to date with each row.
pub(crate) fn build_index(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    transaction.execute_batch(&format!(
        "CREATE INDEX IF NOT EXISTS requests_{id}_client ON requests_{id} (client)"
    ))?;
    transaction.execute("UPDATE slices SET indexed = 1 WHERE id = ?1", [id])?;
    Ok(())
}

fn rebuild_view(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let slices = list(transaction)?;
    transaction.execute_batch(&format!("DROP VIEW IF EXISTS request_log; {}", view_sql(&slices)))
}

/// The statement that makes the view `request_log`. Only SQL that SQLite 3.35 already knows.
///
/// SQLite computes every column of a UNION ALL under an aggregate, but outside of it only what the
/// query asks for. So the arms hold little more than the rows as stored, and everything is looked up
/// outside; `count(*)` on Debian 12's SQLite is six times quicker for it. The client alone is joined in
/// the arm: a filter on `ip` is then handed down, and finds the rows by index where there is one.
fn view_sql(slices: &[Slice]) -> String {
    let arms = if slices.is_empty() {
        vec![format!("SELECT {} WHERE 0", ARM_COLUMNS.map(|name| format!("NULL AS {name}")).join(", "))]
    } else {
        slices.iter().map(arm_sql).collect()
    };
    let text = |column: &str| {
        format!(
            "CASE typeof(r.{column}) WHEN 'integer' \
             THEN (SELECT text FROM strings WHERE id = r.first + r.{column}) ELSE r.{column} END AS {column}"
        )
    };
    let shape =
        |column: &str| format!("(SELECT {column} FROM shapes WHERE id = r.first + r.shape) AS {column}");
    let place =
        |column: &str| format!("(SELECT {column} FROM places WHERE id = r.first + r.place) AS {column}");
    let columns = [
        format!("{} AS id", id_sql()),
        "strftime('%Y-%m-%dT%H:%M:%fZ', time_ms / 1000.0, 'unixepoch') AS time".to_owned(),
        "time_ms, ip".to_owned(),
        shape("method"),
        shape("host"),
        text("path"),
        text("query"),
        shape("status"),
        "bytes_in, bytes_out, latency_us".to_owned(),
        text("user_agent"),
        text("referer"),
        shape("protocol"),
        text("user"),
        place("country"),
        place("city"),
        place("region"),
        place("latitude"),
        place("longitude"),
        place("isp"),
        place("asn"),
        shape("verdict"),
        shape("reason"),
        shape("is_suspicious"),
    ];
    format!(
        "CREATE VIEW request_log AS SELECT {} FROM ({}) AS r",
        columns.join(", "),
        arms.join(" UNION ALL ")
    )
}

const ARM_COLUMNS: [&str; 14] = [
    "first",
    "time_ms",
    "random",
    "ip",
    "place",
    "shape",
    "path",
    "query",
    "user_agent",
    "referer",
    "user",
    "bytes_in",
    "bytes_out",
    "latency_us",
];

/// One slice of the view. An outer join, because SQLite leaves it out or turns it round where that helps.
fn arm_sql(slice: &Slice) -> String {
    format!(
        "SELECT {first} AS first, {base} + r.t AS time_ms, r.random AS random, c.ip AS ip, c.place AS place, \
         r.shape AS shape, r.path AS path, r.query AS query, r.user_agent AS user_agent, \
         r.referer AS referer, r.user AS user, r.bytes_in AS bytes_in, r.bytes_out AS bytes_out, \
         r.latency_us AS latency_us \
         FROM requests_{id} AS r LEFT JOIN clients_{id} AS c ON c.id = r.client",
        id = slice.id,
        first = first_number(slice.id),
        base = slice.base_ms,
    )
}

/// The decision ID, computed: 48 bits of time and 32 random bits (kept signed) are 16 digits of 5 bits.
/// Nine digits are time alone, the tenth has three bits of time and two random ones, six are random.
fn id_sql() -> String {
    let digit = |bits: String| format!("substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ({bits}) + 1, 1)");
    let clamped = "max(time_ms, 0)";
    let time_digits = (0..9).map(|n| digit(format!("({clamped} >> {}) & 31", 43 - 5 * n)));
    let middle = digit(format!("(({clamped} & 7) << 2) | ((random >> 30) & 3)"));
    let random_digits = (0..6).map(|n| digit(format!("(random >> {}) & 31", 25 - 5 * n)));
    time_digits.chain([middle]).chain(random_digits).collect::<Vec<_>>().join(" || ")
}
