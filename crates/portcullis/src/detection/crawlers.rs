//! What the log's clients are that call themselves crawlers, for one run of the detector. May wait for DNS, for so
//! long in all; must not be asked while a transaction is open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_config::Config;
use portcullis_detect::BotStatus;
use portcullis_model::{ClientIp, UnixMs};
use portcullis_privacy::{Anonymise, is_pseudonym};

use crate::bots::Bots;

/// For all clients of a run together. The gateway has asked for most when they came.
const PATIENCE: Duration = Duration::from_secs(20);

/// One per run.
pub(super) struct Crawlers {
    bots: Arc<Bots>,
    until: Instant,
    /// Whether the log has the addresses that the clients had.
    has_addresses: bool,
}

impl Crawlers {
    /// With what the gateway knows already, if the run is in one.
    pub(super) fn new(config: &Config, bots: Option<&Arc<Bots>>, now: UnixMs) -> Self {
        Self {
            bots: bots.map_or_else(|| Arc::new(Bots::start(config, now)), Arc::clone),
            until: Instant::now() + PATIENCE,
            has_addresses: config.privacy.anonymise == Anonymise::None,
        }
    }

    pub(super) fn status(&self, client: ClientIp, user_agent: &str) -> BotStatus {
        match self.has_addresses && !is_pseudonym(client) {
            true => self.bots.settle(client, user_agent, self.until),
            false => BotStatus::None,
        }
    }

    pub(super) fn bots(&self) -> &Arc<Bots> {
        &self.bots
    }
}
