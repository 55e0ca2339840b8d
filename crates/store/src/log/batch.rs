//! Appends requests to the live slice.
//!
//! Owns what a row looks like and the numbers of what it refers to. Must not begin or commit: its
//! caller does, and throws this state away with a transaction that fails.

use std::io::Write as _;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, Transaction, params};

use portcullis_model::{ClientIp, Location, RequestRecord};

use super::Enrich;
use super::intern::{Numbers, Stored, Strings};
use super::late;
use super::slice::{Slice, ZONE_ROWS, first_number};
use super::sums::{Class, Facts, TextFact, ZoneSums};

/// Clients whose numbers are kept in memory; others are looked up in the slice.
const MAX_CLIENTS: usize = 131_072;
/// Shapes whose numbers are kept in memory; others get a second row in the slice.
const MAX_SHAPES: usize = 16_384;
/// Places whose numbers are kept in memory; others get a second row in the slice.
const MAX_PLACES: usize = 16_384;

/// The slice that rows are appended to, with everything needed to do so quickly.
#[derive(Debug)]
pub(crate) struct LiveSlice {
    pub(crate) slice: Slice,
    strings: Strings,
    /// Everything about a request that takes few values, together: method, host, status, protocol,
    /// verdict, reason, suspicion.
    shapes: Numbers<Box<[u8]>>,
    clients: Numbers<ClientIp>,
    places: Numbers<Box<str>>,
    /// The zone that is not full yet.
    zone: ZoneSums,
    sql: Sql,
    shape_key: Vec<u8>,
}

#[derive(Debug)]
struct Sql {
    request: String,
    string: String,
    shape: String,
    place: String,
    client: String,
    find_client: String,
    relocate: String,
}

impl Sql {
    fn new(id: i64) -> Self {
        let first = first_number(id);
        Self {
            request: format!(
                "INSERT INTO requests_{id} (rowid, t, random, client, shape, path, query, user_agent, \
                 referer, user, bytes_in, bytes_out, latency_us) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
            ),
            string: format!("INSERT INTO strings VALUES ({first} + ?1, ?2)"),
            shape: format!("INSERT INTO shapes VALUES ({first} + ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
            place: format!("INSERT INTO places VALUES ({first} + ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
            client: format!("INSERT INTO clients_{id} VALUES (?1, ?2, ?3, ?4)"),
            find_client: format!("SELECT id FROM clients_{id} WHERE ip = ?1"),
            relocate: format!("UPDATE clients_{id} SET place = ?2 WHERE id = ?1"),
        }
    }
}

/// The prepared statements of one transaction.
struct Statements<'c> {
    request: CachedStatement<'c>,
    string: CachedStatement<'c>,
    shape: CachedStatement<'c>,
    place: CachedStatement<'c>,
    client: CachedStatement<'c>,
    find_client: CachedStatement<'c>,
}

/// A text column's value: a number of the dictionary or the text itself.
enum TextValue<'a> {
    Number(i64),
    Text(&'a str),
}

impl ToSql for TextValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl LiveSlice {
    /// Reads back what the slice already holds.
    pub(crate) fn load(connection: &Connection, slice: Slice) -> rusqlite::Result<Self> {
        let id = slice.id;
        let numbers = [first_number(id), first_number(id + 1) - 1];
        let next = |table: &str| {
            let sql = format!("SELECT coalesce(max(id) - ?1, 0) + 1 FROM {table} WHERE id BETWEEN ?1 AND ?2");
            connection.query_row(&sql, numbers, |row| row.get::<_, i64>(0))
        };
        let next_client = connection.query_row(
            &format!("SELECT coalesce(max(id), 0) + 1 FROM clients_{id}"),
            [],
            |row| row.get(0),
        )?;
        let mut strings = Strings::new();
        let mut known =
            connection.prepare("SELECT id - ?1, text FROM strings WHERE id > ?1 AND id <= ?2 ORDER BY id")?;
        let mut rows = known.query(numbers)?;
        while let Some(row) = rows.next()? {
            strings.load(row.get(0)?, row.get(1)?);
        }
        let full = slice.rows / ZONE_ROWS * ZONE_ROWS;
        let zone = ZoneSums::load(connection, &slice, full + 1, slice.rows)?;
        Ok(Self {
            slice,
            strings,
            shapes: Numbers::new(MAX_SHAPES, next("shapes")?),
            clients: Numbers::new(MAX_CLIENTS, next_client),
            places: Numbers::new(MAX_PLACES, next("places")?),
            zone,
            sql: Sql::new(id),
            shape_key: Vec::new(),
        })
    }

