//! Reads the log on a connection of its own, whether the gateway runs or not.
//!
//! Owns the walk over slices and the decoding of rows. Must not write, and must not keep a read
//! transaction open for long: that would keep the write-ahead log from being emptied.

mod dictionary;
mod filter;
mod find;
mod overview;
mod page;
mod places;
mod report;
mod row;
mod search;
mod similar;
mod subject;
mod summary;
mod top;
mod tops;
mod traffic;

use std::cell::RefCell;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use portcullis_model::UnixMs;

pub use filter::{LogFilter, StatusFilter};
pub use overview::{Bucket, MAX_BUCKETS, Overview, OverviewSpan, TopCount};
pub use page::{BadCursor, Page};
pub use places::Coverage;
pub use report::{ClientReport, SensitiveHits, StatusCounts};
pub use row::{LogRow, LoggedRequest};
pub use similar::{SimilarClient, SimilarClients};
pub use summary::{LogSummary, LogTotals};
pub use top::{TopBy, TopRow};
pub use traffic::{Latencies, Traffic};

use crate::error::{StoreError, sqlite_error};
use crate::folder::{self, LOG_FILE};
use crate::log::slice::{self, MIGRATIONS, Slice, ZONE_ROWS};
use dictionary::Dictionary;
use filter::SliceFilter;
use row::Columns;

/// Statements that stay prepared: all that a search in one slice needs.
const MAX_STATEMENTS: usize = 48;
/// Zones that one read transaction covers at most.
const CHUNK_ZONES: i64 = 16;
const CHUNK_ROWS: i64 = ZONE_ROWS * CHUNK_ZONES;

/// A place in the log: everything up to it has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogCursor {
    slice: i64,
    row: i64,
}

/// Reads the log of one data folder.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    connection: Connection,
    /// A log of the version before has no table of erased rows.
    has_erased: bool,
    /// A log of an earlier version has no sums of its zones.
    has_sums: bool,
    dictionary: RefCell<Dictionary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    OldestFirst,
    NewestFirst,
}

/// What a walk over the rows of a slice is limited to.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Starts of requests, in milliseconds: `from <= start < to`.
    from: i64,
    to: i64,
}

impl Window {
    /// Whether everything in the span is in the window.
    fn holds(self, (min, max): (i64, i64)) -> bool {
        min >= self.from && max < self.to
    }

    fn overlaps(self, (min, max): (i64, i64)) -> bool {
        min < self.to && max >= self.from
    }
}

/// A full zone of a slice.
struct Zone {
    last_row: i64,
    /// The earliest and latest start of a request in it.
    span: (i64, i64),
}

type Each<'e> = dyn FnMut(i64, &row::Decoded<'_>) -> ControlFlow<()> + 'e;

