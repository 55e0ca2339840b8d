//! One policy over the past: detection, the blocks that come of it, the access list, limits. Owns what of a policy is
//! played; what a log cannot tell (tokens, sessions, bodies, how long requests took) is not.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_config::Config;
use portcullis_detect::bots::KnownBots;
use portcullis_detect::{
    Action, BotStatus, ForestModel, HourScore, Observation, Settings, Signatures, Timeline,
};
use portcullis_geo::Geo;
use portcullis_model::{ClientIp, Finding, Identity, UnixMs, VerdictKind, normalise_path};
use portcullis_policy::{
    BlockChange, Decision, LimitRule, Limiter, LiveState, Mode, Now, Place, PrefixSet, RequestFacts,
    Snapshot, Verdict, decide,
};

use super::block::{Blocks, Lasts, Whom};
use super::clients::{Clients, Refused};
use super::learn::{Model, Origin};
use super::outcome::{Flag, Outcome, Totals};
use crate::app::origin;
use crate::detection::Spared;

/// The most clients that are listed as flagged; the totals count all.
const MAX_FLAGGED: usize = 100_000;
/// The most reasons of one client.
const MAX_REASONS: usize = 16;

/// Takes the forest's scores as they come.
pub(crate) type ScoreSink<'s> = dyn FnMut(&HourScore) -> anyhow::Result<()> + 's;

/// A policy at work.
pub(crate) struct Simulation {
    settings: Settings,
    policy: Snapshot,
    state: LiveState,
    /// Reasons of the blocks of the configuration, by their IDs.
    listed: Vec<String>,
    trusted: PrefixSet<()>,
    geo: Option<Geo>,
    timeline: Timeline,
    /// `None`: nobody is told apart.
    bots: Option<Arc<KnownBots>>,
    blocks: Blocks,
    clients: Clients,
    flags: HashMap<(IpAddr, Option<String>), Flag>,
    rules: BTreeMap<String, u64>,
    totals: Totals,
    first: Option<UnixMs>,
    latest: UnixMs,
    model: Origin,
}

impl Simulation {
    /// Nothing has happened yet.
    ///
    /// # Errors
    /// The model cannot be used, or a geo database that rules need cannot be read.
    pub(crate) fn new(
        config: &Config,
        model: &Model,
        signatures: &Arc<Signatures>,
        bots: Option<&Arc<KnownBots>>,
    ) -> anyhow::Result<Self> {
        let settings = config.detection.clone();
        let forest = model.bytes.as_deref().map(ForestModel::from_bytes).transpose()?;
        let timeline = Timeline::new(&settings, Arc::clone(signatures), forest);
        let timeline = if model.origin == Origin::AsItGoes { timeline } else { timeline.with_fixed_model() };
        // The whole gateway in dry-run would show nothing; single rules in dry-run stay so.
        let policy =
            Snapshot { mode: Mode::Enforce, access: config.access.clone(), limits: playable(&config.limits) };
        let geo = if policy.needs().place { Some(Geo::open(&config.geo)?) } else { None };
        Ok(Self {
            settings,
            policy,
            state: live_state(config),
            listed: config.blocks.iter().map(|(_, reason)| reason.clone()).collect(),
            trusted: config.server.trusted_proxies.iter().map(|&network| (network, ())).collect(),
            geo,
            timeline,
            bots: bots.map(Arc::clone),
            blocks: Blocks::default(),
            clients: Clients::default(),
            flags: HashMap::new(),
            rules: BTreeMap::new(),
            totals: Totals::default(),
            first: None,
            latest: UnixMs(i64::MIN),
            model: model.origin.clone(),
        })
    }

    /// Takes the next request.
    ///
    /// # Errors
    /// The sink's.
    pub(crate) fn observe(
        &mut self,
        seen: &Observation<'_>,
        scores: &mut ScoreSink<'_>,
    ) -> anyhow::Result<()> {
        let bot = bot(self.bots.as_deref(), seen);
        let seen = &Observation { bot, ..*seen };
        let start = *self.first.get_or_insert(seen.time);
        self.latest = self.latest.max(seen.time);
        self.totals.count(seen);
        let refused = self.refusal(seen, start);
        if let Some(tally) = self.clients.count(seen)
            && let Some(why) = refused
        {
            tally.refuse(why, seen.time);
        }
        if let Some(why) = refused {
            self.totals.refused[why as usize] += 1;
        }
        self.timeline.observe(seen);
        self.take_news(Some(seen.client), scores)
    }

