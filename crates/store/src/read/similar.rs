//! Clients that resemble one: of the same network, the same operator, or with the same user agent.
//!
//! Owns what counts as alike. Must not hold more clients than its bound, or look on past its deadline.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;

use portcullis_model::{ClientIp, UnixMs};

use super::filter::SliceFilter;
use super::row::Decoded;
use super::{LogFilter, LogReader, Order, Window};
use crate::error::StoreError;

/// Clients of one kind that are counted; later ones are left out.
const MAX_CLIENTS: usize = 65_536;
/// User agents of the client that others are compared with.
const MAX_AGENTS: usize = 16;
/// Requests of the client that are looked at for its user agents.
const MAX_OWN: usize = 2_000;

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
    fn add(&mut self, row: &Decoded<'_>) {
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&row.client) {
            return;
        }
        let (requests, refused) = self.clients.entry(row.client).or_default();
        *requests += 1;
        *refused += u64::from(row.shape.verdict.is_refusal());
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

impl LogReader {
    /// Clients that resemble `client` among the requests that started at `since` or later, `limit` of each kind.
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
        let agents: HashSet<&str> = own
            .iter()
            .map(|row| row.user_agent.as_str())
            .filter(|agent| !agent.is_empty())
            .take(MAX_AGENTS)
            .collect();
        let asn = own.iter().find_map(|row| row.location.asn);
        let network = client.network();
        let window = Window { from: since.0, to: i64::MAX };
        let filter = SliceFilter::window_only(window);
        let [mut of_network, mut of_asn, mut of_agent] = [const { () }; 3].map(|()| Kind::default());
        let mut flow = ControlFlow::Continue(());
        for slice in self.slices_in(window)?.into_iter().rev() {
            if flow.is_break() {
                break;
            }
            self.walk(&slice, &filter, 1..=i64::MAX, Order::NewestFirst, &mut |_, row| {
                let [_, _, user_agent, _, _] = row.texts;
                if row.client != client {
                    if row.client.network() == network {
                        of_network.add(row);
                    }
                    if asn.is_some() && row.location.asn == asn {
                        of_asn.add(row);
                    }
                    if agents.contains(user_agent) {
                        of_agent.add(row);
                    }
                }
                if Instant::now() >= deadline {
                    flow = ControlFlow::Break(());
                }
                flow
            })?;
        }
        Ok(SimilarClients {
            network: of_network.finish(limit),
            asn: of_asn.finish(limit),
            user_agent: of_agent.finish(limit),
            is_complete: flow.is_continue(),
        })
    }
}
