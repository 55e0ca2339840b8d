//! Clients that resemble one: of the same network, the same operator, or with the same user agent.
//!
//! Owns what counts as alike. Must not hold more clients than its bound, or look on past its deadline.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::Instant;

use ipnet::IpNet;
use rusqlite::OptionalExtension;
use serde::Serialize;

use portcullis_model::{ClientIp, UnixMs};

use super::row::Decoded;
use super::search::{Numbers, Run, clients_at, clients_of};
use super::{Each, LogFilter, LogReader, Order, Window};
use crate::error::StoreError;
use crate::log::slice::Slice;
use crate::log::sums::{self, Counters, tallies, zone_id};

/// Clients of one kind that are counted; later ones are left out.
const MAX_CLIENTS: usize = 65_536;
/// Clients of an ASN that are counted in one slice, the most frequent.
const TOP_OF_SLICE: usize = 256;
/// User agents of the client that others are compared with.
const MAX_AGENTS: usize = 8;
/// Requests with one of them that are looked at, the newest.
const MAX_WITH_AGENT: usize = 20_000;
/// Requests of the client that are looked at for its user agents.
const MAX_OWN: usize = 500;

/// A client and how much it asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SimilarClient {
    pub client: ClientIp,
    pub requests: u64,
    /// Answered by the gateway itself.
    pub refused: u64,
}

/// Other clients that resemble one, most requests first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SimilarClients {
    /// Of the same /24 or IPv6 /48.
    pub network: Vec<SimilarClient>,
    /// Of the same ASN.
    pub asn: Vec<SimilarClient>,
    /// With one of its user agents.
    pub user_agent: Vec<SimilarClient>,
    /// False when the deadline came first: what is oldest is missing.
    pub is_complete: bool,
}

#[derive(Default)]
struct Kind {
    clients: HashMap<ClientIp, (u64, u64)>,
}

impl Kind {
    fn add(&mut self, client: ClientIp, requests: u64, refused: u64) {
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&client) {
            return;
        }
        let count = self.clients.entry(client).or_default();
        count.0 += requests;
        count.1 += refused;
    }

    fn add_row(&mut self, row: &Decoded<'_>) {
        self.add(row.client, 1, u64::from(row.shape.verdict.is_refusal()));
    }

    fn finish(self, limit: usize) -> Vec<SimilarClient> {
        let found = self.clients.into_iter();
        let mut found: Vec<SimilarClient> =
            found.map(|(client, (requests, refused))| SimilarClient { client, requests, refused }).collect();
        found.sort_unstable_by(|a, b| {
            b.requests.cmp(&a.requests).then_with(|| a.client.ip().cmp(&b.client.ip()))
        });
        found.truncate(limit);
        found
    }
}

/// What others are compared with, and who has been found.
struct Comparison {
    client: ClientIp,
    window: Window,
    asn: Option<u32>,
    deadline: Instant,
    of_network: Kind,
    of_asn: Kind,
    with_agent: Kind,
}

impl LogReader {
    /// Clients that resemble `client` among the requests that started at `since` or later, `limit` of each kind. Full
    /// zones of 4,096 requests are counted whole. Of an ASN each slice of the log counts its 256 busiest clients; of a
    /// user agent the newest 20,000 requests are looked at.
    ///
    /// # Errors
    /// SQLite fails, or the database was edited.
    pub fn similar_clients(
        &self,
        client: ClientIp,
        since: UnixMs,
        limit: usize,
        deadline: Instant,
    ) -> Result<SimilarClients, StoreError> {
        let own = LogFilter { network: Some(client.ip().into()), since: Some(since), ..LogFilter::default() };
        let own = self.page(&own, None, MAX_OWN, deadline)?.rows;
        let mut comparison = Comparison {
            client,
            window: Window { from: since.0, to: i64::MAX },
            asn: own.iter().find_map(|row| row.location.asn),
            deadline,
            of_network: Kind::default(),
            of_asn: Kind::default(),
            with_agent: Kind::default(),
        };
        let mut is_complete = true;
        for slice in self.slices_in(comparison.window)?.into_iter().rev() {
            let counted = self.count_neighbours(&slice, &mut comparison);
            is_complete &= self.unless_dropped(&slice, counted)?.unwrap_or(true);
            if !is_complete {
                break;
            }
        }
        let agents: HashSet<&str> = own.iter().map(|row| row.user_agent.as_str()).collect();
        for agent in agents.into_iter().filter(|agent| !agent.is_empty()).take(MAX_AGENTS) {
            is_complete &= self.count_users_of(agent, &mut comparison)?;
        }
        Ok(SimilarClients {
            network: comparison.of_network.finish(limit),
            asn: comparison.of_asn.finish(limit),
            user_agent: comparison.with_agent.finish(limit),
            is_complete,
        })
    }