    /// Appends the batch. After an error this value does not match the database any more.
    pub(crate) fn append(
        &mut self,
        transaction: &Transaction<'_>,
        batch: &[RequestRecord],
        enrich: &mut dyn Enrich,
    ) -> rusqlite::Result<()> {
        let sql = std::mem::replace(&mut self.sql, Sql::new(self.slice.id));
        let mut statements = Statements {
            request: transaction.prepare_cached(&sql.request)?,
            string: transaction.prepare_cached(&sql.string)?,
            shape: transaction.prepare_cached(&sql.shape)?,
            place: transaction.prepare_cached(&sql.place)?,
            client: transaction.prepare_cached(&sql.client)?,
            find_client: transaction.prepare_cached(&sql.find_client)?,
        };
        let mut zones = transaction.prepare_cached("INSERT INTO zones VALUES (?1, ?2, ?3, ?4)")?;
        for record in batch {
            self.append_one(&mut statements, record, enrich)?;
            if self.slice.rows % ZONE_ROWS == 0
                && let Some((min, max)) = self.zone.span
            {
                zones.execute(params![self.slice.id, self.slice.rows, min, max])?;
                self.zone.finish(transaction, &self.slice, self.slice.rows)?;
            }
        }
        let (min, max) = self.slice.span.unzip();
        transaction
            .prepare_cached("UPDATE slices SET rows = ?2, min_ms = ?3, max_ms = ?4 WHERE id = ?1")?
            .execute(params![self.slice.id, self.slice.rows, min, max])?;
        Ok(())
    }

    fn append_one(
        &mut self,
        statements: &mut Statements<'_>,
        record: &RequestRecord,
        enrich: &mut dyn Enrich,
    ) -> rusqlite::Result<()> {
        let row = self.slice.rows + 1;
        let time = record.id.time().0;
        let text = &record.text;
        let client = self.client(statements, record.client, row, enrich)?;
        let is_suspicious = enrich.is_suspicious(record);
        let shape = self.shape(statements, record, is_suspicious)?;
        let texts = [text.path(), text.query(), text.user_agent(), text.referer(), text.user()];
        let mut facts = [TextFact::Number(0); 5];

        for (column, text) in texts.into_iter().enumerate() {
            let value = self.text(statements, text)?;
            facts[column] = match value {
                TextValue::Number(number) => TextFact::Number(number),
                TextValue::Text(text) => TextFact::Inline(text),
            };
            statements.request.raw_bind_parameter(6 + column, value)?;
        }
        let integers = [row, time - self.slice.base_ms, i64::from(signed(record.id.random())), client, shape];
        for (column, value) in integers.into_iter().enumerate() {
            statements.request.raw_bind_parameter(1 + column, value)?;
        }
        let amounts = [record.bytes_in, record.bytes_out, record.latency_us];
        for (column, value) in amounts.into_iter().enumerate() {
            statements.request.raw_bind_parameter(11 + column, saturate(value))?;
        }
        statements.request.raw_execute()?;

        self.slice.rows = row;
        widen(&mut self.slice.span, time);
        let [path, query, user_agent, _, user] = facts;
        self.zone.add(&Facts {
            row: (row - 1) % ZONE_ROWS,
            time,
            client,
            shape,
            class: Class::of(record.verdict, record.status, is_suspicious),
            texts: [path, query, user_agent, user],
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            latency_us: record.latency_us,
        });
        Ok(())
    }

