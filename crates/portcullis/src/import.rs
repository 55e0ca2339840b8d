//! Blocks from a list: what there is to add, and what is left out because it has run out or must not be blocked.
//! Must not know who asks, nor store anything.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_config::Config;
use portcullis_lists::{Entry, Format, Limits, ListError, Refused, Screen as Guard, Summary, read};
use portcullis_model::{BlockSource, UnixMs};
use portcullis_store::{NewBlock, State, StoreError};

use crate::machine::own_addresses;

/// Refused networks that are shown.
const SHOWN: usize = 5;

/// A list that has been read.
pub(crate) struct List {
    pub(crate) format: String,
    pub(crate) entries: Vec<Entry>,
    pub(crate) summary: Summary,
}

impl List {
    /// # Errors
    /// The list has no entries, too many of them, or too many lines that are none.
    pub(crate) fn read(format: Format, bytes: &[u8], limits: Limits) -> Result<Self, ListError> {
        let mut entries = Vec::new();
        let summary = read(format, bytes, limits, &mut |entry| entries.push(entry))?;
        Ok(Self { format: format.to_string(), entries, summary })
    }

    /// What there is to add. Entries that say neither when they end nor why get what `defaults` say.
    pub(crate) fn sort(&self, guard: Option<&Guard>, defaults: &Defaults<'_>, now: UnixMs) -> Sorted {
        let mut sorted = Sorted::default();
        for entry in &self.entries {
            let end = entry.expires.or(defaults.expires_at);
            if end.is_some_and(|end| end <= now) {
                sorted.expired += 1;
            } else if let Some(why) = guard.and_then(|guard| guard.refuses(&entry.network)) {
                *sorted.refused.entry(why).or_default() += 1;
                if sorted.refused_shown.len() < SHOWN {
                    sorted.refused_shown.push((entry.network, why));
                }
            } else {
                sorted.blocks.push(NewBlock {
                    network: entry.network,
                    reason: entry.reason.as_deref().unwrap_or(defaults.reason).to_owned(),
                    source: BlockSource::Import,
                    created_at: now,
                    expires_at: end,
                    finding_id: None,
                });
            }
        }
        sorted
    }
}

/// For entries that do not say it themselves.
pub(crate) struct Defaults<'a> {
    pub(crate) reason: &'a str,
    pub(crate) expires_at: Option<UnixMs>,
}

/// What there is to add, and what was left out.
#[derive(Default)]
pub(crate) struct Sorted {
    pub(crate) blocks: Vec<NewBlock>,
    pub(crate) expired: u64,
    pub(crate) refused: HashMap<Refused, u64>,
    pub(crate) refused_shown: Vec<(IpNet, Refused)>,
}

impl Sorted {
    pub(crate) fn refused(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// What must not be blocked by a list; `operator` is the address of whoever asks.
///
/// # Errors
/// The state cannot be read.
pub(crate) fn guard(
    config: &Config,
    state: Option<&State>,
    operator: Option<IpAddr>,
) -> Result<Guard, StoreError> {
    let stored = state.map(State::allows).transpose()?.unwrap_or_default();
    let allowed = stored.into_iter().map(|allow| allow.network);
    let configured = config.allows.iter().map(|(network, _)| *network);
    let own = own_addresses().into_iter().chain(operator);
    Ok(Guard::new(own, config.server.trusted_proxies.iter().copied(), allowed.chain(configured)))
}
