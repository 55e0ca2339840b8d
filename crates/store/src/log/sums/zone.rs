//! Gathers what the rows of one zone hold, and writes it down when the zone is full.
//!
//! Owns the zone that is being filled. Must not begin or commit: whoever writes rows does.

use rusqlite::{Connection, params};

use super::encoding::{put_inline, put_minute, put_tallies};
use super::marks::mark;
use super::{Class, Kind, MINUTE_MS, Minute, TEXT_KINDS, Tally, zone_id};
use crate::log::latency::bucket_of;

/// Classes and latency buckets are below.
const LOW_BITS: u32 = 8;

/// A text column of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TextFact<'a> {
    Number(i64),
    Inline(&'a str),
}

/// What is gathered of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// Counted from the zone's first.
    pub(crate) row: i64,
    pub(crate) time: i64,
    pub(crate) client: i64,
    pub(crate) shape: i64,
    pub(crate) class: Class,
    /// Path, query, user agent, user.
    pub(crate) texts: [TextFact<'a>; TEXT_KINDS.len()],
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) latency_us: u64,
}

/// The rows of a zone so far. A number and whether the request was refused are one key, as are a minute and what is
/// counted in it; counting waits until the zone is full.
#[derive(Debug, Default)]
pub(crate) struct ZoneSums {
    /// The earliest and latest start.
    pub(crate) span: Option<(i64, i64)>,
    clients: Vec<u64>,
    shapes: Vec<u64>,
    texts: [Vec<u64>; TEXT_KINDS.len()],
    inline: [Vec<(u64, u64)>; TEXT_KINDS.len()],
    classes: Vec<u64>,
    latencies: Vec<u64>,
    /// Minute, bytes in, bytes out.
    bytes: Vec<(u64, u64, u64)>,
    out: Vec<u8>,
    /// Room for sorting.
    room: Vec<u64>,
}

impl ZoneSums {
    pub(crate) fn add(&mut self, facts: &Facts<'_>) {
        let refused = u64::from(facts.class.verdict.is_refusal());
        let key = |number: i64| number.cast_unsigned() << 1 | refused;
        let (min, max) = self.span.unwrap_or((facts.time, facts.time));
        self.span = Some((min.min(facts.time), max.max(facts.time)));
        self.clients.push(key(facts.client));
        self.shapes.push(key(facts.shape));
        for (column, text) in facts.texts.into_iter().enumerate() {
            match text {
                // Most requests have no query and no user, and nobody asks which have not.
                TextFact::Number(0) if matches!(TEXT_KINDS[column].0, Kind::Queries | Kind::Users) => {}
                TextFact::Number(number) => self.texts[column].push(key(number)),
                TextFact::Inline(text) => {
                    self.inline[column].push((facts.row.cast_unsigned(), mark(text)));
                }
            }
        }
        let minute = facts.time.max(0).cast_unsigned() / MINUTE_MS.cast_unsigned();
        self.classes.push(minute << LOW_BITS | facts.class.number());
        self.latencies.push(minute << LOW_BITS | bucket_of(facts.latency_us) as u64);
        match self.bytes.last_mut() {
            Some((same, bytes_in, bytes_out)) if *same == minute => {
                *bytes_in = bytes_in.saturating_add(facts.bytes_in);
                *bytes_out = bytes_out.saturating_add(facts.bytes_out);
            }
            Some(_) | None => self.bytes.push((minute, facts.bytes_in, facts.bytes_out)),
        }
    }

