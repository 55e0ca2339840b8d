//! What a run hands back. Plain data; must not decide what is done about it.

use std::collections::HashMap;
use std::net::IpAddr;

use portcullis_model::{ClientIp, Finding};
use serde::Serialize;

use crate::{Drift, Features, Origin, WeakEvidence};

/// The outcome of one window.
#[derive(Clone, Debug)]
pub struct Report {
    /// One per flagged client, the most severe first; at most [`crate::MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Flagged clients for which there was no room, the least severe ones.
    pub dropped_findings: u64,
    /// Clients in the window, an IPv6 /64 being one.
    pub clients: usize,
    /// Requests in the window.
    pub requests: u64,
    /// Clients that were forgotten because there were more than `Settings::max_clients`.
    pub overflowed_clients: u64,
    pub forest: ForestHealth,
    /// The forest's score of each client that it could score.
    pub scores: Vec<(ClientIp, f64)>,
    /// Of the findings about somebody on an address that other verified users share: by the address
    /// ([`portcullis_model::ClientIp::limit_key`]) and the finding's user.
    pub shared: HashMap<(IpAddr, Option<String>), SharedAddress>,
    /// The IPv4 addresses and IPv6 /64 of the window, and whether each is bad enough to be blocked: for
    /// [`crate::escalate`].
    pub sites: Vec<(IpAddr, bool)>,
    /// What was odd about clients, flagged or not: for [`crate::Past::remember`].
    pub weak: Vec<(IpAddr, WeakEvidence)>,
    /// Rows for [`crate::train`]: clients that no rule flagged and that look good; at most
    /// [`crate::MAX_GOOD_ROWS`] of them.
    pub presumed_good: Vec<Features>,
}

impl Report {
    /// Who else is on the finding's address.
    pub fn shared_by(&self, finding: &Finding) -> Option<&SharedAddress> {
        self.shared.get(&(finding.client.limit_key(), finding.user.clone()))
    }
}

/// An address that verified users share with a client that was flagged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharedAddress {
    /// Verified users on it that are not bad themselves.
    pub verified_users: u32,
    /// What the anonymous culprit calls itself, and none of these users; at most
    /// [`portcullis_model::Party::MAX_AGENTS`].
    pub user_agents: Vec<Box<str>>,
}

/// Whether the forest had a say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ForestHealth {
    Off {
        why: String,
    },
    Scored {
        model_id: String,
        /// Whose ordinary clients it knows.
        origin: Origin,
        training_rows: usize,
        threshold: f64,
        /// Clients with enough requests to be scored.
        scored: usize,
        /// Of these, the ones that it found odd.
        flagged: usize,
        /// How far the window's ordinary clients are from those of the training; `None`: there were too few.
        drift: Option<Drift>,
    },
}