impl LogReader {
    /// Opens `DIR/log.db` for reading.
    ///
    /// # Errors
    /// There is no log yet, a newer version wrote it, it is damaged, or SQLite fails.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOG_FILE);
        if !folder::has(&path)? {
            return Err(StoreError::NoLog(path));
        }
        let connection = folder::open_reader(&path)?;
        let version = folder::schema_version(&connection, &path, MIGRATIONS.len())?;
        if version == 0 {
            return Err(StoreError::NoLog(path));
        }
        connection.set_prepared_statement_cache_capacity(MAX_STATEMENTS);
        Ok(Self {
            path,
            connection,
            has_erased: version > 1,
            has_sums: version > 2,
            dictionary: RefCell::new(Dictionary::new()),
        })
    }

    /// Every request that started at `from` or later and before `to`, in the order in which they ended, until
    /// `each` breaks off. Returns how many there were. Memory does not grow with the log.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn visit(
        &self,
        from: UnixMs,
        to: UnixMs,
        each: &mut dyn FnMut(&LoggedRequest<'_>) -> ControlFlow<()>,
    ) -> Result<u64, StoreError> {
        let window = Window { from: from.0, to: to.0 };
        let (mut count, mut flow) = (0, ControlFlow::Continue(()));
        for slice in self.slices_in(window)? {
            if flow.is_break() {
                break;
            }
            let all = SliceFilter::window_only(window);
            self.walk(&slice, &all, 1..=i64::MAX, Order::OldestFirst, &mut |_, row| {
                count += 1;
                flow = each(&row.request());
                flow
            })?;
        }
        Ok(count)
    }

    /// The newest requests that pass the filter, newest first, by the time at which they ended.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn rows(&self, filter: &LogFilter, limit: usize) -> Result<Vec<LogRow>, StoreError> {
        let mut found = Vec::new();
        let window = filter.window();
        for slice in self.slices_in(window)?.into_iter().rev() {
            if found.len() >= limit {
                break;
            }
            self.collect(&slice, filter, 1..=i64::MAX, Order::NewestFirst, limit, &mut found)?;
        }
        Ok(found)
    }

    /// The place after the newest request.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn end(&self) -> Result<LogCursor, StoreError> {
        let last = self.slices()?.last().map(|slice| LogCursor { slice: slice.id, row: slice.rows });
        Ok(last.unwrap_or_default())
    }

    /// Requests after a place that pass the filter, oldest first, and the place to go on from. Fewer than
    /// `limit` means that the end was reached.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn tail(
        &self,
        filter: &LogFilter,
        after: LogCursor,
        limit: usize,
    ) -> Result<(Vec<LogRow>, LogCursor), StoreError> {
        let mut found = Vec::new();
        let mut cursor = after;
        for slice in self.slices()?.into_iter().filter(|slice| slice.id >= after.slice) {
            let first = if slice.id == after.slice { after.row + 1 } else { 1 };
            // Rows that are committed while this runs belong to the next call.
            let rows = first..=slice.rows;
            let last = self.collect(&slice, filter, rows, Order::OldestFirst, limit, &mut found)?;
            if found.len() >= limit {
                let row = last.unwrap_or(slice.rows);
                return Ok((found, LogCursor { slice: slice.id, row }));
            }
            cursor = LogCursor { slice: slice.id, row: slice.rows };
        }
        Ok((found, cursor))
    }

    /// The requests in the log.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn count(&self) -> Result<u64, StoreError> {
        let rows: u64 = self.slices()?.iter().map(|slice| u64::try_from(slice.rows).unwrap_or(0)).sum();
        Ok(rows.saturating_sub(self.erased()?))
    }

    fn erased(&self) -> Result<u64, StoreError> {
        if !self.has_erased {
            return Ok(0);
        }
        let sql = "SELECT coalesce(sum(rows), 0) FROM erased";
        let rows: i64 = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(self.error("counting erased requests"))?;
        Ok(u64::try_from(rows).unwrap_or(0))
    }

    /// The earliest and the latest start of a request.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn span(&self) -> Result<Option<(UnixMs, UnixMs)>, StoreError> {
        let spans: Vec<_> = self.slices()?.iter().filter_map(|slice| slice.span).collect();
        let min = spans.iter().map(|span| span.0).min();
        let max = spans.iter().map(|span| span.1).max();
        Ok(min.zip(max).map(|(min, max)| (UnixMs(min), UnixMs(max))))
    }

    fn slices(&self) -> Result<Vec<Slice>, StoreError> {
        // What was looked up for an earlier question may have been erased since.
        self.dictionary.borrow_mut().forget();
        slice::list(&self.connection).map_err(self.error("reading the slices"))
    }

    /// The slices that have requests in the window, oldest first.
    fn slices_in(&self, window: Window) -> Result<Vec<Slice>, StoreError> {
        let mut slices = self.slices()?;
        slices.retain(|slice| slice.span.is_some_and(|span| window.overlaps(span)));
        Ok(slices)
    }

    fn error(&self, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError + '_ {
        sqlite_error(&self.path, doing)
    }

    /// Appends what passes the filter until `found` holds `limit` rows. Returns the number of the last
    /// row that was taken.
    fn collect(
        &self,
        slice: &Slice,
        filter: &LogFilter,
        rows: RangeInclusive<i64>,
        order: Order,
        limit: usize,
        found: &mut Vec<LogRow>,
    ) -> Result<Option<i64>, StoreError> {
        let mut last = None;
        self.search(slice, filter, rows, order, None, &mut |number, row| {
            last = Some(number);
            found.push(row.to_row());
            if found.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(last)
    }

    /// Calls `each` for the rows of a slice that the prepared filter lets through, a bounded number per
    /// read transaction.
    fn walk(
        &self,
        slice: &Slice,
        filter: &SliceFilter,
        rows: RangeInclusive<i64>,
        order: Order,
        each: &mut Each<'_>,
    ) -> Result<(), StoreError> {
        let walked = self.try_walk(slice, filter, rows, order, each);
        self.unless_dropped(slice, walked).map(|_| ())
    }

    fn try_walk(
        &self,
        slice: &Slice,
        filter: &SliceFilter,
        rows: RangeInclusive<i64>,
        order: Order,
        each: &mut Each<'_>,
    ) -> Result<(), StoreError> {
        let first = (*rows.start()).max(filter.first_row);
        let mut chunks = self.chunks(slice, filter.window, first..=*rows.end())?;
        if order == Order::NewestFirst {
            chunks.reverse();
        }
        let sql = Columns::select(slice.id, &filter.sql, order == Order::NewestFirst);
        let mut dictionary = self.dictionary.borrow_mut();
        dictionary.enter(slice);
        for chunk in chunks {
            let error = || self.error("reading requests");
            let mut statement = self.connection.prepare_cached(&sql).map_err(error())?;
            let offsets = filter.window.offsets(slice.base_ms);
            let mut found = statement
                .query(params![chunk.start(), chunk.end(), offsets.from, offsets.to])
                .map_err(error())?;
            while let Some(row) = found.next().map_err(error())? {
                let number: i64 = row.get(0).map_err(error())?;
                let columns = Columns::of(row).map_err(error())?;
                let decoded = dictionary.decode(&self.connection, slice, &columns, &self.path)?;
                if each(number, &decoded).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Runs of rows that may hold requests of the window, in order, each at most [`CHUNK_ROWS`] long.
    fn chunks(
        &self,
        slice: &Slice,
        window: Window,
        rows: RangeInclusive<i64>,
    ) -> Result<Vec<RangeInclusive<i64>>, StoreError> {
        let mut chunks: Vec<RangeInclusive<i64>> = Vec::new();
        let (first, last) = (*rows.start(), (*rows.end()).min(slice.rows));
        let mut push = |from: i64, to: i64| {
            let (from, to) = (from.max(first), to.min(last));
            if from > to {
                return;
            }
            match chunks.last_mut() {
                Some(run) if *run.end() + 1 == from && to - *run.start() < CHUNK_ROWS => {
                    *run = *run.start()..=to;
                }
                _ => chunks.push(from..=to),
            }
        };
        let mut covered = 0;
        for zone in self.zones(slice)? {
            if window.overlaps(zone.span) {
                push(covered + 1, zone.last_row);
            }
            covered = zone.last_row;
        }
        // The zone that is not full yet.
        if covered < slice.rows {
            push(covered + 1, slice.rows);
        }
        Ok(chunks)
    }

    fn zones(&self, slice: &Slice) -> Result<Vec<Zone>, StoreError> {
        let error = || self.error("reading the zones");
        let sql = "SELECT last_row, min_ms, max_ms FROM zones WHERE slice = ?1 ORDER BY last_row";
        let mut statement = self.connection.prepare_cached(sql).map_err(error())?;
        let zones = statement.query_map([slice.id], |row| {
            Ok(Zone { last_row: row.get(0)?, span: (row.get(1)?, row.get(2)?) })
        });
        zones.and_then(Iterator::collect).map_err(error())
    }

    /// A failure because the slice was dropped in the meantime is the end of the slice, not an error.
    fn unless_dropped<T>(
        &self,
        slice: &Slice,
        result: Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => match slice::get(&self.connection, slice.id) {
                Ok(None) => Ok(None),
                Ok(Some(_)) | Err(_) => Err(error),
            },
        }
    }
}

impl Window {
    /// The same window in the slice's own time.
    fn offsets(self, base_ms: i64) -> Self {
        Self { from: self.from.saturating_sub(base_ms), to: self.to.saturating_sub(base_ms) }
    }
}
