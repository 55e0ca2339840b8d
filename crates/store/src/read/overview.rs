//! What happened in a span of time: how much over time, and who and what came most often.
//!
//! Owns the division into buckets. Must not look on past its deadline.

use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;

use portcullis_model::UnixMs;

use super::row::Decoded;
use super::search::Run;
use super::tops::{Ranked, SliceTops, Tops, Wanted};
use super::traffic::Traffic;
use super::{Each, LogFilter, LogReader, Order, Window};
use crate::error::StoreError;
use crate::log::slice::Slice;
use crate::log::sums::{Kind, MINUTE_MS, Minute, minutes, zone_id};

/// Buckets of one overview. Traffic is summed up by the minute, so none is shorter.
pub const MAX_BUCKETS: usize = 1_500;
/// Zones at the ends of a span whose rows are read for exact counts.
const MAX_WALKS: usize = 16;
/// The end of time, in milliseconds: far beyond any log, and sums of times stay in their type.
const MAX_TIME: i64 = 1 << 50;
/// More than there are.
const MAX_COUNTRIES: usize = 1_000;

/// A stretch of time and what happened in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    pub start: UnixMs,
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// How often one value came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopCount {
    /// Empty for requests without a value: no user agent, no known country. An ASN with its operator
    /// reads `AS64496 Example`.
    pub key: String,
    pub requests: u64,
    /// Answered by the gateway itself: blocked, limited, malformed.
    pub refused: u64,
}

/// Traffic over time, and what came most often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// The span, widened to whole buckets; `to` is the end of the last one.
    pub from: UnixMs,
    pub to: UnixMs,
    pub bucket_ms: i64,
    /// Every bucket of the span, also those without requests.
    pub series: Vec<Bucket>,
    pub totals: Traffic,
    pub clients: Vec<TopCount>,
    pub paths: Vec<TopCount>,
    pub countries: Vec<TopCount>,
    pub networks: Vec<TopCount>,
    pub user_agents: Vec<TopCount>,
    pub hosts: Vec<TopCount>,
    /// False when the deadline came first: what is oldest is missing.
    pub is_complete: bool,
}

/// What an overview is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverviewSpan {
    pub from: UnixMs,
    pub to: UnixMs,
    /// Into how many buckets the span is divided, about: they last whole minutes, and begin at multiples of their
    /// length since 1970. At most [`MAX_BUCKETS`].
    pub buckets: usize,
}

/// Buckets of one length.
#[derive(Clone, Copy, Debug)]
struct Division {
    first: i64,
    length: i64,
    count: usize,
}

impl Division {
    fn of(span: OverviewSpan) -> Self {
        let wanted = i64::try_from(span.buckets.clamp(1, MAX_BUCKETS)).unwrap_or(1);
        let from = span.from.0.clamp(0, MAX_TIME);
        let to = span.to.0.clamp(from + 1, MAX_TIME + 1);
        let least = (to - from + wanted - 1) / wanted;
        let length = (least + MINUTE_MS - 1) / MINUTE_MS * MINUTE_MS;
        let first = from / length * length;
        let count = (to - first + length - 1) / length;
        Self { first, length, count: usize::try_from(count).unwrap_or(1) }
    }

    fn window(self) -> Window {
        let length = self.length * i64::try_from(self.count).unwrap_or(1);
        Window { from: self.first, to: self.first + length }
    }

    fn index(self, time: i64) -> usize {
        usize::try_from((time - self.first) / self.length).unwrap_or(0).min(self.count - 1)
    }

    fn empty(self) -> Vec<Bucket> {
        let start = |n: usize| self.first + self.length * i64::try_from(n).unwrap_or(0);
        (0..self.count).map(|n| Bucket { start: UnixMs(start(n)), traffic: Traffic::default() }).collect()
    }
}

/// Fills series and counts, a zone at a time.
struct Gathering {
    window: Window,
    deadline: Instant,
    /// Not asked for without.
    series: Option<(Division, Vec<Bucket>)>,
    tops: Tops,
    /// Zones at the ends of the span whose rows may still be read for exact counts.
    walks_left: usize,
}

