//! Finds the rows of a slice that pass a filter, and reads no zone that cannot have any.
//!
//! Owns the way from what is asked for to the numbers of a slice, and to zones. Must not decide alone: every row that
//! is found is judged by the filter itself.

use std::net::IpAddr;
use std::ops::{ControlFlow, RangeInclusive};
use std::time::Instant;

use ipnet::IpNet;
use portcullis_model::ClientIp;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::filter::{LogFilter, TextTest, client_in};
use super::row::{Columns, Decoded, Shape};
use super::{Each, LogReader, Order, Window};
use crate::error::StoreError;
use crate::log::slice::{Slice, first_number};
use crate::log::sums::{Kind, Needle, TEXT_KINDS, inline_texts, marks, tallies, zone_id};

/// Numbers above are not given out by any slice.
const MAX_NUMBER: u64 = 1 << 28;
/// Texts that are looked up one by one; with more, all texts of the slice are read.
const MAX_LOOKUPS: usize = 2_048;
/// Numbers that are named in a statement; more are judged row by row.
const MAX_NAMED: usize = 4;
/// With more matching rows in a zone, the zone is read in one go.
const DENSE: usize = 128;
/// Shapes of a slice that are looked at; with more, which only an attack makes, rows are judged one by one.
const MAX_SHAPES: usize = 65_536;
/// The columns of `TEXT_KINDS`.
const TEXT_COLUMNS: [&str; TEXT_KINDS.len()] = ["path", "query", "user_agent", "user"];

/// A set of numbers.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    bits: Vec<u64>,
    is_some: bool,
}

impl Numbers {
    pub(super) fn insert(&mut self, number: i64) {
        let Ok(number) = u64::try_from(number) else { return };
        if number > MAX_NUMBER {
            return;
        }
        let word = (number / 64) as usize;
        if word >= self.bits.len() {
            self.bits.resize((word + 1).next_power_of_two(), 0);
        }
        self.bits[word] |= 1 << (number % 64);
        self.is_some = true;
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.bits.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn has_signed(&self, number: i64) -> bool {
        u64::try_from(number).is_ok_and(|number| self.has(number))
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_some
    }

    /// The condition that a text column has one of them or a text of its own, when they are few.
    fn sql(&self, column: &str) -> Option<String> {
        let words = self.bits.iter().enumerate().filter(|(_, word)| **word != 0);
        let numbers = words.flat_map(|(n, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| n * 64 + bit)
        });
        let named: Vec<String> =
            numbers.take(MAX_NAMED + 1).map(|number| format!("{column} = {number}")).collect();
        // Every text comes after every number.
        let own = format!("{column} >= ''");
        (named.len() <= MAX_NAMED).then(|| format!("AND ({})", [named, vec![own]].concat().join(" OR ")))
    }
}

/// A filter in the numbers of one slice.
struct Search<'f> {
    window: Window,
    /// No row before this one can match.
    first_row: i64,
    /// The only client, so that its index serves.
    client: Option<i64>,
    is_indexed: bool,
    /// Clients that each condition lets through.
    clients: Vec<Numbers>,
    shapes: Option<Numbers>,
    texts: [Option<TextSearch<'f>>; TEXT_KINDS.len()],
}

/// What a text column must hold.
struct TextSearch<'f> {
    test: TextTest<'f>,
    needle: Needle,
    /// Interned texts that are accepted.
    numbers: Numbers,
}

/// Where a search ended before the end of its slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    /// Everything from this row on has been looked at; before it, nothing.
    pub(super) row: i64,
    /// What started later has been looked at.
    pub(super) time: i64,
}

/// A run of rows.
pub(super) struct Run {
    pub(super) rows: RangeInclusive<i64>,
    /// The last row of the whole zone; `None` where there are no sums.
    pub(super) zone: Option<i64>,
    /// The latest start in it.
    pub(super) newest: i64,
}

/// Which rows of a zone may match.
enum Candidates {
    None,
    All,
    /// Ascending.
    Rows(Vec<i64>),
}