    /// Writes the sums of the zone that ends with this row, and begins the next.
    pub(crate) fn write(
        &mut self,
        connection: &Connection,
        slice: i64,
        last_row: i64,
    ) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached("INSERT INTO zone_sums VALUES (?1, ?2)")?;
        let mut put = |kind: Kind, out: &mut Vec<u8>| {
            if !out.is_empty() || kind == Kind::Shapes {
                insert.execute(params![zone_id(slice, last_row, kind), &*out])?;
                out.clear();
            }
            Ok::<_, rusqlite::Error>(())
        };
        self.put_minutes();
        put(Kind::Minutes, &mut self.out)?;
        put_tallies(&mut self.out, counted(&mut self.shapes, &mut self.room));
        put(Kind::Shapes, &mut self.out)?;
        put_tallies(&mut self.out, counted(&mut self.clients, &mut self.room));
        put(Kind::Clients, &mut self.out)?;
        for ((texts, inline), (kind, inline_kind)) in
            self.texts.iter_mut().zip(&mut self.inline).zip(TEXT_KINDS)
        {
            put_tallies(&mut self.out, counted(texts, &mut self.room));
            put(kind, &mut self.out)?;
            put_inline(&mut self.out, inline);
            put(inline_kind, &mut self.out)?;
            texts.clear();
            inline.clear();
        }
        self.clear();
        Ok(())
    }

    fn clear(&mut self) {
        self.span = None;
        for keys in [&mut self.clients, &mut self.shapes, &mut self.classes, &mut self.latencies] {
            keys.clear();
        }
        self.bytes.clear();
    }

    fn put_minutes(&mut self) {
        sort(&mut self.classes, &mut self.room);
        sort(&mut self.latencies, &mut self.room);
        self.bytes.sort_unstable_by_key(|(minute, ..)| *minute);
        let mut latencies = self.latencies.chunk_by(|a, b| a >> LOW_BITS == b >> LOW_BITS);
        let mut bytes = self.bytes.chunk_by(|a, b| a.0 == b.0);
        let low = |key: u64| key & ((1 << LOW_BITS) - 1);
        for classes in self.classes.chunk_by(|a, b| a >> LOW_BITS == b >> LOW_BITS) {
            let each = |keys: &[u64]| (low(keys[0]), keys.len() as u64);
            let mut minute = Minute {
                minute: (classes[0] >> LOW_BITS).cast_signed(),
                classes: classes
                    .chunk_by(|a, b| a == b)
                    .map(each)
                    .filter_map(|(number, requests)| Some((Class::from_number(number)?, requests)))
                    .collect(),
                ..Minute::default()
            };
            // All three have the same minutes.
            if let Some(latencies) = latencies.next() {
                let buckets = latencies.chunk_by(|a, b| a == b).map(each);
                minute.latencies.extend(buckets.map(|(bucket, requests)| (bucket as usize, requests)));
            }
            for (_, bytes_in, bytes_out) in bytes.next().unwrap_or_default() {
                minute.bytes_in = minute.bytes_in.saturating_add(*bytes_in);
                minute.bytes_out = minute.bytes_out.saturating_add(*bytes_out);
            }
            put_minute(&mut self.out, &minute);
        }
    }
}

/// Counts keys of a number and whether the request was refused.
fn counted<'k>(keys: &'k mut Vec<u64>, room: &mut Vec<u64>) -> impl Iterator<Item = Tally> + 'k {
    sort(keys, room);
    keys.chunk_by(|a, b| a >> 1 == b >> 1).map(|same| Tally {
        number: same[0] >> 1,
        requests: same.len() as u64,
        refused: same.iter().rev().take_while(|key| **key & 1 == 1).count() as u64,
    })
}

/// Sorts by one digit after the other, the lowest first (Knuth, The Art of Computer Programming 3, 5.2.5): for the
/// few digits of a slice's numbers twice as fast as by comparison.
fn sort(keys: &mut Vec<u64>, room: &mut Vec<u64>) {
    const BITS: u32 = 11;
    const DIGITS: usize = 1 << BITS;
    let least = keys.iter().copied().min().unwrap_or(0);
    let most = keys.iter().copied().max().unwrap_or(0) - least;
    let mut shift = 0;
    while shift < u64::BITS && most >> shift > 0 {
        let digit = |key: u64| ((key - least) >> shift) as usize % DIGITS;
        let mut places = [0_usize; DIGITS];
        keys.iter().for_each(|key| places[digit(*key)] += 1);
        let mut next = 0;
        for place in &mut places {
            next += std::mem::replace(place, next);
        }
        room.clear();
        room.resize(keys.len(), 0);
        for key in keys.iter() {
            let place = &mut places[digit(*key)];
            room[*place] = *key;
            *place += 1;
        }
        std::mem::swap(keys, room);
        shift += BITS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sorted_and_counted() {
        let mut random = 1_u64;
        for most in [1, 2, 3_000, 1 << 22, u64::MAX] {
            let mut keys: Vec<u64> = (0..4_096)
                .map(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (random >> 1).rotate_left(7) % most
                })
                .collect();
            let mut sorted = keys.clone();
            sorted.sort_unstable();
            sort(&mut keys, &mut Vec::new());
            assert_eq!(keys, sorted);
        }
        let mut keys = vec![7, 2, 6, 2, 3];
        let tallies: Vec<_> = counted(&mut keys, &mut Vec::new()).collect();
        let tally = |number, requests, refused| Tally { number, requests, refused };
        assert_eq!(tallies, [tally(1, 3, 1), tally(3, 2, 1)]);
    }
}
