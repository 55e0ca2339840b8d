//! How sums are written: numbers of seven bits to the byte, and differences instead of numbers.
//!
//! Owns the bytes in `zone_sums`. Must read anything: a database may have been edited, and what cannot be read ends
//! the list.

use super::Class;

/// How often a number came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) number: u64,
    pub(crate) requests: u64,
    /// Of these, those that the gateway answered itself.
    pub(crate) refused: u64,
}

/// Sums of the requests of a zone that started in one minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Minute {
    /// Since 1970.
    pub(crate) minute: i64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) classes: Vec<(Class, u64)>,
    /// Buckets of `log/latency.rs`.
    pub(crate) latencies: Vec<(usize, u64)>,
}

impl Minute {
    pub(crate) fn requests(&self) -> u64 {
        self.classes.iter().map(|(_, requests)| requests).sum()
    }
}

/// Where the clients of a slice were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlaceSums {
    /// Country, requests, refused; the empty country for those of which none is known.
    pub(crate) countries: Vec<(String, u64, u64)>,
    /// ASN, a place that has it, requests, refused.
    pub(crate) asns: Vec<(u32, i64, u64, u64)>,
}

pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = data.split_first()?;
        *data = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take_text(data: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take(data)?).ok()?;
    let (text, rest) = data.split_at_checked(length)?;
    *data = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Numbers in ascending order. Most came once and were answered: these take one number.
pub(super) fn put_tallies(out: &mut Vec<u8>, tallies: impl Iterator<Item = Tally>) {
    let mut next = 0;
    for Tally { number, requests, refused } in tallies {
        let (is_many, is_refused) = (requests > 1, refused > 0);
        put(out, (number - next) << 2 | u64::from(is_many) << 1 | u64::from(is_refused));
        if is_many {
            put(out, requests);
        }
        if is_refused {
            put(out, refused);
        }
        next = number + 1;
    }
}

/// Reads what `put_tallies` wrote.
pub(crate) fn tallies(mut data: &[u8]) -> impl Iterator<Item = Tally> + '_ {
    let mut next = 0_u64;
    std::iter::from_fn(move || {
        let head = take(&mut data)?;
        let number = next.checked_add(head >> 2)?;
        let requests = if head & 2 == 0 { 1 } else { take(&mut data)? };
        let refused = if head & 1 == 0 { 0 } else { take(&mut data)? };
        next = number.checked_add(1)?;
        Some(Tally { number, requests, refused })
    })
}

/// Rows of a zone, counted from its first, with the marks of their texts.
pub(super) fn put_inline(out: &mut Vec<u8>, texts: &[(u64, u64)]) {
    let mut next = 0;
    for (row, mark) in texts {
        put(out, row - next);
        out.extend(mark.to_le_bytes());
        next = row + 1;
    }
}

/// Reads what `put_inline` wrote.
pub(crate) fn inline_texts(mut data: &[u8]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut next = 0_u64;
    std::iter::from_fn(move || {
        let row = next.checked_add(take(&mut data)?)?;
        let (mark, rest) = data.split_first_chunk::<8>()?;
        data = rest;
        next = row.checked_add(1)?;
        Some((row, u64::from_le_bytes(*mark)))
    })
}

pub(super) fn put_minute(out: &mut Vec<u8>, minute: &Minute) {
    put(out, minute.minute.cast_unsigned());
    put(out, minute.bytes_in);
    put(out, minute.bytes_out);
    put(out, minute.classes.len() as u64);
    for (class, requests) in &minute.classes {
        put(out, class.number());
        put(out, *requests);
    }
    put(out, minute.latencies.len() as u64);
    let mut next = 0;
    for (bucket, requests) in &minute.latencies {
        put(out, (*bucket - next) as u64);
        put(out, *requests);
        next = *bucket;
    }
}

