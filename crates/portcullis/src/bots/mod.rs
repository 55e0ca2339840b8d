//! Well-known crawlers in the running gateway: what a client is that names itself as one. Networks tell at once;
//! DNS is asked by a thread of its own, and until it has answered a client is taken at its word.
//!
//! Must not make a request wait. What decides is `portcullis_detect::bots`.

mod fetch;
mod names;
mod networks;
mod resolver;
#[cfg(test)]
mod tests;
mod words;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use portcullis_config::{Bots as Settings, Config};
use portcullis_detect::BotStatus;
use portcullis_detect::bots::{Bot, Judgement, KnownBots, Outcome};
use portcullis_model::{ClientIp, UnixMs};

pub(crate) use fetch::{TASK_NAME, update};
pub(crate) use names::LookupStats;
pub(crate) use networks::{Networks, Source};
pub(crate) use words::{status, why};

use names::Names;

/// One per gateway, or per command that wants to know.
pub(crate) struct Bots {
    inner: ArcSwap<Inner>,
    stats: Arc<LookupStats>,
    /// What the networks were read from last.
    networks: Mutex<Networks>,
}

struct Inner {
    settings: Settings,
    known: ArcSwap<KnownBots>,
    /// `None`: DNS is not asked.
    names: Option<Names>,
}

impl Bots {
    /// Reads what has been fetched, and begins to ask DNS if that is wanted.
    pub(crate) fn start(config: &Config, now: UnixMs) -> Self {
        Self::counting(config, now, Arc::default())
    }

    /// The same, with what comes of questions counted there.
    pub(crate) fn counting(config: &Config, now: UnixMs, stats: Arc<LookupStats>) -> Self {
        let bots = Self {
            inner: ArcSwap::from_pointee(Inner::new(&config.bots, &stats)),
            stats,
            networks: Mutex::default(),
        };
        bots.refresh(config, now);
        bots
    }

    /// For who only wants to see what is known.
    pub(crate) fn without_dns(config: &Config, now: UnixMs) -> Self {
        let mut quiet = config.clone();
        quiet.bots.dns = false;
        Self::start(&quiet, now)
    }

    /// Takes new settings, and networks that were fetched since the last time.
    pub(crate) fn refresh(&self, config: &Config, now: UnixMs) {
        let mut networks = self.networks.lock();
        let is_changed = self.inner.load().settings != config.bots;
        if is_changed {
            self.inner.store(Arc::new(Inner::new(&config.bots, &self.stats)));
            *networks = Networks::default();
        }
        let inner = self.inner.load();
        if let Some(known) = networks.look(config, &inner.known.load(), now) {
            inner.known.store(Arc::new(known));
        }
    }

    /// What the client is, as far as that is known now. DNS is asked in the meantime if it could tell. Never waits.
    pub(crate) fn status(&self, client: ClientIp, user_agent: &str) -> BotStatus {
        let inner = self.inner.load();
        let known = inner.known.load();
        let claims = known.claims(user_agent);
        if claims.is_empty() || !inner.settings.enabled {
            return BotStatus::None;
        }
        let ip = client.ip().to_canonical();
        let judged = known.judge(claims, ip, None);
        if judged.status == BotStatus::Verified {
            return BotStatus::Verified;
        }
        match inner.names.as_ref().and_then(|names| names.known_or_ask(&known, claims, ip)) {
            Some(outcome) => known.judge(claims, ip, Some(&outcome)).status,
            None => judged.status,
        }
    }

    /// The same for who can wait, as no request can: at most until `until`.
    pub(crate) fn settle(&self, client: ClientIp, user_agent: &str, until: Instant) -> BotStatus {
        self.explain(client, user_agent, until)
            .map_or(BotStatus::None, |explained| explained.judgement.status)
    }

    /// What the client is and why; `None` when nobody is to be told apart. Waits at most until `until`.
    pub(crate) fn explain(&self, client: ClientIp, user_agent: &str, until: Instant) -> Option<Explained> {
        let inner = self.inner.load();
        if !inner.settings.enabled {
            return None;
        }
        let known = inner.known.load();
        let claims = known.claims(user_agent);
        let ip = client.ip().to_canonical();
        let outcome = inner.names.as_ref().and_then(|names| names.wait_for(&known, claims, ip, until));
        let judgement = known.judge(claims, ip, outcome.as_deref());
        let bot = judgement.bot.and_then(|bot| known.bots().get(bot)).cloned();
        Some(Explained { judgement, bot, dns: outcome })
    }

    /// The crawler in whose networks, or under whose confirmed names, an address is: nothing that is found about
    /// the address may shut it out.
    pub(crate) fn owner(&self, client: ClientIp) -> Option<Arc<str>> {
        let inner = self.inner.load();
        if !inner.settings.enabled {
            return None;
        }
        let known = inner.known.load();
        let ip: IpAddr = client.ip().to_canonical();
        let by_network = known.owner(ip).map(|bot| Arc::clone(&bot.name));
        by_network.or_else(|| inner.names.as_ref().and_then(|names| names.confirmed(&known, ip)))
    }

    pub(crate) fn known(&self) -> Arc<KnownBots> {
        self.inner.load().known.load_full()
    }

    /// How the networks of each bot that are fetched stand.
    pub(crate) fn sources(&self) -> Vec<Source> {
        self.networks.lock().sources()
    }
}

impl Inner {
    fn new(settings: &Settings, stats: &Arc<LookupStats>) -> Self {
        // The settings were read into at most as many as there may be.
        let known = KnownBots::new(settings.table.clone()).unwrap_or_else(|error| {
            tracing::error!("the table of bots is not used, the built-in one is: {error}");
            KnownBots::builtin()
        });
        let asks = settings.enabled && settings.dns && known.bots().iter().any(|bot| !bot.dns.is_empty());
        let names = if asks { Names::start(settings, stats) } else { None };
        Self { settings: settings.clone(), known: ArcSwap::from_pointee(known), names }
    }
}

/// What a client is, and why.
pub(crate) struct Explained {
    pub(crate) judgement: Judgement,
    pub(crate) bot: Option<Bot>,
    /// What DNS said, if it was asked and has answered.
    pub(crate) dns: Option<Arc<Outcome>>,
}
