//! The detector at request time: takes requests as they end and says at once when a client is worse than was known.
//! The same rules and the same counting as a window of the log has. Must not read clocks: time comes with the requests.

mod known;
mod score;
mod shard;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use portcullis_model::{ClientIp, Finding};

use crate::counting::{Request, Tools};
use crate::{BotStatus, Knowledge, Observation, Settings, SharedAddress, Signatures};

pub(crate) use score::Score;
pub use score::{SCORE_HALF_LIFE, SCORE_THRESHOLDS};
use shard::Shard;

/// Shards that a large engine has. A constant, so that the same requests give the same alarms on every machine.
const SHARDS: usize = 16;
/// Fewer clients than this are kept in one shard.
const MIN_CLIENTS_PER_SHARD: usize = 256;
/// The most samples of all clients together.
const MAX_SAMPLES: usize = 100_000;

/// What is known of all clients lately, and the rules over it.
///
/// Evidence lasts for half an hour to an hour and then fades, so that a client that comes for days does not add up.
/// Clients are told apart as in a [`crate::Window`]. At most `Settings::max_clients` are kept; those against whom
/// nothing is held and who are away longest are forgotten first. The same requests in the same order give the same
/// alarms.
#[derive(Debug)]
pub struct Engine {
    settings: ArcSwap<Settings>,
    signatures: Arc<Signatures>,
    knowledge: ArcSwap<Knowledge>,
    shards: Vec<Mutex<Shard>>,
}

/// A client has become worse than was known.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// As a window writes it, with `found`, `score` and `score_history` in its details.
    pub finding: Finding,
    /// Who else is on the address, where verified users share it.
    pub shared: Option<SharedAddress>,
}

impl Engine {
    /// Knows nobody yet.
    pub fn new(settings: &Settings, signatures: Arc<Signatures>) -> Self {
        let most = settings.max_clients.clamp(1, u32::MAX as usize);
        let shards = if most < SHARDS * MIN_CLIENTS_PER_SHARD { 1 } else { SHARDS };
        let shard = || Mutex::new(Shard::new(most / shards, MAX_SAMPLES / shards));
        Self {
            settings: ArcSwap::from_pointee(settings.clone()),
            signatures,
            knowledge: ArcSwap::default(),
            shards: std::iter::repeat_with(shard).take(shards).collect(),
        }
    }

    /// Takes one request, which should come about in the order of time: a client's state moves on with its latest
    /// request, and starts anew when time jumps back by more than an hour.
    ///
    /// The alarm has the severity that the client has reached with this request: each one is told at most once an hour,
    /// and none after a greater one.
    pub fn observe(&self, seen: &Observation<'_>) -> Option<Alarm> {
        // Not the client: whoever else uses the address is judged as ever.
        if seen.bot == BotStatus::Verified {
            return None;
        }
        let request = Request::read(seen);
        let (settings, knowledge) = (self.settings.load(), self.knowledge.load());
        let tools = Tools { settings: &settings, signatures: &self.signatures, knowledge: &knowledge };
        self.shard(seen.client.limit_key()).lock().observe(&request, tools)
    }

    /// From now on judges with this knowledge of the site, and without what a person has dismissed.
    pub fn know(&self, knowledge: Knowledge) {
        self.knowledge.store(Arc::new(knowledge));
    }

    /// What it was told last.
    pub fn knowledge(&self) -> Arc<Knowledge> {
        self.knowledge.load_full()
    }

    /// Judges by other settings from now on; what is remembered stays, and so does how many are.
    pub fn apply(&self, settings: &Settings) {
        if **self.settings.load() != *settings {
            self.settings.store(Arc::new(settings.clone()));
        }
    }

    /// Forgets a client: a verified user of an address, or those on it who are none. It begins anew.
    pub fn forget(&self, client: ClientIp, user: Option<&str>) {
        let address = client.limit_key();
        self.shard(address).lock().forget_client(address, user.unwrap_or_default());
    }

    /// Forgets everybody on an address; of IPv6, on its /64.
    pub fn forget_address(&self, client: ClientIp) {
        let address = client.limit_key();
        self.shard(address).lock().forget_where(|known, _| known == address);
    }

    /// Forgets a verified user on whatever address.
    pub fn forget_user(&self, name: &str) {
        for shard in &self.shards {
            shard.lock().forget_where(|_, user| user == Some(name));
        }
    }

    /// Clients that are remembered.
    pub fn clients(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().clients()).sum()
    }

    /// Clients that were forgotten because there were more than `Settings::max_clients`.
    pub fn overflowed_clients(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().overflowed()).sum()
    }

    fn shard(&self, address: IpAddr) -> &Mutex<Shard> {
        let bits = match address {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            // Of IPv6 the /64.
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        // Fibonacci hashing: neighbours go to different shards.
        let spread = bits.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        &self.shards[spread as usize % self.shards.len()]
    }
}