    /// Counts the clients of the same network and ASN in a slice. Returns whether there was time for all of it.
    fn count_neighbours(&self, slice: &Slice, comparison: &mut Comparison) -> Result<bool, StoreError> {
        let error = || self.error("looking for similar clients");
        let network = network_of(comparison.client);
        let mut neighbours: HashMap<u64, ClientIp> = HashMap::new();
        clients_of(&self.connection, slice, network, &mut |number, client| {
            neighbours.insert(number.cast_unsigned(), client);
        })
        .map_err(error())?;
        let mut of_asn = Numbers::default();
        if comparison.asn.is_some() {
            clients_at(&self.connection, slice, None, comparison.asn, &mut |number| of_asn.insert(number))
                .map_err(error())?;
        }
        if neighbours.is_empty() && of_asn.is_empty() {
            return Ok(true);
        }
        let mut counters = Counters::new(slice.rows.cast_unsigned());
        let mut is_complete = true;
        for run in self.runs(slice, comparison.window, 1..=i64::MAX)?.iter().rev() {
            let wanted = |number| neighbours.contains_key(&number) || of_asn.has(number);
            if !self.count_clients(slice, run, &wanted, &mut counters).map_err(error())? {
                self.count_rows(slice, run, network, comparison)?;
            }
            if Instant::now() >= comparison.deadline {
                is_complete = false;
                break;
            }
        }
        let own = comparison.client;
        for (number, client) in neighbours.into_iter().filter(|(_, client)| *client != own) {
            if let Some((requests, refused)) = counters.get(number.cast_signed()) {
                comparison.of_network.add(client, requests, refused);
            }
        }
        let sql = format!("SELECT ip FROM clients_{} WHERE id = ?1", slice.id);
        let mut find = self.connection.prepare_cached(&sql).map_err(error())?;
        for tally in counters.most_frequent(TOP_OF_SLICE).iter().filter(|tally| of_asn.has(tally.number)) {
            let ip = find.query_row([tally.number.cast_signed()], |row| row.get::<_, String>(0)).optional();
            let client = ip.map_err(error())?.and_then(|ip| ip.parse::<ClientIp>().ok());
            if let Some(client) = client.filter(|client| *client != own) {
                comparison.of_asn.add(client, tally.requests, tally.refused);
            }
        }
        Ok(is_complete)
    }

    /// Counts clients by the sums of a zone; false when there are none.
    fn count_clients(
        &self,
        slice: &Slice,
        run: &Run,
        wanted: &dyn Fn(u64) -> bool,
        counters: &mut Counters,
    ) -> rusqlite::Result<bool> {
        let Some(last_row) = run.zone.filter(|_| self.has_sums) else { return Ok(false) };
        let mut read = self.connection.prepare_cached("SELECT data FROM zone_sums WHERE id = ?1")?;
        let mut rows = read.query([zone_id(slice.id, last_row, sums::Kind::Clients)])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        let found = tallies(row.get_ref(0)?.as_blob()?).filter(|tally| wanted(tally.number));
        found.for_each(|tally| counters.add(tally));
        Ok(true)
    }

    fn count_rows(
        &self,
        slice: &Slice,
        run: &Run,
        network: IpNet,
        comparison: &mut Comparison,
    ) -> Result<(), StoreError> {
        let window = comparison.window;
        self.each_row(slice, window, run, &mut |row| {
            if row.client == comparison.client {
                return;
            }
            if network.contains(&row.client.ip()) {
                comparison.of_network.add_row(row);
            }
            if comparison.asn.is_some() && row.location.asn == comparison.asn {
                comparison.of_asn.add_row(row);
            }
        })
    }

    /// Counts the clients with a user agent. Returns whether all of its requests were looked at.
    fn count_users_of(&self, agent: &str, comparison: &mut Comparison) -> Result<bool, StoreError> {
        let filter = LogFilter {
            user_agent: Some(agent.to_owned()),
            since: Some(UnixMs(comparison.window.from)),
            ..LogFilter::default()
        };
        let mut left = MAX_WITH_AGENT;
        for slice in self.slices_in(comparison.window)?.into_iter().rev() {
            let own = comparison.client;
            let with_agent = &mut comparison.with_agent;
            let each: &mut Each<'_> = &mut |_, row| {
                let [_, _, user_agent, ..] = row.texts;
                if user_agent == agent && row.client != own {
                    with_agent.add_row(row);
                }
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let (order, deadline) = (Order::NewestFirst, comparison.deadline);
            let stopped = self.search(&slice, &filter, 1..=i64::MAX, order, Some(deadline), each)?;
            if stopped.is_some() || left == 0 || Instant::now() >= deadline {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The /24 or the IPv6 /48.
fn network_of(client: ClientIp) -> IpNet {
    let bits = if client.ip().is_ipv4() { 24 } else { 48 };
    IpNet::new_assert(client.ip(), bits).trunc()
}
