//! One stretch of the log: takes requests one by one in bounded memory, then asks rules and forest about
//! every client. Must not read the log, the clock or the blocklist.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_model::{ClientIp, Severity, UnixMs, VerdictKind};

use crate::client::Client;
use crate::counting::{Request, SampleRoom, Tools};
use crate::finding::{self, Found, Judged};
use crate::report::{ForestHealth, Report};
use crate::rules::{Context, Neighbours};
use crate::shared::Crowds;
use crate::signatures::{Scratch, Signatures};
use crate::together::{Flood, Together, weak};
use crate::{BotStatus, Features, ForestModel, Knowledge, Observation, Settings};

/// The most findings of one window.
pub const MAX_FINDINGS: usize = 10_000;
/// The most rows for training that one window hands out.
pub const MAX_GOOD_ROWS: usize = 4_096;
/// With fewer requests than this a client has no row: shares of one or two requests say nothing.
const MIN_ROW_REQUESTS: u32 = 3;
/// The most samples of all clients together.
const MAX_SAMPLES: usize = 100_000;
/// Slots that are looked at to make room for a new client.
const EVICTION_LOOKS: usize = 8;
/// User agents that are kept by name.
const MAX_KEPT_AGENTS: usize = 4_096;
const HOUR_MS: i64 = 3_600_000;

/// Collects the requests of `[from, to)` and judges their clients.
///
/// Clients are counted by [`ClientIp::limit_key`]: an IPv4 address, or an IPv6 /64. A verified user of an address is a
/// client of its own, and those of the address that are none are another. A finding about a /64 is
/// about its most active address and names the network in its details.
#[derive(Debug)]
pub struct Window {
    settings: Settings,
    from: UnixMs,
    to: UnixMs,
    signatures: Arc<Signatures>,
    knowledge: Knowledge,
    hasher: RandomState,
    /// By address, and by the hash of the verified user; zero: none.
    slots: HashMap<(IpAddr, u64), u32>,
    clients: Vec<Client>,
    /// User agents that came with evidence, by their hashes.
    agents: HashMap<u32, Box<str>>,
    /// Where the search for a client to forget goes on.
    hand: usize,
    scratch: Scratch,
    samples: SampleRoom,
    requests: u64,
    overflowed: u64,
}

impl Window {
    /// An empty window over `[from, to)` with the built-in signatures.
    pub fn new(settings: &Settings, from: UnixMs, to: UnixMs) -> Self {
        Self::with_signatures(settings, from, to, Arc::new(Signatures::builtin()))
    }

    /// An empty window over `[from, to)` with a table of one's own, or with one that many windows share: making
    /// the built-in one takes most of a millisecond.
    pub fn with_signatures(
        settings: &Settings,
        from: UnixMs,
        to: UnixMs,
        signatures: Arc<Signatures>,
    ) -> Self {
        Self {
            settings: settings.clone(),
            from,
            to,
            signatures,
            knowledge: Knowledge::default(),
            hasher: RandomState::new(),
            slots: HashMap::new(),
            clients: Vec::new(),
            agents: HashMap::new(),
            hand: 0,
            scratch: Scratch::default(),
            samples: SampleRoom::new(MAX_SAMPLES),
            requests: 0,
            overflowed: 0,
        }
    }

    /// The same with what is known already; to be said before the first request.
    #[must_use]
    pub fn knowing(self, knowledge: &Knowledge) -> Self {
        Self { knowledge: knowledge.clone(), ..self }
    }