    /// Judges what is not judged yet, and sums up.
    ///
    /// # Errors
    /// The sink's.
    pub(crate) fn finish(mut self, name: String, scores: &mut ScoreSink<'_>) -> anyhow::Result<Outcome> {
        self.timeline.finish();
        self.take_news(None, scores)?;
        self.totals.late = self.timeline.late_records();
        Ok(Outcome {
            name,
            totals: self.totals,
            clients: self.clients,
            flags: self.flags,
            rules: self.rules,
            model: self.model,
            model_id: self.timeline.model().map(|model| model.id().to_owned()),
            span: self.first.map(|first| (first, self.latest)),
            blocks: self.settings.actions.blocks(),
        })
    }

    /// Why the request would have been refused.
    fn refusal(&mut self, seen: &Observation<'_>, start: UnixMs) -> Option<Refused> {
        // The gateway refuses it whatever the policy is.
        if seen.verdict == VerdictKind::Malformed {
            return None;
        }
        let is_allowed = self.state.allows.load().lookup(seen.client.ip()).is_some();
        if !is_allowed && self.blocks.stands(seen) {
            return Some(Refused::Detector);
        }
        let identity = (!seen.user.is_empty()).then(|| Identity {
            user: Some(seen.user.into()),
            roles: Vec::new(),
            session: None,
        });
        let facts = RequestFacts {
            client: seen.client,
            method: seen.method,
            host: seen.host,
            path: normalise_path(seen.path.as_bytes()),
            raw_path: seen.path.as_bytes(),
            query: seen.query.as_bytes(),
            identity: identity.as_ref(),
            user_agent: seen.user_agent,
            place: self.place(seen.client),
            ..RequestFacts::new(seen.client, seen.method, seen.host, "".into())
        };
        // The limiter's instants have 40 bits, so they count from the first record. Records that are a little late do not
        // turn the clock back.
        let monotonic_ms = self.latest.since(start).as_millis() as u64 + 1;
        let decision = decide(&self.policy, &self.state, &facts, Now { wall: seen.time, monotonic_ms });
        let why = match &decision.verdict {
            Verdict::Admit | Verdict::Allow(_) => return None,
            Verdict::Block(_) | Verdict::Feed(_) | Verdict::Caught(_) => Refused::Listed,
            Verdict::Deny(_) => Refused::Denied,
            Verdict::Limit(_) => Refused::Limited,
        };
        *self.rules.entry(self.rule(&decision)).or_default() += 1;
        (!decision.is_served()).then_some(why)
    }

    /// The rule of a decision by its name, and whether it only speaks.
    fn rule(&self, decision: &Decision) -> String {
        let name = match &decision.verdict {
            Verdict::Block(id) => {
                let reason = usize::try_from(*id).ok().and_then(|id| self.listed.get(id));
                format!("block: {}", reason.map_or("", String::as_str))
            }
            Verdict::Admit
            | Verdict::Allow(_)
            | Verdict::Deny(_)
            | Verdict::Feed(_)
            | Verdict::Caught(_)
            | Verdict::Limit(_) => decision.reason().to_string(),
        };
        match decision.mode {
            Mode::Enforce => name,
            Mode::DryRun => format!("{name} (dry-run)"),
        }
    }

    fn place(&self, client: ClientIp) -> Place {
        self.geo.as_ref().map_or_else(Place::default, |geo| origin(&geo.files_know(client)))
    }

    /// What the detector has found since the last time. `current` is the client whose request it has just seen.
    fn take_news(&mut self, current: Option<ClientIp>, scores: &mut ScoreSink<'_>) -> anyhow::Result<()> {
        let current = current.map(ClientIp::limit_key);
        for finding in self.timeline.take_findings() {
            self.note(&finding, current == Some(finding.client.limit_key()));
        }
        let mut found = self.timeline.take_scores();
        found.sort_by_key(|score| (score.hour, score.client));
        for score in found {
            if let Some(tally) = self.clients.get_mut(score.client) {
                tally.score = tally.score.max(score.score as f32);
            }
            scores(&score)?;
        }
        Ok(())
    }

