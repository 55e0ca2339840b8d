//! Makes sums from the rows: of zones whose rows changed or that an earlier version wrote, and of whole slices.
//!
//! Owns when the sums of a slice are complete. Must not begin or commit: the writer does.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use portcullis_model::VerdictKind;

use super::counters::Counters;
use super::encoding::{PlaceSums, put_places, put_tallies, tallies};
use super::marks::mark;
use super::{Class, Facts, Kind, SLICE_TOP, TextFact, ZoneSums, slice_id, zone_id};
use crate::log::slice::{Slice, ZONE_ROWS, first_number};

/// Texts whose marks are in one row of `string_marks`.
const MARKS_PER_ROW: usize = 8_192;
/// Shapes that a slice's sums keep, the most frequent.
const TOP_SHAPES: usize = 4_096;

/// Whether a sealed slice has the sums of all its zones and of itself.
pub(crate) fn is_complete(connection: &Connection, slice: &Slice) -> rusqlite::Result<bool> {
    has(connection, slice_id(slice.id, Kind::Shapes))
}

fn has(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM zone_sums WHERE id = ?1")?.exists([id])
}

/// Gives a sealed slice what it lacks: the zone that was not full, the sums of zones that an earlier version wrote,
/// the marks of its texts, the index by place, and the sums of all its zones together.
pub(crate) fn complete(connection: &Connection, slice: &Slice) -> rusqlite::Result<()> {
    close_last_zone(connection, slice)?;
    let mut lacking = BTreeSet::new();
    for last_row in last_rows(connection, slice)? {
        if !has(connection, zone_id(slice.id, last_row, Kind::Shapes))? {
            lacking.insert(last_row);
        }
    }
    rebuild_zones(connection, slice, &lacking)?;
    add_marks(connection, slice)?;
    connection.execute_batch(&format!(
        "CREATE INDEX IF NOT EXISTS clients_{id}_place ON clients_{id} (place)",
        id = slice.id
    ))?;
    sum_up(connection, slice)
}

/// Forgets the sums of a whole slice, those of its zones stay.
pub(crate) fn forget_slice_sums(connection: &Connection, slice: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM zone_sums WHERE id BETWEEN ?1 AND ?2")?
        .execute([slice_id(slice, Kind::Minutes), first_number(slice + 1) - 1])?;
    Ok(())
}

/// Makes the sums of all zones anew that have any.
pub(crate) fn rebuild_all(connection: &Connection, slice: &Slice) -> rusqlite::Result<()> {
    let zones = last_rows(connection, slice)?.into_iter().collect();
    rebuild_zones(connection, slice, &zones)
}

/// Makes the sums of the zones anew that end with these rows; those of the whole slice are void with it.
pub(crate) fn rebuild_zones(
    connection: &Connection,
    slice: &Slice,
    last_rows: &BTreeSet<i64>,
) -> rusqlite::Result<()> {
    if last_rows.is_empty() {
        return Ok(());
    }
    forget_slice_sums(connection, slice.id)?;
    let mut forget = connection.prepare("DELETE FROM zone_sums WHERE id BETWEEN ?1 AND ?2")?;
    for &last_row in last_rows {
        forget.execute([
            zone_id(slice.id, last_row, Kind::Minutes),
            zone_id(slice.id, last_row, Kind::Places),
        ])?;
        let mut sums = ZoneSums::load(connection, slice, first_row(last_row), last_row)?;
        sums.write(connection, slice.id, last_row)?;
    }
    Ok(())
}

/// Zones begin at multiples of their size; the last of a slice ends early.
fn first_row(last_row: i64) -> i64 {
    (last_row - 1) / ZONE_ROWS * ZONE_ROWS + 1
}

fn last_rows(connection: &Connection, slice: &Slice) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT last_row FROM zones WHERE slice = ?1 ORDER BY last_row";
    connection.prepare_cached(sql)?.query_map([slice.id], |row| row.get(0))?.collect()
}

fn close_last_zone(connection: &Connection, slice: &Slice) -> rusqlite::Result<()> {
    let covered = last_rows(connection, slice)?.last().copied().unwrap_or(0);
    if covered >= slice.rows || covered % ZONE_ROWS != 0 {
        return Ok(());
    }
    let sums = ZoneSums::load(connection, slice, covered + 1, slice.rows)?;
    if let Some((min, max)) = sums.span {
        let sql = "INSERT INTO zones VALUES (?1, ?2, ?3, ?4)";
        connection.execute(sql, params![slice.id, slice.rows, min, max])?;
    }
    Ok(())
}