    /// Takes one request; one outside of the window is passed over. Requests need not be in order.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        if seen.time < self.from || seen.time >= self.to {
            return;
        }
        self.requests += 1;
        // Not the client: whoever else uses the address is judged as ever.
        if seen.bot == BotStatus::Verified {
            return;
        }
        let slot = self.slot(seen);
        let client = &mut self.clients[slot];
        if seen.verdict == VerdictKind::Allowed {
            client.is_allowed = true;
        }
        if client.is_allowed {
            return;
        }
        let request = Request::read(seen);
        let tools =
            Tools { settings: &self.settings, signatures: &self.signatures, knowledge: &self.knowledge };
        let evidence = request.count(client, tools, &mut self.scratch, &mut self.samples);
        if evidence.marks() {
            self.mark(slot, seen, request.agent, evidence.is_failed_login);
        }
    }

    /// Notes with which user agent evidence came.
    fn mark(&mut self, slot: usize, seen: &Observation<'_>, agent: u32, is_failed_login: bool) {
        let mark = self.clients[slot].mark(agent);
        let count = if is_failed_login { &mut mark.logins } else { &mut mark.others };
        *count = count.saturating_add(1);
        if self.agents.len() < MAX_KEPT_AGENTS {
            self.agents.entry(agent).or_insert_with(|| seen.user_agent.into());
        }
    }

    /// The client's place, made if need be.
    fn slot(&mut self, seen: &Observation<'_>) -> usize {
        let key = self.key(seen.client.limit_key(), seen.user);
        if let Some(&slot) = self.slots.get(&key) {
            return slot as usize;
        }
        let is_long = self.to.0.saturating_sub(self.from.0) > HOUR_MS;
        let client = Client::new(key.0, seen.user, seen.time).with_shape(is_long);
        let slot = if self.clients.len() < self.settings.max_clients.clamp(1, u32::MAX as usize) {
            self.clients.push(client);
            self.clients.len() - 1
        } else {
            let slot = self.least_active();
            let gone = std::mem::replace(&mut self.clients[slot], client);
            let key = self.key(gone.key, gone.user.as_deref().unwrap_or_default());
            self.slots.remove(&key);
            self.samples.give_back(gone.sample_count());
            self.overflowed += 1;
            slot
        };
        self.slots.insert(key, slot as u32);
        slot
    }

    fn key(&self, address: IpAddr, user: &str) -> (IpAddr, u64) {
        (address, if user.is_empty() { 0 } else { self.hasher.hash_one(user) | 1 })
    }

    /// The least active of the next few clients behind a hand that goes round: nearly the least active of
    /// all, without looking at all.
    fn least_active(&mut self) -> usize {
        let count = self.clients.len();
        let looks = (0..EVICTION_LOOKS.min(count)).map(|n| (self.hand + n) % count);
        let least = looks.min_by_key(|&slot| self.clients[slot].worth()).unwrap_or(0);
        self.hand = (self.hand + EVICTION_LOOKS) % count;
        least
    }

    /// What the forest would see: the rows of all clients with enough requests, for measuring models.
    pub fn rows(&self) -> impl Iterator<Item = (ClientIp, Features)> {
        let judged = self.clients.iter().filter(|client| !client.is_allowed);
        judged.filter_map(|client| Some((client.address(), row(client)?)))
    }

    /// Judges all clients. `now` is the findings' `detected_at`.
    pub fn finish(self, forest: Option<&ForestModel>, now: UnixMs) -> Report {
        let forest = if self.settings.forest { forest } else { None };
        let alone = Context {
            settings: &self.settings,
            signatures: &self.signatures,
            knowledge: &self.knowledge,
            neighbours: Neighbours::default(),
            around: None,
        };
        let crowds = Crowds::of(&self.clients, &alone);
        let context = |client: &Client| Context { neighbours: crowds.neighbours(client), ..alone };
        let mut presumed_good = Vec::new();
        let (mut scores, mut odd) = (Vec::new(), 0);
        let judge_alone = |client: &Client| {
            let row = row(client);
            let judged = Judged::new(client, &context(client), forest, row.as_ref());
            scores.extend(judged.score.map(|score| (client.address(), score)));
            odd += usize::from(judged.is_odd);
            if let Some(row) = row
                && presumed_good.len() < MAX_GOOD_ROWS
                && judged.is_presumed_good(client)
            {
                presumed_good.push(row);
            }
            judged.severity
        };
        // Whom somebody allowed is a neighbour who behaves.
        let is_judged = |client: &&Client| !client.is_allowed;
        let severities: Vec<Option<Severity>> =
            self.clients.iter().filter(is_judged).map(judge_alone).collect();
        let flood = Flood::of(&self.knowledge.site, (self.from, self.to), self.requests);
        let judged = self.clients.iter().filter(is_judged).zip(severities.iter().copied());
        let together = Together::of(judged, flood);

        let mut flagged = Vec::new();
        let mut remembered = Vec::new();
        let mut sites = Sites::default();
        let mut severities = severities.into_iter();
        for (slot, client) in self.clients.iter().enumerate() {
            if client.is_allowed {
                sites.add(client.key, false);
                continue;
            }
            let by_itself = severities.next().flatten();
            let weak = weak(client);
            let around = together.around(client, by_itself, weak.as_ref(), &self.knowledge);
            let mut severity = by_itself;
            if around.is_telling() {
                let context = Context { around: Some(&around), ..context(client) };
                severity = Judged::new(client, &context, forest, row(client).as_ref()).severity;
            }
            // One of several who share it is blocked by itself.
            sites.add(client.key, alone.is_bad(severity) && crowds.is_alone(client));
            if let Some(severity) = severity {
                flagged.push((severity, client.requests, slot));
            }
            remembered.extend(weak.map(|weak| (client.key, weak)));
        }
        flagged.sort_unstable_by(|a, b| b.cmp(a));
        let dropped_findings = flagged.len().saturating_sub(MAX_FINDINGS) as u64;
        let mut shared = HashMap::new();
        let findings = flagged
            .into_iter()
            .take(MAX_FINDINGS)
            .filter_map(|(_, _, slot)| {
                let client = &self.clients[slot];
                let features = Features::of(client);
                let usable = row(client);
                // Judged again: keeping every client's evidence until here could take all memory.
                let by_itself = Judged::new(client, &context(client), forest, usable.as_ref()).severity;
                let around = together.around(client, by_itself, weak(client).as_ref(), &self.knowledge);
                let context = Context { around: Some(&around), ..context(client) };
                let judged = Judged::new(client, &context, forest, usable.as_ref());
                let address = crowds.shared(client, &self.agents);
                let finding = finding::write(
                    client,
                    judged,
                    features.as_ref(),
                    Found::Hourly(forest),
                    address.as_ref(),
                    now,
                )?;
                if let Some(address) = address {
                    shared.insert((client.key, finding.user.clone()), address);
                }
                Some(finding)
            })
            .collect();
        Report {
            findings,
            dropped_findings,
            clients: self.clients.len(),
            requests: self.requests,
            overflowed_clients: self.overflowed,
            forest: health(&self.settings, forest, (scores.len(), odd), &presumed_good),
            scores,
            shared,
            sites: sites.0.into_iter().collect(),
            weak: remembered,
            presumed_good,
        }
    }
}

/// The client's row for the forest, if it made enough requests for one.
fn row(client: &Client) -> Option<Features> {
    if client.requests < MIN_ROW_REQUESTS { None } else { Features::of(client) }
}

/// The IPv4 addresses and IPv6 /64 of a window, each with whether anybody on it is bad.
#[derive(Default)]
struct Sites(BTreeMap<IpAddr, bool>);

impl Sites {
    fn add(&mut self, key: IpAddr, is_bad: bool) {
        *self.0.entry(key).or_default() |= is_bad;
    }
}

fn health(
    settings: &Settings,
    forest: Option<&ForestModel>,
    (scored, flagged): (usize, usize),
    good: &[Features],
) -> ForestHealth {
    match forest {
        Some(model) => ForestHealth::Scored {
            model_id: model.id().to_owned(),
            origin: model.origin(),
            training_rows: model.training_rows(),
            threshold: model.threshold(),
            scored,
            flagged,
            drift: model.drift(good),
        },
        None if settings.forest => ForestHealth::Off {
            why: format!(
                "no model yet: it takes {} client-hours of presumed-good traffic to train one",
                crate::forest::MIN_TRAINING_ROWS
            ),
        },
        None => ForestHealth::Off { why: "switched off in the settings".to_owned() },
    }
}
