//! What identity needs of disk and network: the sessions and their key, and the key set of an issuer.
//! Must not judge requests; and nothing here is on their path.

mod files;
mod key_set;
mod sessions;

use std::path::Path;
use std::sync::Arc;

use portcullis_config::Config;
use portcullis_model::UnixMs;
use portcullis_proxy::Edge;

pub(crate) use key_set::{KeySetState, KeySetStats};
pub(crate) use sessions::{Copies, Late, forget_user};

use key_set::KeySets;
use sessions::Sessions;

/// Makes everything ready before the first request.
///
/// # Errors
/// The data folder cannot keep what it has to.
pub(crate) fn open(edge: &Edge, config: &Config, stats: &KeySetStats, now: UnixMs) -> anyhow::Result<()> {
    sessions::open(edge, config, now)?;
    key_set::open(edge, config, stats, now);
    Ok(())
}

/// Keeps sessions on disk and keys up to date. One for each run of the chores.
pub(crate) struct Keeper {
    sessions: Sessions,
    key_sets: KeySets,
}

impl Keeper {
    pub(crate) fn new(stats: Arc<KeySetStats>, copies: Arc<Copies>) -> Self {
        Self { sessions: Sessions::new(copies), key_sets: KeySets::new(stats) }
    }

    /// To be called every second.
    pub(crate) fn tick(&mut self, edge: &Edge, config: &Config, now: UnixMs) {
        self.sessions.tick(edge, config, now);
        self.key_sets.tick(edge, config, now);
    }

    /// The chores end: what comes now is noted for a process that takes this one's place.
    pub(crate) fn end(&mut self, edge: &Edge, data: &Path) {
        self.sessions.end(edge, data);
    }
}