impl ZoneSums {
    /// Gathers rows that are stored already.
    pub(crate) fn load(
        connection: &Connection,
        slice: &Slice,
        first_row: i64,
        last_row: i64,
    ) -> rusqlite::Result<Self> {
        let mut sums = Self::default();
        let mut statement = connection.prepare_cached(&format!(
            "SELECT r.rowid, r.t, r.client, r.shape, r.path, r.query, r.user_agent, r.user, r.bytes_in, \
             r.bytes_out, r.latency_us, s.verdict, s.status, s.is_suspicious \
             FROM requests_{id} AS r JOIN shapes AS s ON s.id = {first} + r.shape \
             WHERE r.rowid BETWEEN ?1 AND ?2 ORDER BY r.rowid",
            id = slice.id,
            first = first_number(slice.id)
        ))?;
        let mut rows = statement.query([first_row, last_row])?;
        while let Some(row) = rows.next()? {
            let text = |column: usize| {
                Ok::<_, rusqlite::Error>(match row.get_ref(column)? {
                    ValueRef::Integer(number) => TextFact::Number(number),
                    ValueRef::Text(bytes) => TextFact::Inline(std::str::from_utf8(bytes).unwrap_or("")),
                    ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => TextFact::Number(0),
                })
            };
            let amount = |column: usize| row.get::<_, i64>(column).map(|value| value.max(0).cast_unsigned());
            // Somebody's editing must not keep the log from being written.
            let verdict = VerdictKind::from_str(row.get_ref(11)?.as_str().unwrap_or(""));
            let verdict = verdict.unwrap_or(VerdictKind::Admitted);
            let status = u16::try_from(row.get::<_, i64>(12)?).unwrap_or(0);
            sums.add(&Facts {
                row: row.get::<_, i64>(0)? - first_row,
                time: slice.base_ms.saturating_add(row.get(1)?),
                client: row.get(2)?,
                shape: row.get(3)?,
                class: Class::of(verdict, status, row.get(13)?),
                texts: [text(4)?, text(5)?, text(6)?, text(7)?],
                bytes_in: amount(8)?,
                bytes_out: amount(9)?,
                latency_us: amount(10)?,
            });
        }
        Ok(sums)
    }
}

/// Marks the texts that have none yet.
fn add_marks(connection: &Connection, slice: &Slice) -> rusqlite::Result<()> {
    let first = first_number(slice.id);
    let sql = "SELECT id - ?1, length(data) / 8 FROM string_marks WHERE id BETWEEN ?1 AND ?2 \
               ORDER BY id DESC LIMIT 1";
    let last: Option<(i64, i64)> = connection
        .prepare_cached(sql)?
        .query_row([first, first_number(slice.id + 1) - 1], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let from = last.map_or(1, |(number, count)| number + count);
    let mut texts = connection
        .prepare_cached("SELECT id - ?1, text FROM strings WHERE id >= ?1 + ?2 AND id < ?3 ORDER BY id")?;
    let mut rows = texts.query([first, from, first_number(slice.id + 1)])?;
    let mut put = connection.prepare_cached("INSERT INTO string_marks VALUES (?1, ?2)")?;
    let mut data: Vec<u8> = Vec::new();
    let mut begin = from;
    while let Some(row) = rows.next()? {
        let (number, text): (i64, &str) = (row.get(0)?, row.get_ref(1)?.as_str()?);
        // Numbers are given out in sequence; a gap would be somebody's editing, and ends the row.
        let is_next = number == begin + i64::try_from(data.len() / 8).unwrap_or(0);
        if !data.is_empty() && (!is_next || data.len() >= MARKS_PER_ROW * 8) {
            put.execute(params![first + begin, data])?;
            data.clear();
        }
        if data.is_empty() {
            begin = number;
        }
        data.extend(mark(text).to_le_bytes());
    }
    if !data.is_empty() {
        put.execute(params![first + begin, data])?;
    }
    Ok(())
}

/// Marks the texts anew, after some of them changed.
pub(crate) fn rebuild_marks(connection: &Connection, slice: &Slice) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM string_marks WHERE id BETWEEN ?1 AND ?2",
        [first_number(slice.id), first_number(slice.id + 1) - 1],
    )?;
    add_marks(connection, slice)
}

