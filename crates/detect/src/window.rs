//! One stretch of the log: takes requests one by one in bounded memory, then asks rules and forest about
//! every client. Must not read the log, the clock or the blocklist.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use portcullis_model::{ClientIp, LoginOutcome, UnixMs, VerdictKind};

use crate::client::{Client, Login, Sample, SampleKind};
use crate::finding::{self, Judged};
use crate::observation::{Answer, is_client_error, is_missing};
use crate::path::{is_asset, is_login_api, is_routine, normalise, sends_login, sensitive_entry};
use crate::report::{ForestHealth, Report};
use crate::rules::{Context, Neighbours};
use crate::shared::Crowds;
use crate::signatures::{Scratch, Signature, Signatures};
use crate::{BotStatus, Features, ForestModel, Observation, Settings};

/// The most findings of one window.
pub const MAX_FINDINGS: usize = 10_000;
/// The most rows for training that one window hands out.
pub const MAX_GOOD_ROWS: usize = 4_096;
/// With fewer requests than this a client has no row: shares of one or two requests say nothing.
const MIN_ROW_REQUESTS: u32 = 3;
/// The most samples of all clients together.
const MAX_SAMPLES: usize = 100_000;
/// The longest path and query of a sample, in characters.
const SAMPLE_CHARS: usize = 200;
/// Matches of one request beyond this many are not looked at.
const MAX_MATCHES: usize = 24;
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
    hasher: RandomState,
    /// By address, and by the hash of the verified user; zero: none.
    slots: HashMap<(IpAddr, u64), u32>,
    clients: Vec<Client>,
    /// User agents that came with evidence, by their hashes.
    agents: HashMap<u32, Box<str>>,
    /// Where the search for a client to forget goes on.
    hand: usize,
    scratch: Scratch,
    samples: usize,
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
            hasher: RandomState::new(),
            slots: HashMap::new(),
            clients: Vec::new(),
            agents: HashMap::new(),
            hand: 0,
            scratch: Scratch::default(),
            samples: 0,
            requests: 0,
            overflowed: 0,
        }
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
        let normal = normalise(seen.path);
        let asset = is_asset(&normal);
        let answer = Answer::of(seen.verdict, seen.status);
        let agent = self.hasher.hash_one(seen.user_agent);
        let agent = (agent ^ (agent >> 32)) as u32;
        let mark = self.count(slot, seen, &normal, asset, answer);
        self.count_answer(slot, seen, &normal, asset, answer);
        let is_failed_login = self.count_login(slot, seen, &normal);
        self.count_sensitive(slot, seen, &normal);
        let is_attack = self.match_signatures(slot, seen, asset, answer, agent);
        if mark || is_failed_login || is_attack {
            self.mark(slot, seen, agent, is_failed_login);
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
        let client = Client::new(key.0, seen.user, seen.time, is_long);
        let slot = if self.clients.len() < self.settings.max_clients.clamp(1, u32::MAX as usize) {
            self.clients.push(client);
            self.clients.len() - 1
        } else {
            let slot = self.least_active();
            let gone = std::mem::replace(&mut self.clients[slot], client);
            let key = self.key(gone.key, gone.user.as_deref().unwrap_or_default());
            self.slots.remove(&key);
            self.samples -= gone.sample_count();
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

    /// True if it asked for a page that is not there.
    fn count(
        &mut self,
        slot: usize,
        seen: &Observation<'_>,
        normal: &str,
        asset: bool,
        answer: Answer,
    ) -> bool {
        let path_hash = self.hasher.hash_one(normal);
        let client = &mut self.clients[slot];
        client.arrive(seen.time, asset);
        client.come_from(seen.client);
        client.assets = client.assets.saturating_add(u32::from(asset));
        client.served = client.served.saturating_add(u32::from(answer == Answer::Served));
        client.without_referer =
            client.without_referer.saturating_add(u32::from(matches!(seen.referer, "" | "-")));
        client.posts = client.posts.saturating_add(u32::from(seen.method == "POST"));
        let depth = normal.split('/').filter(|segment| !segment.is_empty()).count();
        client.depth_sum = client.depth_sum.saturating_add(depth as u32);
        client.bytes_out = client.bytes_out.saturating_add(seen.bytes_out);
        client.paths.insert(path_hash);
        if answer == Answer::ClientError && is_missing(seen.status) && !asset && !is_routine(normal) {
            client.missing.insert(path_hash);
            self.sample(slot, SampleKind::Missing, seen);
            return true;
        }
        false
    }

    fn count_answer(
        &mut self,
        slot: usize,
        seen: &Observation<'_>,
        normal: &str,
        asset: bool,
        answer: Answer,
    ) {
        let is_error = match answer {
            Answer::Refused => return,
            Answer::ClientError if asset || is_routine(normal) => return,
            Answer::ClientError => is_client_error(seen.status),
            Answer::Served | Answer::Redirected | Answer::Failed => false,
        };
        let client = &mut self.clients[slot];
        client.judged = client.judged.saturating_add(1);
        client.errors = client.errors.saturating_add(u32::from(is_error));
        if is_error {
            self.sample(slot, SampleKind::Error, seen);
        }
    }

    /// True if it is a login that failed.
    fn count_login(&mut self, slot: usize, seen: &Observation<'_>, normal: &str) -> bool {
        if seen.login.is_none() && !sends_login(&self.settings, seen.method, normal) {
            return false;
        }
        let login: &mut Login = self.clients[slot].login.get_or_insert_default();
        let (counter, is_failure) = match (seen.verdict, seen.status) {
            _ if seen.login == Some(LoginOutcome::Failed) => (&mut login.failures, true),
            // It got in, whatever the status.
            _ if seen.login == Some(LoginOutcome::Succeeded) => (&mut login.redirected, false),
            (VerdictKind::Limited, _) => (&mut login.limited, true),
            (VerdictKind::Blocked | VerdictKind::Malformed, _) => return false,
            (_, 400 | 401 | 403 | 422 | 429) => (&mut login.failures, true),
            (_, 300..=399) => (&mut login.redirected, false),
            (_, 200..=299) => {
                login.quiet_api = login.quiet_api.saturating_add(u32::from(is_login_api(normal)));
                (&mut login.quiet, false)
            }
            _ => return false,
        };
        *counter = counter.saturating_add(1);
        login.attempts = login.attempts.saturating_add(1);
        self.sample(slot, SampleKind::Login, seen);
        is_failure
    }

    fn count_sensitive(&mut self, slot: usize, seen: &Observation<'_>, normal: &str) {
        if matches!(seen.verdict, VerdictKind::Blocked | VerdictKind::Malformed) {
            return;
        }
        let Some(entry) = sensitive_entry(&self.settings, normal) else { return };
        let bit = 1_u64 << entry.min(63);
        let sensitive = &mut self.clients[slot].sensitive;
        sensitive.hits = sensitive.hits.saturating_add(1);
        sensitive.touched |= bit;
        if !seen.verdict.is_refusal() && matches!(seen.status, 401 | 403 | 404) {
            sensitive.denied |= bit;
        }
        self.sample(slot, SampleKind::Sensitive, seen);
    }

    /// True if the request, or a user agent that was not seen before, is one of attacks.
    fn match_signatures(
        &mut self,
        slot: usize,
        seen: &Observation<'_>,
        asset: bool,
        answer: Answer,
        agent: u32,
    ) -> bool {
        let Self { signatures, scratch, clients, .. } = self;
        let client = &mut clients[slot];
        let all = signatures.all();
        let mut matches = Matches::default();
        signatures.in_path(seen.path, scratch, |n| {
            if !(asset && all[n].class.spares_assets()) {
                matches.push_path(n, all);
            }
        });
        signatures.in_query(seen.query, scratch, |n, in_search_box| matches.push(n, in_search_box));
        let in_request = matches.count;
        // A user agent that was already looked at on this client is not searched again.
        if client.use_agent(agent) {
            client.declares_bot &= declares_bot(seen.user_agent);
            signatures.in_agent(seen.user_agent, scratch, |n| matches.push(n, false));
        }
        if matches.count == 0 {
            return false;
        }
        let mut hits = client.signatures.take().unwrap_or_default();
        let (mut is_new, mut is_new_agent) = (false, false);
        for (n, &(signature, in_search_box)) in matches.found[..matches.count].iter().enumerate() {
            let strength = all[signature].class.strength(answer, seen.status);
            let is_new_hit = hits.add(signature, if in_search_box { strength.weakened() } else { strength });
            if n < in_request { is_new |= is_new_hit } else { is_new_agent |= is_new_hit }
        }
        hits.requests = hits.requests.saturating_add(u32::from(in_request > 0));
        client.signatures = (!hits.is_empty()).then_some(hits);
        if is_new {
            self.sample(slot, SampleKind::Signature, seen);
        }
        if is_new_agent {
            self.sample(slot, SampleKind::Agent, seen);
        }
        self.clients[slot].signatures.is_some()
    }

    fn sample(&mut self, slot: usize, kind: SampleKind, seen: &Observation<'_>) {
        if self.samples >= MAX_SAMPLES || !self.clients[slot].wants_sample(kind) {
            return;
        }
        self.samples += 1;
        self.clients[slot].keep_sample(
            kind,
            Sample {
                time: seen.time,
                method: seen.method.into(),
                target: target(seen).into(),
                status: seen.status,
            },
        );
    }

    /// What the forest would see: the rows of all clients with enough requests, for measuring models.
    pub fn rows(&self) -> impl Iterator<Item = (ClientIp, Features)> {
        let judged = self.clients.iter().filter(|client| !client.is_allowed);
        judged
            .filter(|client| client.requests >= MIN_ROW_REQUESTS)
            .map(|client| (client.address(), Features::of(client)))
    }

    /// Judges all clients. `now` is the findings' `detected_at`.
    pub fn finish(self, forest: Option<&ForestModel>, now: UnixMs) -> Report {
        let forest = if self.settings.forest { forest } else { None };
        let alone = Context {
            settings: &self.settings,
            signatures: &self.signatures,
            neighbours: Neighbours::default(),
        };
        let crowds = Crowds::of(&self.clients, &alone);
        let context = |client: &Client| Context { neighbours: crowds.neighbours(client), ..alone };
        let mut flagged = Vec::new();
        let mut presumed_good = Vec::new();
        let mut sites = Sites::default();
        let (mut scored, mut odd) = (0, 0);
        for (slot, client) in self.clients.iter().enumerate() {
            if client.is_allowed {
                // Whom somebody allowed is a neighbour who behaves.
                sites.add(client.key, false);
                continue;
            }
            let row = (client.requests >= MIN_ROW_REQUESTS).then(|| Features::of(client));
            let context = context(client);
            let judged = Judged::new(client, &context, forest, row.as_ref());
            scored += usize::from(judged.score.is_some());
            odd += usize::from(judged.is_odd);
            // One of several who share it is blocked by itself.
            sites.add(client.key, context.is_bad(&judged) && crowds.is_alone(client));
            if let Some(severity) = judged.severity {
                flagged.push((severity, client.requests, slot));
            }
            if let Some(row) = row
                && presumed_good.len() < MAX_GOOD_ROWS
                && judged.is_presumed_good(client)
            {
                presumed_good.push(row);
            }
        }
        flagged.sort_unstable_by(|a, b| b.cmp(a));
        let dropped_findings = flagged.len().saturating_sub(MAX_FINDINGS) as u64;
        let mut shared = HashMap::new();
        let findings = flagged
            .into_iter()
            .take(MAX_FINDINGS)
            .filter_map(|(_, _, slot)| {
                let client = &self.clients[slot];
                let row = Features::of(client);
                let usable = (client.requests >= MIN_ROW_REQUESTS).then_some(&row);
                // Judged again: keeping every client's evidence until here could take all memory.
                let judged = Judged::new(client, &context(client), forest, usable);
                let address = crowds.shared(client, &self.agents);
                let finding = finding::write(client, judged, &row, forest, address.as_ref(), now)?;
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
            forest: health(&self.settings, forest, scored, odd),
            shared,
            sites: sites.0.into_iter().collect(),
            presumed_good,
        }
    }
}

/// The IPv6 /64 of a window, each with whether anybody on it is bad.
#[derive(Default)]
struct Sites(HashMap<Ipv6Addr, bool>);

impl Sites {
    fn add(&mut self, key: IpAddr, is_bad: bool) {
        if let Some(site) = ipv6(key) {
            *self.0.entry(site).or_default() |= is_bad;
        }
    }
}

fn ipv6(key: IpAddr) -> Option<Ipv6Addr> {
    match key {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(v6),
    }
}

/// Signatures of one request, and whether each lies in a search box's parameter.
#[derive(Default)]
struct Matches {
    found: [(usize, bool); MAX_MATCHES],
    count: usize,
}

impl Matches {
    /// One path is one piece of evidence of each class: of several signatures (`/.git/` and `/.git/config`)
    /// the weightiest counts, among equals the one that ends last.
    fn push_path(&mut self, signature: usize, all: &[Signature]) {
        let rivals = self.found[..self.count].iter_mut();
        match rivals.into_iter().find(|(rival, _)| all[*rival].class == all[signature].class) {
            Some((rival, _)) if all[*rival].weight <= all[signature].weight => *rival = signature,
            Some(_) => {}
            None => self.push(signature, false),
        }
    }

    fn push(&mut self, signature: usize, in_search_box: bool) {
        if let Some(place) = self.found.get_mut(self.count) {
            *place = (signature, in_search_box);
            self.count += 1;
        }
    }
}

fn health(settings: &Settings, forest: Option<&ForestModel>, scored: usize, flagged: usize) -> ForestHealth {
    match forest {
        Some(model) => ForestHealth::Scored {
            model_id: model.id().to_owned(),
            training_rows: model.training_rows(),
            threshold: model.threshold(),
            scored,
            flagged,
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

fn target<'a>(seen: &Observation<'a>) -> Cow<'a, str> {
    let cut = |text: &'a str| match text.char_indices().nth(SAMPLE_CHARS) {
        Some((end, _)) => &text[..end],
        None => text,
    };
    if seen.query.is_empty() {
        return Cow::Borrowed(cut(seen.path));
    }
    let whole: String = seen.path.chars().chain(['?']).chain(seen.query.chars()).take(SAMPLE_CHARS).collect();
    Cow::Owned(whole)
}

/// Whether the user agent calls itself a crawler, a feed reader or a monitor.
fn declares_bot(agent: &str) -> bool {
    const WORDS: [&str; 9] = ["bot", "crawl", "spider", "slurp", "feed", "rss", "monitor", "uptime", "+http"];
    let lower = agent.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}