impl Gathering {
    fn add_minute(&mut self, minute: &Minute) {
        let Some((division, series)) = &mut self.series else { return };
        let traffic = &mut series[division.index(minute.minute * MINUTE_MS)].traffic;
        for (class, requests) in &minute.classes {
            traffic.add_class(*class, *requests);
        }
        traffic.add_bytes(minute.bytes_in, minute.bytes_out);
        for (bucket, requests) in &minute.latencies {
            traffic.latencies.add_bucket(*bucket, *requests);
        }
    }

    fn add_to_series(&mut self, row: &Decoded<'_>) {
        if let Some((division, series)) = &mut self.series {
            series[division.index(row.id.time().0)].traffic.add_row(row);
        }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

impl LogReader {
    /// Traffic over time and the `top` most frequent of each kind.
    ///
    /// The series is exact. So are countries. Of clients, paths, user agents, hosts and ASNs each slice of the log
    /// counts its most frequent, 64 to 1,000: what was never among them lacks these requests. Paths and user agents
    /// are counted from their second sight in a slice on. Zones of 4,096 requests of which a part lies in the span
    /// are counted in part as long as they are few, later ones by where most of them lies.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn overview(
        &self,
        span: OverviewSpan,
        top: usize,
        deadline: Instant,
    ) -> Result<Overview, StoreError> {
        let division = Division::of(span);
        let window = division.window();
        let series = Some((division, division.empty()));
        let (gathered, is_complete) = self.gather(window, series, Wanted::All, deadline)?;
        let series = gathered.series.map(|(_, series)| series).unwrap_or_default();
        let mut totals = Traffic::default();
        series.iter().for_each(|bucket| totals.merge(&bucket.traffic));
        let ranked = self.rank(gathered.tops, top).map_err(self.error("looking up names"))?;
        let Ranked { clients, paths, user_agents, hosts, countries, networks } = ranked;
        Ok(Overview {
            from: UnixMs(window.from),
            to: UnixMs(window.to),
            bucket_ms: division.length,
            series,
            totals,
            clients,
            paths,
            countries,
            networks,
            user_agents,
            hosts,
            is_complete,
        })
    }

    /// Requests by country, for a map: those of a span of time widened to whole minutes. The empty country stands
    /// for those of which none is known.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn by_country(
        &self,
        from: UnixMs,
        to: UnixMs,
        deadline: Instant,
    ) -> Result<Vec<TopCount>, StoreError> {
        let window = Division::of(OverviewSpan { from, to, buckets: 1 }).window();
        let (gathered, _) = self.gather(window, None, Wanted::Places, deadline)?;
        let ranked = self.rank(gathered.tops, MAX_COUNTRIES).map_err(self.error("looking up names"))?;
        Ok(ranked.countries)
    }

