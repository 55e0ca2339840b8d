//! Turns the numbers in rows back into what they stand for.
//!
//! Owns the caches of one slice at a time, all of them bounded. Must not decide which rows are read.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use portcullis_model::{ClientIp, Location, RequestId, UnixMs};

use super::row::{Columns, Decoded, Shape, TEXTS};
use crate::error::{StoreError, sqlite_error};
use crate::log::MAX_STRINGS;
use crate::log::slice::{Slice, first_number};

/// One more than there are strings: two strings of one row must never share a slot.
const STRING_SLOTS: usize = MAX_STRINGS + 1;
const CLIENT_SLOTS: usize = 131_072;
const SHAPE_SLOTS: usize = 16_384;
const PLACE_SLOTS: usize = 16_384;

/// A cache by number with one slot per remainder. Numbers are handed out in sequence, so a slice with
/// fewer of them than slots never has two that share one.
#[derive(Debug)]
struct Slots<T> {
    slots: Vec<Option<(i64, T)>>,
    capacity: usize,
}

impl<T> Slots<T> {
    const fn new(capacity: usize) -> Self {
        Self { slots: Vec::new(), capacity }
    }

    fn clear(&mut self) {
        self.slots.clear();
    }

    fn slot(&self, number: i64) -> usize {
        usize::try_from(number).unwrap_or(0) % self.capacity
    }

    /// Makes sure that the value is here.
    fn ensure(
        &mut self,
        number: i64,
        load: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<usize, StoreError> {
        let slot = self.slot(number);
        if slot >= self.slots.len() {
            self.slots.resize_with((slot + 1).next_power_of_two().min(self.capacity), || None);
        }
        if !matches!(&self.slots[slot], Some((held, _)) if *held == number) {
            self.slots[slot] = Some((number, load()?));
        }
        Ok(slot)
    }

    fn at(&self, slot: usize) -> Option<&T> {
        self.slots[slot].as_ref().map(|(_, value)| value)
    }
}

#[derive(Debug)]
struct Client {
    ip: ClientIp,
    place: Option<i64>,
}

/// The caches of the slice that was read last.
#[derive(Debug)]
pub(super) struct Dictionary {
    slice: i64,
    strings: Slots<Box<str>>,
    clients: Slots<Client>,
    shapes: Slots<Shape>,
    places: Slots<Location>,
    unknown: Location,
    sql: Sql,
}

#[derive(Debug, Default)]
struct Sql {
    string: String,
    client: String,
    shape: String,
    place: String,
}

impl Dictionary {
    pub(super) fn new() -> Self {
        Self {
            slice: 0,
            strings: Slots::new(STRING_SLOTS),
            clients: Slots::new(CLIENT_SLOTS),
            shapes: Slots::new(SHAPE_SLOTS),
            places: Slots::new(PLACE_SLOTS),
            unknown: Location::default(),
            sql: Sql::default(),
        }
    }

    /// Forgets everything.
    pub(super) fn forget(&mut self) {
        self.slice = 0;
        self.strings.clear();
        self.clients.clear();
        self.shapes.clear();
        self.places.clear();
    }

    /// Forgets another slice.
    pub(super) fn enter(&mut self, slice: &Slice) {
        let id = slice.id;
        if self.slice == id {
            return;
        }
        self.forget();
        self.slice = id;
        let first = first_number(id);
        self.sql = Sql {
            string: format!("SELECT text FROM strings WHERE id = {first} + ?1"),
            client: format!("SELECT ip, place FROM clients_{id} WHERE id = ?1"),
            shape: format!(
                "SELECT method, host, status, protocol, verdict, reason, is_suspicious \
                 FROM shapes WHERE id = {first} + ?1"
            ),
            place: format!(
                "SELECT country, city, region, latitude, longitude, isp, asn FROM places WHERE id = {first} + ?1"
            ),
        };
    }

