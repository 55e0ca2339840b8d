//! Who and what came most often, from the sums of zones and from rows.
//!
//! Owns what is counted exactly and what is not. Must not look up more texts than its bound, however long the span.

use std::collections::HashMap;

use rusqlite::OptionalExtension;

use super::LogReader;
use super::overview::TopCount;
use super::row::Decoded;
use crate::log::MAX_STRINGS;
use crate::log::slice::{Slice, first_number};
use crate::log::sums::{
    Counters, Kind, PlaceSums, SLICE_TOP, place_sums, places_of, slice_id, tallies, zone_id,
};

/// Texts of one kind that are looked up for one answer, shared among its slices.
const MAX_LOOKUPS: usize = 8_192;
/// Of one slice at least.
const MIN_LOOKUPS: usize = 64;

/// Requests, and those of them that were refused.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requests: u64,
    refused: u64,
}

impl Count {
    fn add(&mut self, requests: u64, refused: u64) {
        self.requests += requests;
        self.refused += refused;
    }
}

type Counts = HashMap<String, Count>;

/// An ASN; its operator's name is looked up for those alone that are shown.
#[derive(Default)]
struct Network {
    count: Count,
    /// A slice and a place of it that has the ASN.
    place: Option<(i64, i64)>,
    name: String,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    /// Countries and ASNs.
    Places,
}

/// Counts over slices, by text.
pub(super) struct Tops {
    wanted: Wanted,
    per_slice: usize,
    clients: Counts,
    paths: Counts,
    user_agents: Counts,
    hosts: Counts,
    countries: Counts,
    networks: HashMap<u32, Network>,
}

/// The most frequent of each kind.
pub(super) struct Ranked {
    pub(super) clients: Vec<TopCount>,
    pub(super) paths: Vec<TopCount>,
    pub(super) user_agents: Vec<TopCount>,
    pub(super) hosts: Vec<TopCount>,
    pub(super) countries: Vec<TopCount>,
    pub(super) networks: Vec<TopCount>,
}

/// Counts of one slice, by its numbers.
pub(super) struct SliceTops {
    clients: Counters,
    paths: Counters,
    user_agents: Counters,
    shapes: Counters,
}

impl SliceTops {
    pub(super) fn new(slice: &Slice) -> Self {
        let rows = slice.rows.cast_unsigned();
        Self {
            clients: Counters::new(rows),
            paths: Counters::new(MAX_STRINGS as u64),
            user_agents: Counters::new(MAX_STRINGS as u64),
            shapes: Counters::new(rows),
        }
    }

    fn of(&mut self, kind: Kind) -> Option<&mut Counters> {
        match kind {
            Kind::Clients => Some(&mut self.clients),
            Kind::Paths => Some(&mut self.paths),
            Kind::Agents => Some(&mut self.user_agents),
            Kind::Shapes => Some(&mut self.shapes),
            Kind::Minutes
            | Kind::Queries
            | Kind::Users
            | Kind::InlinePaths
            | Kind::InlineQueries
            | Kind::InlineAgents
            | Kind::InlineUsers
            | Kind::Places => None,
        }
    }
}

impl Tops {
    pub(super) fn new(wanted: Wanted, slices: usize) -> Self {
        Self {
            wanted,
            per_slice: (MAX_LOOKUPS / slices.max(1)).clamp(MIN_LOOKUPS, SLICE_TOP),
            clients: Counts::new(),
            paths: Counts::new(),
            user_agents: Counts::new(),
            hosts: Counts::new(),
            countries: Counts::new(),
            networks: HashMap::new(),
        }
    }

    fn kinds(&self) -> &'static [Kind] {
        match self.wanted {
            Wanted::All => &[Kind::Clients, Kind::Paths, Kind::Agents, Kind::Shapes],
            Wanted::Places => &[Kind::Clients],
        }
    }

    /// A row that no sums have.
    pub(super) fn add_row(&mut self, row: &Decoded<'_>) {
        let refused = u64::from(row.shape.verdict.is_refusal());
        let [path, _, user_agent, _, _] = row.texts;
        count(&mut self.countries, row.location.country.as_deref().unwrap_or(""), 1, refused);
        if let Some(asn) = row.location.asn {
            let network = self.networks.entry(asn).or_default();
            network.count.add(1, refused);
            if network.name.is_empty() {
                network.name.push_str(row.location.isp.as_deref().unwrap_or(""));
            }
        }
        if self.wanted == Wanted::All {
            count(&mut self.clients, &row.client.to_string(), 1, refused);
            count(&mut self.paths, path, 1, refused);
            count(&mut self.user_agents, user_agent, 1, refused);
            count(&mut self.hosts, &row.shape.host, 1, refused);
        }
    }

    fn add_places(&mut self, slice: i64, places: PlaceSums) {
        for (country, requests, refused) in places.countries {
            count(&mut self.countries, &country, requests, refused);
        }
        for (asn, place, requests, refused) in places.asns {
            let network = self.networks.entry(asn).or_default();
            network.count.add(requests, refused);
            network.place.get_or_insert((slice, place));
        }
    }
}