fn sum_up(connection: &Connection, slice: &Slice) -> rusqlite::Result<()> {
    forget_slice_sums(connection, slice.id)?;
    let zones = last_rows(connection, slice)?;
    let mut put = connection.prepare("INSERT INTO zone_sums VALUES (?1, ?2)")?;
    let mut out = Vec::new();
    for (kind, top) in [
        (Kind::Shapes, TOP_SHAPES),
        (Kind::Clients, SLICE_TOP),
        (Kind::Paths, SLICE_TOP),
        (Kind::Agents, SLICE_TOP),
    ] {
        let counters = totals(connection, slice, &zones, kind)?;
        if kind == Kind::Clients {
            put_places(&mut out, &places_of(connection, slice, &counters)?);
            put.execute(params![slice_id(slice.id, Kind::Places), out])?;
            out.clear();
        }
        put_tallies(&mut out, counters.most_frequent(top).into_iter());
        put.execute(params![slice_id(slice.id, kind), out])?;
        out.clear();
    }
    Ok(())
}

fn totals(connection: &Connection, slice: &Slice, zones: &[i64], kind: Kind) -> rusqlite::Result<Counters> {
    let mut counters = Counters::new(slice.rows.cast_unsigned());
    let mut read = connection.prepare_cached("SELECT data FROM zone_sums WHERE id = ?1")?;
    for last_row in zones {
        let mut rows = read.query([zone_id(slice.id, *last_row, kind)])?;
        if let Some(row) = rows.next()? {
            tallies(row.get_ref(0)?.as_blob()?).for_each(|tally| counters.add(tally));
        }
    }
    Ok(counters)
}

/// Where the counted clients of a slice are.
pub(crate) fn places_of(
    connection: &Connection,
    slice: &Slice,
    clients: &Counters,
) -> rusqlite::Result<PlaceSums> {
    let mut by_place: HashMap<Option<i64>, (u64, u64)> = HashMap::new();
    if clients.is_empty() {
        return Ok(PlaceSums::default());
    }
    let mut statement = connection.prepare(&format!("SELECT id, place FROM clients_{}", slice.id))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(counts) = clients.get(row.get(0)?) {
            add(by_place.entry(row.get(1)?).or_default(), counts);
        }
    }
    gather_places(connection, slice, &by_place)
}

fn add(sum: &mut (u64, u64), (requests, refused): (u64, u64)) {
    sum.0 += requests;
    sum.1 += refused;
}

fn gather_places(
    connection: &Connection,
    slice: &Slice,
    by_place: &HashMap<Option<i64>, (u64, u64)>,
) -> rusqlite::Result<PlaceSums> {
    let first = first_number(slice.id);
    let mut find = connection.prepare("SELECT country, asn FROM places WHERE id = ?1")?;
    let mut countries: HashMap<String, (u64, u64)> = HashMap::new();
    let mut asns: HashMap<u32, (i64, (u64, u64))> = HashMap::new();
    for (place, counts) in by_place {
        let known: Option<(Option<String>, Option<u32>)> = match place {
            Some(place) => {
                find.query_row([first + place], |row| Ok((row.get(0)?, row.get(1)?))).optional()?
            }
            None => None,
        };
        let (country, asn) = known.unwrap_or_default();
        add(countries.entry(country.unwrap_or_default()).or_default(), *counts);
        if let Some((asn, place)) = asn.zip(*place) {
            add(&mut asns.entry(asn).or_insert((place, (0, 0))).1, *counts);
        }
    }
    let mut asns: Vec<_> =
        asns.into_iter().map(|(asn, (place, (requests, refused)))| (asn, place, requests, refused)).collect();
    asns.sort_unstable_by_key(|(asn, _, requests, _)| (std::cmp::Reverse(*requests), *asn));
    asns.truncate(SLICE_TOP);
    let countries =
        countries.into_iter().map(|(country, (requests, refused))| (country, requests, refused)).collect();
    Ok(PlaceSums { countries, asns })
}

impl ZoneSums {
    /// Marks what has been interned since, and writes the zone that ends with this row.
    pub(crate) fn finish(
        &mut self,
        connection: &Connection,
        slice: &Slice,
        last_row: i64,
    ) -> rusqlite::Result<()> {
        add_marks(connection, slice)?;
        self.write(connection, slice.id, last_row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_begins_after_the_one_before() {
        assert_eq!([1, 5, ZONE_ROWS].map(first_row), [1, 1, 1]);
        assert_eq!([ZONE_ROWS + 1, 2 * ZONE_ROWS].map(first_row), [ZONE_ROWS + 1; 2]);
    }
}