    /// Keeps a finding, and blocks if that is what the policy does.
    fn note(&mut self, finding: &Finding, is_current: bool) {
        let tally = self.clients.get(finding.client);
        let requests = tally.map_or(finding.request_count, |tally| u64::from(tally.requests));
        let first = tally.map_or(finding.first_seen, |tally| tally.first);
        let key = (finding.client.limit_key(), finding.user.clone());
        let is_full = self.flags.len() >= MAX_FLAGGED;
        let flag = match self.flags.get_mut(&key) {
            Some(flag) => flag,
            None if is_full => {
                self.totals.dropped_flags += 1;
                return;
            }
            None => self.flags.entry(key).or_insert_with(|| Flag::new(finding.client, first)),
        };
        flag.add(finding, requests.saturating_sub(u64::from(is_current)), MAX_REASONS);
        let decided = self.settings.actions.of(finding);
        let Action::Block(span) = decided.action else { return };
        flag.spared = match decided.is_dry_run {
            true => Some(Spared::DryRun.as_str()),
            false => spared(&self.state, &self.trusted, finding.client),
        };
        if flag.spared.is_some() {
            return;
        }
        let (whom, agents) = whom(finding);
        let lasts = Lasts { settings: &self.settings, span };
        let made = self.blocks.add(whom, agents, &lasts, finding.detected_at, finding.last_seen);
        if let Some(made) = made {
            flag.blocks += 1;
            flag.first_block.get_or_insert((finding.detected_at, made.until));
            self.totals.blocks += 1;
            self.totals.longest_step = self.totals.longest_step.max(made.step);
        }
    }
}

/// What a client is that names itself as a crawler, as far as networks tell: what DNS said then is not known.
pub(super) fn bot(bots: Option<&KnownBots>, seen: &Observation<'_>) -> BotStatus {
    bots.map_or(BotStatus::None, |bots| bots.by_networks(seen.client.ip(), seen.user_agent))
}

/// Why nothing is blocked although it is severe enough, as in the gateway.
fn spared(state: &LiveState, trusted: &PrefixSet<()>, client: ClientIp) -> Option<&'static str> {
    if state.allows.load().lookup(client.ip()).is_some() {
        Some("on the allowlist")
    } else if trusted.lookup(client.ip()).is_some() {
        Some("a trusted proxy")
    } else if client.ip().is_loopback() {
        Some("this machine's own address")
    } else {
        None
    }
}

/// Whom a block for this finding means: the user, or whoever is anonymous on an address that users share, or the address.
fn whom(finding: &Finding) -> (Whom, Option<Vec<Box<str>>>) {
    if let Some(user) = &finding.user {
        return (Whom::User(user.as_str().into()), None);
    }
    let agents = finding.details.get("shared").and_then(|shared| shared["user_agents"].as_array());
    let agents =
        agents.map(|agents| agents.iter().filter_map(|agent| agent.as_str()).map(Box::from).collect());
    (Whom::Address(finding.client.limit_key()), agents)
}

/// Without concurrency, since a log does not say how long requests took.
pub(super) fn playable(limits: &[Arc<LimitRule>]) -> Vec<Arc<LimitRule>> {
    let with_rate = limits.iter().filter(|rule| rule.rate.is_some());
    with_rate
        .map(|rule| match rule.concurrency {
            None => Arc::clone(rule),
            Some(_) => Arc::new(LimitRule { concurrency: None, ..LimitRule::clone(rule) }),
        })
        .collect()
}

/// The allows and blocks of the configuration; those of the database are of today, and not of the past.
fn live_state(config: &Config) -> LiveState {
    let state = LiveState { limiter: Limiter::repeatable(), ..LiveState::default() };
    let allows: PrefixSet<i64> = (0..).zip(&config.allows).map(|(id, (network, _))| (*network, id)).collect();
    state.allows.store(Arc::new(allows));
    let blocks = (0..).zip(&config.blocks).map(|(id, (network, _))| BlockChange::Add {
        network: *network,
        id,
        expires_at: None,
        spares_users: false,
    });
    state.blocks.apply(blocks, Now { wall: UnixMs(0), monotonic_ms: 0 });
    state
}
