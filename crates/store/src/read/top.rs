//! Who and what comes most often.
//!
//! Owns the counting by one column. Must not hold more keys than its bound, whatever clients send.

use std::collections::HashMap;
use std::ops::ControlFlow;

use serde::Serialize;

use portcullis_model::UnixMs;

use super::filter::SliceFilter;
use super::row::Decoded;
use super::{LogReader, Order, Window};
use crate::error::StoreError;

/// Keys that are counted at once. Beyond, the rarer half is forgotten: counts of what is near the top
/// stay exact unless it was once among the rarest.
const MAX_KEYS: usize = 262_144;

/// The column to count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopBy {
    Ip,
    Path,
    Country,
    UserAgent,
    Asn,
    Host,
}

/// One value of the column with what came with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopRow {
    /// Empty for requests without a value: no user agent, no known country. An ASN with its operator
    /// reads `AS64496 Example`.
    pub key: String,
    pub requests: u64,
    /// Answered by the gateway itself: blocked, limited, malformed.
    pub refused: u64,
    /// Other answers with a status of 400 or above.
    pub errors: u64,
    pub bytes_out: u64,
    pub last_seen: UnixMs,
}

impl TopBy {
    fn write_key(self, row: &Decoded<'_>, key: &mut String) {
        use std::fmt::Write as _;
        let [path, _, user_agent, _, _] = row.texts;
        key.clear();
        match self {
            Self::Ip => {
                // Writing into a String cannot fail.
                let _ = write!(key, "{}", row.client);
            }
            Self::Path => key.push_str(path),
            Self::Country => key.push_str(row.location.country.as_deref().unwrap_or("")),
            Self::UserAgent => key.push_str(user_agent),
            Self::Asn => {
                if let Some(asn) = row.location.asn {
                    let _ = write!(key, "AS{asn} {}", row.location.isp.as_deref().unwrap_or(""));
                    key.truncate(key.trim_end().len());
                }
            }
            Self::Host => key.push_str(&row.shape.host),
        }
    }
}

impl LogReader {
    /// The most frequent values of a column among requests that started at `since` or later, most
    /// requests first.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn top(&self, by: TopBy, since: UnixMs, limit: usize) -> Result<Vec<TopRow>, StoreError> {
        let window = Window { from: since.0, to: i64::MAX };
        let filter = SliceFilter::window_only(window);
        let mut ranking = Ranking::new(by);
        for slice in self.slices_in(window)? {
            self.walk(&slice, &filter, 1..=i64::MAX, Order::OldestFirst, &mut |_, row| {
                ranking.add(row);
                ControlFlow::Continue(())
            })?;
        }
        Ok(ranking.finish(limit))
    }
}

/// Counts by one column.
pub(super) struct Ranking {
    by: TopBy,
    counts: HashMap<String, TopRow>,
    key: String,
}

impl Ranking {
    pub(super) fn new(by: TopBy) -> Self {
        Self { by, counts: HashMap::new(), key: String::new() }
    }

    pub(super) fn add(&mut self, row: &Decoded<'_>) {
        let Self { by, counts, key } = self;
        by.write_key(row, key);
        if !counts.contains_key(key) {
            if counts.len() >= MAX_KEYS {
                forget_rarer_half(counts);
            }
            counts.insert(key.clone(), TopRow::new(key.clone()));
        }
        if let Some(count) = counts.get_mut(key) {
            count.add(row);
        }
    }

    /// Most requests first.
    pub(super) fn finish(self, limit: usize) -> Vec<TopRow> {
        let mut rows: Vec<TopRow> = self.counts.into_values().collect();
        rows.sort_unstable_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.key.cmp(&b.key)));
        rows.truncate(limit);
        rows
    }
}

impl TopRow {
    fn new(key: String) -> Self {
        Self { key, requests: 0, refused: 0, errors: 0, bytes_out: 0, last_seen: UnixMs(i64::MIN) }
    }

    fn add(&mut self, row: &Decoded<'_>) {
        self.requests += 1;
        if row.shape.verdict.is_refusal() {
            self.refused += 1;
        } else if row.shape.status >= 400 {
            self.errors += 1;
        }
        self.bytes_out = self.bytes_out.saturating_add(row.bytes_out);
        self.last_seen = self.last_seen.max(row.id.time());
    }
}

fn forget_rarer_half(counts: &mut HashMap<String, TopRow>) {
    let mut sizes: Vec<u64> = counts.values().map(|row| row.requests).collect();
    let middle = sizes.len() / 2;
    let (_, median, _) = sizes.select_nth_unstable(middle);
    let median = *median;
    // With most keys equally rare, all of these go.
    counts.retain(|_, row| row.requests > median);
}