impl LogReader {
    /// Counts a zone by its sums.
    pub(super) fn add_zone(
        &self,
        tops: &Tops,
        sums: &mut SliceTops,
        slice: &Slice,
        last_row: i64,
    ) -> rusqlite::Result<()> {
        for kind in tops.kinds() {
            if let Some(counters) = sums.of(*kind) {
                self.add_sums(zone_id(slice.id, last_row, *kind), counters)?;
            }
        }
        Ok(())
    }

    fn add_sums(&self, id: i64, counters: &mut Counters) -> rusqlite::Result<()> {
        let mut read = self.connection.prepare_cached("SELECT data FROM zone_sums WHERE id = ?1")?;
        let mut rows = read.query([id])?;
        if let Some(row) = rows.next()? {
            tallies(row.get_ref(0)?.as_blob()?).for_each(|tally| counters.add(tally));
        }
        Ok(())
    }

    /// Counts a whole slice by its sums; false when it has none.
    pub(super) fn add_slice(&self, tops: &mut Tops, slice: &Slice) -> rusqlite::Result<bool> {
        let mut read = self.connection.prepare_cached("SELECT data FROM zone_sums WHERE id = ?1")?;
        let places = read
            .query_row([slice_id(slice.id, Kind::Places)], |row| Ok(place_sums(row.get_ref(0)?.as_blob()?)));
        let Some(places) = places.optional()? else { return Ok(false) };
        tops.add_places(slice.id, places);
        if tops.wanted == Wanted::All {
            let mut sums = SliceTops::new(slice);
            for kind in tops.kinds() {
                if let Some(counters) = sums.of(*kind) {
                    self.add_sums(slice_id(slice.id, *kind), counters)?;
                }
            }
            self.name(tops, slice, &sums)?;
        }
        Ok(true)
    }

    /// Takes the counts of a part of a slice over.
    pub(super) fn finish_slice(
        &self,
        tops: &mut Tops,
        slice: &Slice,
        sums: &SliceTops,
    ) -> rusqlite::Result<()> {
        tops.add_places(slice.id, places_of(&self.connection, slice, &sums.clients)?);
        if tops.wanted == Wanted::All {
            self.name(tops, slice, sums)?;
        }
        Ok(())
    }

    /// From the numbers of a slice to texts.
    fn name(&self, tops: &mut Tops, slice: &Slice, sums: &SliceTops) -> rusqlite::Result<()> {
        let first = first_number(slice.id);
        let text = "SELECT text FROM strings WHERE id = ?1 + ?2".to_owned();
        let client = format!("SELECT ip FROM clients_{} WHERE id = ?1 - ?1 + ?2", slice.id);
        let host = "SELECT host FROM shapes WHERE id = ?1 + ?2".to_owned();
        let top = tops.per_slice;
        for (sql, counters, counts) in [
            (&client, &sums.clients, &mut tops.clients),
            (&text, &sums.paths, &mut tops.paths),
            (&text, &sums.user_agents, &mut tops.user_agents),
            (&host, &sums.shapes, &mut tops.hosts),
        ] {
            let mut find = self.connection.prepare_cached(sql)?;
            for tally in counters.most_frequent(top) {
                let mut rows = find.query([first, tally.number.cast_signed()])?;
                if let Some(row) = rows.next()? {
                    count(counts, row.get_ref(0)?.as_str()?, tally.requests, tally.refused);
                }
            }
        }
        Ok(())
    }

    /// The `top` most frequent of each kind.
    pub(super) fn rank(&self, tops: Tops, top: usize) -> rusqlite::Result<Ranked> {
        let mut networks: Vec<(u32, Network)> = tops.networks.into_iter().collect();
        networks.sort_unstable_by_key(|(asn, network)| (std::cmp::Reverse(network.count.requests), *asn));
        networks.truncate(top);
        let mut find =
            self.connection.prepare_cached("SELECT coalesce(isp, '') FROM places WHERE id = ?1")?;
        let mut named = Vec::new();
        for (asn, network) in networks {
            let mut name = network.name;
            if let Some((slice, place)) = network.place.filter(|_| name.is_empty()) {
                let id = first_number(slice) + place;
                name = find.query_row([id], |row| row.get(0)).optional()?.unwrap_or_default();
            }
            let Count { requests, refused } = network.count;
            let key = format!("AS{asn} {name}").trim_end().to_owned();
            named.push(TopCount { key, requests, refused });
        }
        Ok(Ranked {
            clients: ranked(tops.clients, top),
            paths: ranked(tops.paths, top),
            user_agents: ranked(tops.user_agents, top),
            hosts: ranked(tops.hosts, top),
            countries: ranked(tops.countries, top),
            networks: named,
        })
    }
}

fn count(counts: &mut Counts, key: &str, requests: u64, refused: u64) {
    match counts.get_mut(key) {
        Some(count) => count.add(requests, refused),
        None => {
            counts.insert(key.to_owned(), Count { requests, refused });
        }
    }
}

fn ranked(counts: Counts, top: usize) -> Vec<TopCount> {
    let counts = counts.into_iter();
    let mut rows: Vec<TopCount> =
        counts.map(|(key, Count { requests, refused })| TopCount { key, requests, refused }).collect();
    rows.sort_unstable_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.key.cmp(&b.key)));
    rows.truncate(top);
    rows
}