    /// Looks everything up that the row refers to.
    pub(super) fn decode<'a>(
        &'a mut self,
        connection: &Connection,
        slice: &Slice,
        columns: &Columns<'a>,
        path: &Path,
    ) -> Result<Decoded<'a>, StoreError> {
        let lookup = Lookup { connection, path };
        let mut text_slots = [0; TEXTS];
        for (slot, value) in text_slots.iter_mut().zip(columns.texts) {
            if let ValueRef::Integer(number) = value {
                *slot = self.strings.ensure(number, || lookup.string(&self.sql.string, number))?;
            }
        }
        let shape = self.shapes.ensure(columns.shape, || lookup.shape(&self.sql.shape, columns.shape))?;
        let client =
            self.clients.ensure(columns.client, || lookup.client(&self.sql.client, columns.client))?;
        let place = match self.clients.at(client).and_then(|client| client.place) {
            Some(number) => Some(self.places.ensure(number, || lookup.place(&self.sql.place, number))?),
            None => None,
        };

        let this: &'a Self = self;
        let missing = || bad("requests", "client or shape", columns.client);
        let mut texts = [""; TEXTS];
        for ((text, slot), value) in texts.iter_mut().zip(text_slots).zip(columns.texts) {
            *text = match value {
                ValueRef::Integer(_) => this.strings.at(slot).map_or("", |text| text),
                ValueRef::Text(bytes) => std::str::from_utf8(bytes).unwrap_or(""),
                ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => "",
            };
        }
        Ok(Decoded {
            id: RequestId::new(UnixMs(slice.base_ms.saturating_add(columns.t)), unsigned(columns.random)),
            client: this.clients.at(client).ok_or_else(missing)?.ip,
            location: place.and_then(|slot| this.places.at(slot)).unwrap_or(&this.unknown),
            shape: this.shapes.at(shape).ok_or_else(missing)?,
            texts,
            bytes_in: amount(columns.bytes_in),
            bytes_out: amount(columns.bytes_out),
            latency_us: amount(columns.latency_us),
        })
    }
}

/// The statements behind the caches.
struct Lookup<'c> {
    connection: &'c Connection,
    path: &'c Path,
}

impl Lookup<'_> {
    fn string(&self, sql: &str, number: i64) -> Result<Box<str>, StoreError> {
        let text: String = self.one(sql, number, "strings", |row| row.get(0))?;
        Ok(text.into_boxed_str())
    }

    fn shape(&self, sql: &str, number: i64) -> Result<Shape, StoreError> {
        self.one(sql, number, "shapes", Shape::of)
    }

    fn client(&self, sql: &str, number: i64) -> Result<Client, StoreError> {
        let (ip, place): (String, Option<i64>) =
            self.one(sql, number, "clients", |row| Ok((row.get(0)?, row.get(1)?)))?;
        let ip =
            ip.parse().map_err(|_| StoreError::BadValue { table: "clients", column: "ip", value: ip })?;
        Ok(Client { ip, place })
    }

    fn place(&self, sql: &str, number: i64) -> Result<Location, StoreError> {
        self.one(sql, number, "places", |row| {
            Ok(Location {
                country: row.get(0)?,
                city: row.get(1)?,
                region: row.get(2)?,
                latitude: row.get(3)?,
                longitude: row.get(4)?,
                isp: row.get(5)?,
                asn: row.get(6)?,
            })
        })
    }

    fn one<T>(
        &self,
        sql: &str,
        number: i64,
        table: &'static str,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let error = || sqlite_error(self.path, "looking up what a request refers to");
        let mut statement = self.connection.prepare_cached(sql).map_err(error())?;
        statement
            .query_row([number], read)
            .optional()
            .map_err(error())?
            .ok_or_else(|| bad(table, "id", number))
    }
}

fn bad(table: &'static str, column: &'static str, number: i64) -> StoreError {
    StoreError::BadValue { table, column, value: number.to_string() }
}

/// The 32 random bits are kept as a signed number.
fn unsigned(random: i64) -> u32 {
    random as u32
}

fn amount(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