    fn text<'a>(
        &mut self,
        statements: &mut Statements<'_>,
        text: &'a str,
    ) -> rusqlite::Result<TextValue<'a>> {
        Ok(match self.strings.store(text) {
            Stored::Known(number) => TextValue::Number(number),
            Stored::New(number) => {
                statements.string.execute(params![number, text])?;
                TextValue::Number(number)
            }
            Stored::Inline => TextValue::Text(text),
        })
    }

    fn client(
        &mut self,
        statements: &mut Statements<'_>,
        client: ClientIp,
        row: i64,
        enrich: &mut dyn Enrich,
    ) -> rusqlite::Result<i64> {
        if let Some(number) = self.clients.get(&client) {
            return Ok(number);
        }
        let ip = client.to_string();
        let stored = statements.find_client.query_row([&ip], |row| row.get(0)).optional()?;
        if let Some(number) = stored {
            self.clients.remember(client, number);
            return Ok(number);
        }
        let place = self.place(&mut statements.place, &enrich.location(client))?;
        let number = self.clients.add(client);
        statements.client.execute(params![number, ip, place, row])?;
        Ok(number)
    }

    /// Puts a client that the slice has already to where it is. After an error this value does not match the
    /// database any more.
    pub(crate) fn relocate(
        &mut self,
        transaction: &Transaction<'_>,
        client: ClientIp,
        location: &Location,
    ) -> rusqlite::Result<()> {
        let ip = client.to_string();
        let known = transaction.prepare_cached(&self.sql.find_client)?.query_row([&ip], |row| row.get(0));
        let Some(number): Option<i64> = known.optional()? else { return Ok(()) };
        let mut insert = transaction.prepare_cached(&self.sql.place)?;
        let place = self.place(&mut insert, location)?;
        transaction.prepare_cached(&self.sql.relocate)?.execute(params![number, place])?;
        Ok(())
    }

    fn place(
        &mut self,
        insert: &mut CachedStatement<'_>,
        location: &Location,
    ) -> rusqlite::Result<Option<i64>> {
        if location.is_unknown() {
            return Ok(None);
        }
        let key = late::key(location);
        if let Some(number) = self.places.get(key.as_str()) {
            return Ok(Some(number));
        }
        let number = self.places.add(key.into_boxed_str());
        insert.execute(params![
            number,
            location.country,
            location.city,
            location.region,
            location.latitude,
            location.longitude,
            location.isp,
            location.asn
        ])?;
        Ok(Some(number))
    }

    fn shape(
        &mut self,
        statements: &mut Statements<'_>,
        record: &RequestRecord,
        is_suspicious: bool,
    ) -> rusqlite::Result<i64> {
        write_shape_key(&mut self.shape_key, record, is_suspicious);
        if let Some(number) = self.shapes.get(self.shape_key.as_slice()) {
            return Ok(number);
        }
        let number = self.shapes.add(self.shape_key.clone().into_boxed_slice());
        statements.shape.execute(params![
            number,
            record.text.method(),
            record.text.host(),
            record.status,
            record.protocol.as_str(),
            record.verdict.as_str(),
            record.logged_reason().to_string(),
            is_suspicious
        ])?;
        Ok(number)
    }
}

/// One key per shape. The variable parts carry their length or come last, so that two shapes never
/// share a key whatever the client puts into method and host.
fn write_shape_key(key: &mut Vec<u8>, record: &RequestRecord, is_suspicious: bool) {
    let [high, low] = record.status.to_be_bytes();
    key.clear();
    key.extend([record.protocol as u8, record.verdict as u8, u8::from(is_suspicious), high, low]);
    for part in [record.text.method(), record.text.host()] {
        key.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        key.extend(part.as_bytes());
    }
    let reason = record.logged_reason();
    // The common case goes without the formatting machinery.
    if !reason.is_empty() {
        // Writing into a Vec cannot fail.
        let _ = write!(key, "{reason}");
    }
}

/// SQLite's integers are signed: 32 random bits as a signed number take four bytes, unsigned mostly six.
fn signed(random: u32) -> i32 {
    i32::from_ne_bytes(random.to_ne_bytes())
}

fn saturate(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn widen(span: &mut Option<(i64, i64)>, time: i64) {
    let (min, max) = span.unwrap_or((time, time));
    *span = Some((min.min(time), max.max(time)));
}