    /// Traffic over time of the requests that pass a filter, whose own time is not asked. Returns whether the
    /// deadline left room for all of them.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn series(
        &self,
        filter: &LogFilter,
        span: OverviewSpan,
        deadline: Instant,
    ) -> Result<(Vec<Bucket>, bool), StoreError> {
        let division = Division::of(span);
        let window = division.window();
        let filter =
            LogFilter { since: Some(UnixMs(window.from)), until: Some(UnixMs(window.to)), ..filter.clone() };
        let mut series = division.empty();
        for slice in self.slices_in(window)?.into_iter().rev() {
            let each: &mut Each<'_> = &mut |_, row| {
                series[division.index(row.id.time().0)].traffic.add_row(row);
                ControlFlow::Continue(())
            };
            let stopped =
                self.search(&slice, &filter, 1..=i64::MAX, Order::NewestFirst, Some(deadline), each)?;
            if stopped.is_some() || Instant::now() >= deadline {
                return Ok((series, false));
            }
        }
        Ok((series, true))
    }

    /// The newest slice first, until the deadline. Returns whether that was all.
    fn gather(
        &self,
        window: Window,
        series: Option<(Division, Vec<Bucket>)>,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<(Gathering, bool), StoreError> {
        let slices = self.slices_in(window)?;
        let tops = Tops::new(wanted, slices.len());
        let mut gathering = Gathering { window, deadline, series, tops, walks_left: MAX_WALKS };
        for slice in slices.iter().rev() {
            let gathered = self.gather_slice(slice, &mut gathering);
            let is_whole = self.unless_dropped(slice, gathered)?.unwrap_or(true);
            if !is_whole {
                return Ok((gathering, false));
            }
        }
        Ok((gathering, true))
    }

    fn gather_slice(&self, slice: &Slice, gathering: &mut Gathering) -> Result<bool, StoreError> {
        let error = || self.error("reading sums");
        let is_inside = slice.span.is_some_and(|span| gathering.window.holds(span));
        let is_counted = is_inside
            && slice.is_sealed
            && self.has_sums
            && self.add_slice(&mut gathering.tops, slice).map_err(error())?;
        let mut sums = SliceTops::new(slice);
        let mut is_whole = true;
        if gathering.series.is_some() || !is_counted {
            for run in self.runs(slice, gathering.window, 1..=i64::MAX)?.iter().rev() {
                self.gather_run(slice, run, is_counted, &mut sums, gathering)?;
                if gathering.is_late() {
                    is_whole = false;
                    break;
                }
            }
        }
        if !is_counted {
            self.finish_slice(&mut gathering.tops, slice, &sums).map_err(error())?;
        }
        Ok(is_whole)
    }

    fn gather_run(
        &self,
        slice: &Slice,
        run: &Run,
        is_counted: bool,
        sums: &mut SliceTops,
        gathering: &mut Gathering,
    ) -> Result<(), StoreError> {
        let error = || self.error("reading sums");
        let zone = run.zone.filter(|_| self.has_sums);
        let shares = match zone {
            Some(last_row) => self.add_minutes(slice, last_row, gathering).map_err(error())?,
            None => None,
        };
        let Some((last_row, (inside, all))) = zone.zip(shares) else {
            let window = gathering.window;
            return self.each_row(slice, window, run, &mut |row| {
                gathering.add_to_series(row);
                // The sums of a whole slice have all of its rows.
                if !is_counted {
                    gathering.tops.add_row(row);
                }
            });
        };
        if is_counted || inside == 0 {
            return Ok(());
        }
        if inside < all && gathering.walks_left > 0 {
            gathering.walks_left -= 1;
            let window = gathering.window;
            return self.each_row(slice, window, run, &mut |row| gathering.tops.add_row(row));
        }
        if inside * 2 >= all {
            self.add_zone(&gathering.tops, sums, slice, last_row).map_err(error())?;
        }
        Ok(())
    }

    /// Adds what of a zone started in the window to the series. Returns how many requests that is, of how many;
    /// `None` when the zone has no sums.
    fn add_minutes(
        &self,
        slice: &Slice,
        last_row: i64,
        gathering: &mut Gathering,
    ) -> rusqlite::Result<Option<(u64, u64)>> {
        let mut read = self.connection.prepare_cached("SELECT data FROM zone_sums WHERE id = ?1")?;
        let mut rows = read.query([zone_id(slice.id, last_row, Kind::Minutes)])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (mut inside, mut all) = (0, 0);
        let window = gathering.window;
        for minute in minutes(row.get_ref(0)?.as_blob()?) {
            let requests = minute.requests();
            all += requests;
            let start = minute.minute.saturating_mul(MINUTE_MS);
            if window.holds((start, start)) {
                inside += requests;
                gathering.add_minute(&minute);
            }
        }
        Ok(Some((inside, all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_divided_into_whole_minutes_that_cover_it() {
        const HOUR: i64 = 60 * MINUTE_MS;
        for (from, to, buckets) in [
            (0, HOUR, 60),
            (1, HOUR, 60),
            (123_456, 123_457, 99),
            (5, 24 * HOUR + 5, 96),
            (7, 720 * HOUR, 120),
        ] {
            let division = Division::of(OverviewSpan { from: UnixMs(from), to: UnixMs(to), buckets });
            let window = division.window();
            assert!(window.from <= from && window.to >= to, "{from} {to}");
            assert!(division.count <= buckets + 1, "{} buckets", division.count);
            assert_eq!(division.length % MINUTE_MS, 0);
            assert_eq!(division.index(from), 0);
            assert_eq!(division.index(to - 1), division.count - 1);
        }
        let all = OverviewSpan { from: UnixMs(i64::MIN), to: UnixMs(i64::MAX), buckets: usize::MAX };
        assert!(Division::of(all).count <= MAX_BUCKETS + 1);
    }
}