/// Reads minutes that `put_minute` wrote one after the other.
pub(crate) fn minutes(mut data: &[u8]) -> impl Iterator<Item = Minute> + '_ {
    std::iter::from_fn(move || take_minute(&mut data))
}

fn take_minute(data: &mut &[u8]) -> Option<Minute> {
    let mut minute = Minute {
        minute: take(data)?.cast_signed(),
        bytes_in: take(data)?,
        bytes_out: take(data)?,
        ..Minute::default()
    };
    for _ in 0..take(data)? {
        minute.classes.push((Class::from_number(take(data)?)?, take(data)?));
    }
    let mut bucket = 0_usize;
    for _ in 0..take(data)? {
        bucket = bucket.checked_add(usize::try_from(take(data)?).ok()?)?;
        minute.latencies.push((bucket, take(data)?));
    }
    Some(minute)
}

pub(super) fn put_places(out: &mut Vec<u8>, places: &PlaceSums) {
    put(out, places.countries.len() as u64);
    for (country, requests, refused) in &places.countries {
        put(out, country.len() as u64);
        out.extend(country.as_bytes());
        put(out, *requests);
        put(out, *refused);
    }
    for (asn, place, requests, refused) in &places.asns {
        put(out, u64::from(*asn));
        put(out, place.cast_unsigned());
        put(out, *requests);
        put(out, *refused);
    }
}

/// Reads what `put_places` wrote.
pub(crate) fn place_sums(mut data: &[u8]) -> PlaceSums {
    let mut places = PlaceSums::default();
    let data = &mut data;
    for _ in 0..take(data).unwrap_or(0) {
        let country = take_text(data).and_then(|country| Some((country, take(data)?, take(data)?)));
        let Some(country) = country else { return places };
        places.countries.push(country);
    }
    let mut asn = || {
        let asn = u32::try_from(take(data)?).ok()?;
        Some((asn, take(data)?.cast_signed(), take(data)?, take(data)?))
    };
    places.asns.extend(std::iter::from_fn(&mut asn));
    places
}

#[cfg(test)]
mod tests {
    use portcullis_model::VerdictKind;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let written = [(0, 1, 0), (1, 1, 1), (7, 300, 0), (65_536, 2, 2), (1 << 40, 1 << 20, 1 << 19)]
            .map(|(number, requests, refused)| Tally { number, requests, refused });
        let mut out = Vec::new();
        put_tallies(&mut out, written.into_iter());
        assert_eq!(tallies(&out).collect::<Vec<_>>(), written);

        let inline = [(0, u64::MAX), (1, 0), (4_095, 77)];
        let mut out = Vec::new();
        put_inline(&mut out, &inline);
        assert_eq!(inline_texts(&out).collect::<Vec<_>>(), inline);

        let minute = Minute {
            minute: 29_000_000,
            bytes_in: 5,
            bytes_out: 1 << 33,
            classes: vec![(Class::of(VerdictKind::Limited, 429, true), 3)],
            latencies: vec![(0, 1), (139, 2)],
        };
        let mut out = Vec::new();
        put_minute(&mut out, &minute);
        put_minute(&mut out, &Minute::default());
        assert_eq!(minutes(&out).collect::<Vec<_>>(), [minute, Minute::default()]);

        let places = PlaceSums {
            countries: vec![(String::new(), 9, 0), ("PT".to_owned(), 1, 1)],
            asns: vec![(64_496, 3, 2, 1)],
        };
        let mut out = Vec::new();
        put_places(&mut out, &places);
        assert_eq!(place_sums(&out), places);
    }

    #[test]
    fn anything_is_read_to_some_end() {
        let mut noise: Vec<u8> = (0..=255).rev().chain([0xFF; 40]).collect();
        for _ in 0..noise.len() {
            noise.rotate_left(1);
            tallies(&noise).for_each(drop);
            inline_texts(&noise).for_each(drop);
            minutes(&noise).take(9).for_each(drop);
            place_sums(&noise);
        }
    }
}
