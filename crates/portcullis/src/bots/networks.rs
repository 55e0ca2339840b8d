//! Keeps the networks of bots in step with the copies on disk, whoever replaces these. Must not fetch.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_config::{Config, FileStamp};
use portcullis_detect::bots::KnownBots;
use portcullis_model::UnixMs;

use crate::feeds::{Files, Status};

use super::fetch::FOLDER;

/// How old a copy may be that is taken for everything that the operator has: an address outside of it is false.
const COMPLETE_FOR: Duration = Duration::from_secs(7 * 86_400);

/// How one source of networks stands.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The bot's place in the table.
    pub(crate) bot: usize,
    pub(crate) status: Option<Status>,
    pub(crate) networks: Arc<Vec<IpNet>>,
    stamps: [Option<FileStamp>; 2],
    files: Files,
}

impl Source {
    fn is_fresh(&self, now: UnixMs) -> bool {
        let fetched = self.status.as_ref().and_then(|status| status.fetched_at);
        !self.networks.is_empty() && fetched.is_some_and(|at| now.since(at) <= COMPLETE_FOR)
    }
}

/// What was read last.
#[derive(Default)]
pub(crate) struct Networks {
    sources: Vec<Source>,
    /// Which of them were fresh.
    fresh: Vec<bool>,
}

impl Networks {
    pub(super) fn sources(&self) -> Vec<Source> {
        self.sources.clone()
    }

    /// The table with the networks as they are on disk, if they have changed since the last look.
    pub(super) fn look(&mut self, config: &Config, known: &KnownBots, now: UnixMs) -> Option<KnownBots> {
        let mut is_changed = false;
        if self.sources.len() != config.bots.sources.len() {
            let sources = config.bots.sources.iter().map(|source| Source {
                bot: source.bot,
                status: None,
                networks: Arc::default(),
                stamps: [None; 2],
                files: Files::in_folder(&config.data, FOLDER, &source.list),
            });
            self.sources = sources.collect();
            is_changed = !self.sources.is_empty();
        }
        for (source, configured) in self.sources.iter_mut().zip(&config.bots.sources) {
            is_changed |= source.refresh(configured.list.max_entries);
        }
        let fresh: Vec<bool> = self.sources.iter().map(|source| source.is_fresh(now)).collect();
        is_changed |= fresh != self.fresh;
        self.fresh = fresh;
        is_changed.then(|| self.apply(known))
    }

    fn apply(&self, known: &KnownBots) -> KnownBots {
        let mut known = known.clone();
        for place in 0..known.bots().len() {
            let of_bot = || self.sources.iter().zip(&self.fresh).filter(|(source, _)| source.bot == place);
            if of_bot().next().is_none() {
                continue;
            }
            let is_complete = of_bot().all(|(_, fresh)| *fresh);
            let mut networks: Vec<IpNet> =
                of_bot().flat_map(|(source, _)| source.networks.iter().copied()).collect();
            // What came with the table may belong to others by now; what the configuration says is said today.
            let bot = &known.bots()[place];
            if !is_complete || bot.urls.is_empty() {
                networks.extend(&bot.networks);
            }
            known.set_networks(place, &networks, is_complete);
        }
        known
    }
}

impl Source {
    /// Whether the networks are other ones. A copy that cannot be read leaves what is in memory.
    fn refresh(&mut self, max_entries: usize) -> bool {
        let stamps = [FileStamp::of(&self.files.list), FileStamp::of(&self.files.status)];
        let [was_list, was_status] = std::mem::replace(&mut self.stamps, stamps);
        if stamps[1] != was_status {
            self.status = self.files.status();
        }
        if stamps[0] == was_list {
            return false;
        }
        let mut networks = Vec::new();
        match self.files.read_list(max_entries, &mut |network| networks.push(network)) {
            Ok(_) => {
                self.networks = Arc::new(networks);
                true
            }
            Err(error) => {
                tracing::warn!("the networks of a crawler are not renewed: {error:#}");
                false
            }
        }
    }
}
