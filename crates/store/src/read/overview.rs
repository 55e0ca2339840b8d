//! What happened in a span of time: how much over time, and who and what came most often.
//!
//! Owns the division into buckets. Must not look on past its deadline.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;

use portcullis_model::UnixMs;

use super::filter::SliceFilter;
use super::row::Decoded;
use super::top::{Ranking, TopBy, TopRow};
use super::traffic::Traffic;
use super::{LogReader, Order, Window};
use crate::error::StoreError;

/// Traffic is summed up by the minute, so no bucket is shorter.
pub(crate) const MINUTE_MS: i64 = 60_000;
/// Buckets of one overview.
pub const MAX_BUCKETS: usize = 1_500;

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
        let (from, to) = (span.from.0, span.to.0.max(span.from.0.saturating_add(1)));
        let least = to.saturating_sub(from).saturating_add(wanted - 1) / wanted;
        let length = (least.saturating_add(MINUTE_MS - 1) / MINUTE_MS * MINUTE_MS).max(MINUTE_MS);
        let first = from.div_euclid(length) * length;
        let count = to.saturating_sub(first).saturating_add(length - 1) / length;
        Self { first, length, count: usize::try_from(count).unwrap_or(1) }
    }

    fn window(self) -> Window {
        let length = self.length.saturating_mul(i64::try_from(self.count).unwrap_or(1));
        Window { from: self.first, to: self.first.saturating_add(length) }
    }

    fn index(self, time: i64) -> usize {
        usize::try_from((time - self.first) / self.length).unwrap_or(0).min(self.count - 1)
    }

    fn empty(self) -> Vec<Bucket> {
        let start = |n: usize| self.first + self.length * i64::try_from(n).unwrap_or(0);
        (0..self.count).map(|n| Bucket { start: UnixMs(start(n)), traffic: Traffic::default() }).collect()
    }
}

impl LogReader {
    /// Traffic over time and the `top` most frequent of each kind.
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
        let mut series = division.empty();
        let by = [TopBy::Ip, TopBy::Path, TopBy::Country, TopBy::Asn, TopBy::UserAgent, TopBy::Host];
        let mut rankings = by.map(Ranking::new);
        let is_complete = self.each_until(window, deadline, &mut |row| {
            let traffic = &mut series[division.index(row.id.time().0)].traffic;
            traffic.add_shape(row.shape, 1);
            traffic.add_bytes(row.bytes_in, row.bytes_out);
            traffic.latencies.add(row.latency_us);
            rankings.iter_mut().for_each(|ranking| ranking.add(row));
        })?;
        let mut totals = Traffic::default();
        series.iter().for_each(|bucket| totals.merge(&bucket.traffic));
        let [clients, paths, countries, networks, user_agents, hosts] =
            rankings.map(|ranking| ranking.finish(top).into_iter().map(TopCount::from).collect());
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
        let mut countries: HashMap<String, TopCount> = HashMap::new();
        self.each_until(window, deadline, &mut |row| {
            let key = row.location.country.as_deref().unwrap_or("");
            let count = match countries.get_mut(key) {
                Some(count) => count,
                None => countries.entry(key.to_owned()).or_insert_with(|| TopCount {
                    key: key.to_owned(),
                    requests: 0,
                    refused: 0,
                }),
            };
            count.requests += 1;
            count.refused += u64::from(row.shape.verdict.is_refusal());
        })?;
        let mut rows: Vec<TopCount> = countries.into_values().collect();
        rows.sort_unstable_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.key.cmp(&b.key)));
        Ok(rows)
    }

    /// Traffic over time of the requests that pass a filter, whose own time is not asked. Returns whether the
    /// deadline left room for all of them.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn series(
        &self,
        filter: &super::LogFilter,
        span: OverviewSpan,
        deadline: Instant,
    ) -> Result<(Vec<Bucket>, bool), StoreError> {
        let division = Division::of(span);
        let window = division.window();
        let filter = super::LogFilter {
            since: Some(UnixMs(window.from)),
            until: Some(UnixMs(window.to)),
            ..filter.clone()
        };
        let mut series = division.empty();
        let mut flow = ControlFlow::Continue(());
        for slice in self.slices_in(window)?.into_iter().rev() {
            if flow.is_break() {
                break;
            }
            self.walk_filtered(&slice, &filter, 1..=i64::MAX, Order::NewestFirst, &mut |_, row| {
                if filter.accepts(row) {
                    let traffic = &mut series[division.index(row.id.time().0)].traffic;
                    traffic.add_shape(row.shape, 1);
                    traffic.add_bytes(row.bytes_in, row.bytes_out);
                    traffic.latencies.add(row.latency_us);
                }
                if Instant::now() >= deadline {
                    flow = ControlFlow::Break(());
                }
                flow
            })?;
        }
        Ok((series, flow.is_continue()))
    }

    /// The newest first, until the deadline. Returns whether that was all.
    fn each_until(
        &self,
        window: Window,
        deadline: Instant,
        each: &mut dyn FnMut(&Decoded<'_>),
    ) -> Result<bool, StoreError> {
        let mut flow = ControlFlow::Continue(());
        let filter = SliceFilter::window_only(window);
        for slice in self.slices_in(window)?.into_iter().rev() {
            if flow.is_break() {
                break;
            }
            self.walk(&slice, &filter, 1..=i64::MAX, Order::NewestFirst, &mut |_, row| {
                each(row);
                if Instant::now() >= deadline {
                    flow = ControlFlow::Break(());
                }
                flow
            })?;
        }
        Ok(flow.is_continue())
    }
}

impl From<TopRow> for TopCount {
    fn from(row: TopRow) -> Self {
        Self { key: row.key, requests: row.requests, refused: row.refused }
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
