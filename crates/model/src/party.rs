//! Somebody behind an address whom a block can mean without meaning the address: one user, or those whom the
//! gateway cannot name. Plain data. Must not decide who is meant.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{BlockSource, UnixMs};

/// Whom a [`PartyBlock`] means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// A verified user, from whatever address: see [`crate::Identity::name`].
    User(Box<str>),
    /// Who comes from this address, or IPv6 /64, and has no verified identity. Newcomers keep the room that they
    /// need to log in, unless they come with one of these user agents, which only the culprit uses.
    Anonymous { network: IpNet, agents: Vec<Box<str>> },
}

impl Party {
    /// The most user agents that are told apart.
    pub const MAX_AGENTS: usize = 8;
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name}"),
            Self::Anonymous { network, .. } if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "anonymous clients of {}", network.addr())
            }
            Self::Anonymous { network, .. } => write!(f, "anonymous clients of {network}"),
        }
    }
}

/// The longest name of a user that is accepted: what is longer is cut in the log, and must be named as it is there.
const MAX_USER: usize = crate::limits::USER;

/// A user's name as somebody typed it.
///
/// # Errors
/// A sentence: there is none, or it is too long.
pub fn user_of(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("expected the name of a user, as the log's user column has it".to_owned()),
        1..=MAX_USER => Ok(text.to_owned()),
        length => Err(format!("expected at most {MAX_USER} bytes, as the log keeps them, got {length}")),
    }
}

/// A block of somebody behind an address. Its number is never that of a [`crate::Block`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyBlock {
    pub id: i64,
    pub party: Party,
    pub reason: String,
    pub source: BlockSource,
    pub created_at: UnixMs,
    /// `None` lasts until somebody removes it.
    pub expires_at: Option<UnixMs>,
    /// The finding that led to it, for blocks by the detector.
    pub finding_id: Option<i64>,
}

impl PartyBlock {
    /// Whether the block has run out at `now`.
    pub fn is_expired(&self, now: UnixMs) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}