impl LogReader {
    /// Calls `each` for the rows of a slice that pass the filter, until it breaks off or the deadline comes; the
    /// deadline is looked at after each zone, so that every search comes some way.
    pub(super) fn search(
        &self,
        slice: &Slice,
        filter: &LogFilter,
        rows: RangeInclusive<i64>,
        order: Order,
        deadline: Option<Instant>,
        each: &mut Each<'_>,
    ) -> Result<Option<Stopped>, StoreError> {
        let searched = self.try_search(slice, filter, rows, order, deadline, each);
        Ok(self.unless_dropped(slice, searched)?.flatten())
    }

    fn try_search(
        &self,
        slice: &Slice,
        filter: &LogFilter,
        rows: RangeInclusive<i64>,
        order: Order,
        deadline: Option<Instant>,
        each: &mut Each<'_>,
    ) -> Result<Option<Stopped>, StoreError> {
        let prepared = self.prepare(filter, slice).map_err(self.error("filtering"))?;
        let Some(search) = prepared else { return Ok(None) };
        let first = (*rows.start()).max(search.first_row);
        let mut runs = self.runs(slice, search.window, first..=*rows.end())?;
        if order == Order::NewestFirst {
            runs.reverse();
        }
        for run in &runs {
            let flow = self.search_run(slice, filter, &search, run, order, each)?;
            if flow.is_break() {
                return Ok(None);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Some(Stopped { row: *run.rows.start(), time: run.newest }));
            }
        }
        Ok(None)
    }

    fn search_run(
        &self,
        slice: &Slice,
        filter: &LogFilter,
        search: &Search<'_>,
        run: &Run,
        order: Order,
        each: &mut Each<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        if search.is_said_by_sql() {
            return self.read_rows(slice, search, run.rows.clone(), order, filter, each);
        }
        let candidates =
            self.candidates(slice, search, run).map_err(self.error("reading the zones' sums"))?;
        let mut found = match candidates {
            Candidates::None => return Ok(ControlFlow::Continue(())),
            Candidates::All => self.matching(slice, search, [run.rows.clone()])?,
            Candidates::Rows(rows) => self.matching(slice, search, rows.into_iter().map(|row| row..=row))?,
        };
        if found.len() > DENSE {
            return self.read_rows(slice, search, run.rows.clone(), order, filter, each);
        }
        if order == Order::NewestFirst {
            found.reverse();
        }
        for row in found {
            let flow = self.read_rows(slice, search, row..=row, order, filter, each)?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads rows in full and gives those that the filter accepts to `each`.
    fn read_rows(
        &self,
        slice: &Slice,
        search: &Search<'_>,
        rows: RangeInclusive<i64>,
        order: Order,
        filter: &LogFilter,
        each: &mut Each<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let error = || self.error("reading requests");
        let mut dictionary = self.dictionary.borrow_mut();
        dictionary.enter(slice);
        let sql = Columns::select(slice.id, &search.client_sql(), order == Order::NewestFirst);
        let mut statement = self.connection.prepare_cached(&sql).map_err(error())?;
        let offsets = search.window.offsets(slice.base_ms);
        let mut found =
            statement.query(params![rows.start(), rows.end(), offsets.from, offsets.to]).map_err(error())?;
        while let Some(row) = found.next().map_err(error())? {
            let number: i64 = row.get(0).map_err(error())?;
            let columns = Columns::of(row).map_err(error())?;
            let decoded = dictionary.decode(&self.connection, slice, &columns, &self.path)?;
            if filter.accepts(&decoded) && each(number, &decoded).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Calls `each` for all rows of a run that started in the window.
    pub(super) fn each_row(
        &self,
        slice: &Slice,
        window: Window,
        run: &Run,
        each: &mut dyn FnMut(&Decoded<'_>),
    ) -> Result<(), StoreError> {
        let search = Search::nothing(slice, window);
        let each: &mut Each<'_> = &mut |_, row| {
            each(row);
            ControlFlow::Continue(())
        };
        let all = LogFilter::default();
        self.read_rows(slice, &search, run.rows.clone(), Order::OldestFirst, &all, each).map(|_| ())
    }

    /// The zones of a slice that may hold requests of the window, and the rows after the last of them.
    pub(super) fn runs(
        &self,
        slice: &Slice,
        window: Window,
        rows: RangeInclusive<i64>,
    ) -> Result<Vec<Run>, StoreError> {
        let (first, last) = (*rows.start(), (*rows.end()).min(slice.rows));
        let mut runs = Vec::new();
        let mut covered = 0;
        for zone in self.zones(slice)? {
            let (from, to) = ((covered + 1).max(first), zone.last_row.min(last));
            if from <= to && window.overlaps(zone.span) {
                runs.push(Run { rows: from..=to, zone: Some(zone.last_row), newest: zone.span.1 });
            }
            covered = zone.last_row;
        }
        let (from, to) = ((covered + 1).max(first), last);
        if from <= to {
            runs.push(Run {
                rows: from..=to,
                zone: None,
                newest: slice.span.map_or(i64::MAX, |span| span.1),
            });
        }
        Ok(runs)
    }

    fn prepare<'f>(&self, filter: &'f LogFilter, slice: &Slice) -> rusqlite::Result<Option<Search<'f>>> {
        let mut search = Search::nothing(slice, filter.window());
        let connection = &self.connection;
        if let Some(network) = filter.network
            && !search.limit_to_network(connection, slice, network)?
        {
            return Ok(None);
        }
        if (filter.country.is_some() || filter.asn.is_some())
            && !search.limit_to_place(connection, slice, filter)?
        {
            return Ok(None);
        }
        if filter.asks_of_shape() {
            search.shapes = shapes_in(connection, slice, filter)?;
            if search.shapes.as_ref().is_some_and(Numbers::is_empty) {
                return Ok(None);
            }
        }
        for (search, test) in search.texts.iter_mut().zip(filter.texts()) {
            if let Some(test) = test {
                let numbers = self.texts_in(slice, test)?;
                *search = Some(TextSearch { test, needle: test.needle(), numbers });
            }
        }
        Ok(Some(search))
    }

    /// The interned texts that are accepted.
    fn texts_in(&self, slice: &Slice, test: TextTest<'_>) -> rusqlite::Result<Numbers> {
        let mut numbers = Numbers::default();
        if test.accepts("") {
            numbers.insert(0);
        }
        let (mut perhaps, mut next) = (Vec::new(), 1);
        if self.has_sums {
            next = self.marked(slice, test.needle(), &mut perhaps)?;
        }
        if perhaps.len() > MAX_LOOKUPS {
            perhaps.clear();
            next = 1;
        }
        let first = first_number(slice.id);
        let mut find = self.connection.prepare_cached("SELECT text FROM strings WHERE id = ?1")?;
        for number in perhaps {
            let is_accepted = find
                .query_row([first + number], |row| Ok(test.accepts(row.get_ref(0)?.as_str()?)))
                .optional()?;
            if is_accepted == Some(true) {
                numbers.insert(number);
            }
        }
        let mut rest = self
            .connection
            .prepare_cached("SELECT id - ?1, text FROM strings WHERE id >= ?1 + ?2 AND id < ?3")?;
        let mut rows = rest.query([first, next, first_number(slice.id + 1)])?;
        while let Some(row) = rows.next()? {
            if test.accepts(row.get_ref(1)?.as_str()?) {
                numbers.insert(row.get(0)?);
            }
        }
        Ok(numbers)
    }

    /// Texts whose mark fits, and the first text that has none.
    fn marked(&self, slice: &Slice, needle: Needle, perhaps: &mut Vec<i64>) -> rusqlite::Result<i64> {
        let first = first_number(slice.id);
        let mut next = 1;
        let sql = "SELECT id - ?1, data FROM string_marks WHERE id >= ?1 AND id < ?2 ORDER BY id";
        let mut read = self.connection.prepare_cached(sql)?;
        let mut rows = read.query([first, first_number(slice.id + 1)])?;
        while let Some(row) = rows.next()? {
            let begin: i64 = row.get(0)?;
            // A gap would be somebody's editing: everything after it is read.
            if begin != next {
                break;
            }
            for mark in marks(row.get_ref(1)?.as_blob()?) {
                if needle.fits(mark) {
                    perhaps.push(next);
                }
                next += 1;
            }
        }
        Ok(next)
    }

    fn candidates(&self, slice: &Slice, search: &Search<'_>, run: &Run) -> rusqlite::Result<Candidates> {
        let Some(last_row) = run.zone.filter(|_| self.has_sums) else { return Ok(Candidates::All) };
        let mut sums = self.connection.prepare_cached("SELECT data FROM zone_sums WHERE id = ?1")?;
        let zone = |kind| zone_id(slice.id, last_row, kind);
        let shapes = search.shapes.as_ref();
        match holds(&mut sums, zone(Kind::Shapes), shapes)? {
            // A zone that an earlier version wrote.
            None => return Ok(Candidates::All),
            Some(false) => return Ok(Candidates::None),
            Some(true) => {}
        }
        let mut candidates = Candidates::All;
        for (search, (kind, inline)) in search.texts.iter().zip(TEXT_KINDS) {
            let Some(search) = search else { continue };
            // The empty text is not summed up in every column.
            if search.numbers.has(0) {
                continue;
            }
            let numbers = Some(&search.numbers).filter(|numbers| !numbers.is_empty());
            if numbers.is_some() && holds(&mut sums, zone(kind), numbers)? == Some(true) {
                continue;
            }
            let first_row = last_row - (last_row - 1) % crate::log::slice::ZONE_ROWS;
            let rows = fitting(&mut sums, zone(inline), search.needle, first_row, &run.rows)?;
            if rows.is_empty() {
                return Ok(Candidates::None);
            }
            let is_fewer = match &candidates {
                Candidates::Rows(others) => rows.len() < others.len(),
                Candidates::All | Candidates::None => true,
            };
            if is_fewer {
                candidates = Candidates::Rows(rows);
            }
        }
        for clients in &search.clients {
            if holds(&mut sums, zone(Kind::Clients), Some(clients))? != Some(true) {
                return Ok(Candidates::None);
            }
        }
        Ok(candidates)
    }

    /// Those of the rows whose numbers match, in the order in which they are asked for.
    fn matching(
        &self,
        slice: &Slice,
        search: &Search<'_>,
        asked: impl IntoIterator<Item = RangeInclusive<i64>>,
    ) -> Result<Vec<i64>, StoreError> {
        let error = || self.error("searching requests");
        let mut statement = self.connection.prepare_cached(&search.sql(slice)).map_err(error())?;
        let offsets = search.window.offsets(slice.base_ms);
        let mut found = Vec::new();
        for rows in asked {
            let mut rows = statement
                .query(params![rows.start(), rows.end(), offsets.from, offsets.to])
                .map_err(error())?;
            while let Some(row) = rows.next().map_err(error())? {
                if search.accepts(row).map_err(error())? {
                    found.push(row.get(0).map_err(error())?);
                }
            }
        }
        Ok(found)
    }
}

impl Search<'_> {
    /// Asks for nothing but a time.
    fn nothing(slice: &Slice, window: Window) -> Self {
        Self {
            window,
            first_row: 1,
            client: None,
            is_indexed: slice.is_indexed,
            clients: Vec::new(),
            shapes: None,
            texts: [const { None }; TEXT_KINDS.len()],
        }
    }

    /// Whether nothing is asked, or for one client in a slice that has an index of them.
    fn is_said_by_sql(&self) -> bool {
        let has_index = self.client.is_some() && self.is_indexed && self.clients.len() == 1;
        let is_any_client = self.clients.is_empty() || has_index;
        is_any_client && self.shapes.is_none() && self.texts.iter().all(Option::is_none)
    }

    fn client_sql(&self) -> String {
        self.client.map(|client| format!("AND client = {client}")).unwrap_or_default()
    }

    /// False when no client of the slice is in the network.
    fn limit_to_network(
        &mut self,
        connection: &Connection,
        slice: &Slice,
        network: IpNet,
    ) -> rusqlite::Result<bool> {
        let mut numbers = Numbers::default();
        if network.prefix_len() == network.max_prefix_len() {
            let Some((client, first_row)) = client_in(connection, slice, &network.addr().to_string())? else {
                return Ok(false);
            };
            self.client = Some(client);
            self.first_row = first_row;
            numbers.insert(client);
        } else {
            clients_of(connection, slice, network, &mut |client, _| numbers.insert(client))?;
        }
        let is_some = !numbers.is_empty();
        self.clients.push(numbers);
        Ok(is_some)
    }

    /// False when no client of the slice is there.
    fn limit_to_place(
        &mut self,
        connection: &Connection,
        slice: &Slice,
        filter: &LogFilter,
    ) -> rusqlite::Result<bool> {
        let mut numbers = Numbers::default();
        clients_at(connection, slice, filter.country.as_deref(), filter.asn, &mut |client| {
            numbers.insert(client);
        })?;
        let is_some = !numbers.is_empty();
        self.clients.push(numbers);
        Ok(is_some)
    }

    /// The statement that reads what is needed of rows ?1 to ?2 with a time offset in ?3 to ?4.
    fn sql(&self, slice: &Slice) -> String {
        let mut columns = vec!["rowid"];
        if !self.clients.is_empty() {
            columns.push("client");
        }
        if self.shapes.is_some() {
            columns.push("shape");
        }
        let texts = self.texts.iter().zip(TEXT_COLUMNS).filter(|(search, _)| search.is_some());
        columns.extend(texts.map(|(_, column)| column));
        let texts = self.texts.iter().zip(TEXT_COLUMNS);
        let texts = texts.filter_map(|(search, column)| search.as_ref()?.numbers.sql(column));
        format!(
            "SELECT {} FROM requests_{} WHERE rowid BETWEEN ?1 AND ?2 AND t >= ?3 AND t < ?4 {} {} \
             ORDER BY rowid",
            columns.join(", "),
            slice.id,
            self.client_sql(),
            texts.collect::<Vec<_>>().join(" ")
        )
    }

    /// Judges a row of that statement.
    fn accepts(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let mut column = 0;
        let mut next = || {
            column += 1;
            column
        };
        if !self.clients.is_empty() {
            let client = row.get(next())?;
            if !self.clients.iter().all(|clients| clients.has_signed(client)) {
                return Ok(false);
            }
        }
        if let Some(shapes) = &self.shapes
            && !shapes.has_signed(row.get(next())?)
        {
            return Ok(false);
        }
        for search in self.texts.iter().flatten() {
            let is_accepted = match row.get_ref(next())? {
                ValueRef::Integer(number) => search.numbers.has_signed(number),
                ValueRef::Text(text) => std::str::from_utf8(text).is_ok_and(|text| search.test.accepts(text)),
                ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => search.test.accepts(""),
            };
            if !is_accepted {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a zone's tallies have one of the numbers, any without; `None` when there are none at all.
fn holds(
    sums: &mut CachedStatement<'_>,
    id: i64,
    numbers: Option<&Numbers>,
) -> rusqlite::Result<Option<bool>> {
    let mut rows = sums.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let Some(numbers) = numbers else { return Ok(Some(true)) };
    Ok(Some(tallies(row.get_ref(0)?.as_blob()?).any(|tally| numbers.has(tally.number))))
}

/// The rows whose own text may be the one that is sought.
fn fitting(
    sums: &mut CachedStatement<'_>,
    id: i64,
    needle: Needle,
    first_row: i64,
    within: &RangeInclusive<i64>,
) -> rusqlite::Result<Vec<i64>> {
    let mut rows = sums.query([id])?;
    let Some(row) = rows.next()? else { return Ok(Vec::new()) };
    let texts = inline_texts(row.get_ref(0)?.as_blob()?).filter(|(_, mark)| needle.fits(*mark));
    let found = texts.filter_map(|(row, _)| first_row.checked_add_unsigned(row));
    Ok(found.filter(|row| within.contains(row)).collect())
}

/// The shapes that the filter accepts; `None` when that is all of them, or there are too many.
fn shapes_in(
    connection: &Connection,
    slice: &Slice,
    filter: &LogFilter,
) -> rusqlite::Result<Option<Numbers>> {
    let mut statement = connection.prepare_cached(
        "SELECT method, host, status, protocol, verdict, reason, is_suspicious, id - ?1 FROM shapes \
         WHERE id BETWEEN ?1 AND ?2",
    )?;
    let mut rows = statement.query([first_number(slice.id), first_number(slice.id + 1) - 1])?;
    let mut numbers = Numbers::default();
    let (mut count, mut is_all) = (0, true);
    while let Some(row) = rows.next()? {
        if filter.accepts_shape(&Shape::of(row)?) {
            numbers.insert(row.get(7)?);
        } else {
            is_all = false;
        }
        count += 1;
        if count > MAX_SHAPES {
            return Ok(None);
        }
    }
    Ok((!is_all).then_some(numbers))
}

/// Calls `each` with the clients of a slice in a network, their number and address.
pub(super) fn clients_of(
    connection: &Connection,
    slice: &Slice,
    network: IpNet,
    each: &mut dyn FnMut(i64, ClientIp),
) -> rusqlite::Result<()> {
    let prefix = text_prefix(network);
    // What comes after every text with this prefix: its last letter is a point or a colon.
    let end = match prefix.as_bytes() {
        [.., b'.'] => format!("{}/", &prefix[..prefix.len() - 1]),
        [.., b':'] => format!("{};", &prefix[..prefix.len() - 1]),
        _ => "g".to_owned(),
    };
    let mut statement = connection
        .prepare_cached(&format!("SELECT id, ip FROM clients_{} WHERE ip >= ?1 AND ip < ?2", slice.id))?;
    let mut rows = statement.query([&prefix, &end])?;
    while let Some(row) = rows.next()? {
        let client: Option<ClientIp> = row.get_ref(1)?.as_str()?.parse().ok();
        if let Some(client) = client.filter(|client| network.contains(&client.ip())) {
            each(row.get(0)?, client);
        }
    }
    Ok(())
}

/// How the texts of all addresses in a network begin: whole octets, and groups up to the first that is zero, because
/// zeros may be left out.
fn text_prefix(network: IpNet) -> String {
    match network.network() {
        IpAddr::V4(address) => {
            let octets = address.octets().into_iter().take(usize::from(network.prefix_len() / 8).min(3));
            octets.map(|octet| format!("{octet}.")).collect()
        }
        IpAddr::V6(address) => {
            let groups = address.segments().into_iter().take(usize::from(network.prefix_len() / 16).min(7));
            groups.take_while(|group| *group != 0).map(|group| format!("{group:x}:")).collect()
        }
    }
}

/// Calls `each` with the number of every client of a slice that is in a country or an ASN, or both.
pub(super) fn clients_at(
    connection: &Connection,
    slice: &Slice,
    country: Option<&str>,
    asn: Option<u32>,
    each: &mut dyn FnMut(i64),
) -> rusqlite::Result<()> {
    let (first, last) = (first_number(slice.id), first_number(slice.id + 1) - 1);
    let places = "SELECT id - ?1 FROM places WHERE id BETWEEN ?1 AND ?2 \
                  AND (?3 IS NULL OR country = ?3 COLLATE NOCASE) AND (?4 IS NULL OR asn = ?4)";
    let asked = params![first, last, country, asn];
    if !connection.prepare_cached(places)?.exists(asked)? {
        return Ok(());
    }
    let mut statement = connection
        .prepare_cached(&format!("SELECT id FROM clients_{} WHERE place IN ({places})", slice.id))?;
    let mut rows = statement.query(asked)?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_network_begin_with_its_text() {
        for (network, prefix) in [
            ("10.1.2.0/24", "10.1.2."),
            ("10.1.2.128/25", "10.1.2."),
            ("10.1.16.0/20", "10.1."),
            ("0.0.0.0/0", ""),
            ("2001:db8::/32", "2001:db8:"),
            ("2001:db8:0:1::/64", "2001:db8:"),
            ("2001:db8:f:1::/60", "2001:db8:f:"),
            ("::/0", ""),
        ] {
            let network: IpNet = network.parse().unwrap();
            assert_eq!(text_prefix(network), prefix);
            assert!(network.network().to_string().starts_with(prefix) || prefix.is_empty());
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let mut numbers = Numbers::default();
        assert!(numbers.is_empty() && !numbers.has(0));
        for number in [0, 63, 64, 1_000, -1, i64::MAX] {
            numbers.insert(number);
        }
        let found: Vec<u64> = (0..2_000).filter(|number| numbers.has(*number)).collect();
        assert_eq!(found, [0, 63, 64, 1_000]);
        assert!(!numbers.has(u64::MAX) && !numbers.has_signed(-1));
    }
}
