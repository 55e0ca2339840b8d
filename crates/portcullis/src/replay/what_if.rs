//! One limit with another rate, over the gateway's own log: what the limiter would have refused.
//!
//! Owns the order of the requests and who is told apart. The limits are those of the gateway; must not judge otherwise.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use anyhow::bail;
use portcullis_admin::running::limits::{Refusals, RefusedClient, WhatIf};
use portcullis_config::Config;
use portcullis_geo::Geo;
use portcullis_model::{ClientIp, Identity, Reason, UnixMs, VerdictKind, normalise_path};
use portcullis_policy::{
    IdentityMatch, LimitKey, LimitRule, Limiter, LiveState, Mode, Now, Place, RequestFacts, Snapshot,
    Verdict, decide,
};
use portcullis_store::{FindingFilter, LogReader, LoggedRequest, State};

use super::simulation::playable;
use crate::app::origin;

/// Clients that are told apart.
const MAX_CLIENTS: usize = 200_000;
/// Clients that are named.
const MAX_NAMED: usize = 50;
/// The log has requests in the order in which they ended: so many wait until none that began earlier can come.
const MAX_WAITING: usize = 8_192;
/// Findings that are looked through.
const MAX_FINDINGS: usize = 100_000;
/// Rows from one look at the progress to the next.
const ROWS: u64 = 1_024;
/// The share of good answers from which on a client looks innocent.
const GOOD_SHARE: f64 = 0.5;

/// How a computation goes on, for whoever watches.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) percent: AtomicU8,
    pub(crate) is_cancelled: AtomicBool,
}

/// Why nobody can say what another rate of the rule would have refused.
pub(crate) fn cannot_replay(rule: &LimitRule) -> Option<&'static str> {
    match (&rule.key, rule.rate) {
        (LimitKey::Session | LimitKey::Header(_), _) => {
            Some("It counts by something that the log does not keep.")
        }
        (_, None) => Some("It has no rate: how many requests were under way at once is not in the log."),
        (LimitKey::Ip | LimitKey::Prefix { .. } | LimitKey::User | LimitKey::IpAndPath, Some(_)) => None,
    }
}

/// Computes what would have been refused; `None` when it was cancelled.
///
/// # Errors
/// There is no such rule, it cannot be computed, or the log cannot be read.
pub(crate) fn what_if(
    question: &WhatIf,
    config: &Config,
    now: UnixMs,
    progress: &Progress,
) -> anyhow::Result<Option<Refusals>> {
    let from = now.minus(question.span);
    let mut past = Past::new(question, config, from)?;
    let whole = question.span.as_millis().max(1) as f64;
    let mut rows: u64 = 0;
    LogReader::open(&config.data)?.visit(from, now, &mut |request| {
        rows += 1;
        if rows.is_multiple_of(ROWS) {
            let percent = request.id.time().since(from).as_millis() as f64 / whole * 100.0;
            progress.percent.store(percent.clamp(0.0, 99.0) as u8, Ordering::Relaxed);
        }
        if progress.is_cancelled.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        past.take(request);
        ControlFlow::Continue(())
    })?;
    if progress.is_cancelled.load(Ordering::Relaxed) {
        return Ok(None);
    }
    Ok(Some(past.finish(&State::open_read_only(&config.data)?, from)?))
}

/// A request that waits for those that began before it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    at: UnixMs,
    /// Keeps the order of the log among those of one millisecond.
    row: u64,
    client: IpAddr,
    method: Box<str>,
    host: Box<str>,
    path: Box<str>,
    query: Box<str>,
    user_agent: Box<str>,
    user: Box<str>,
    is_good: bool,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    client: ClientIp,
    requests: u64,
    good: u64,
    refused: u64,
    first_refused: UnixMs,
}

impl Tally {
    fn is_well_served(&self) -> bool {
        self.good as f64 >= self.requests as f64 * GOOD_SHARE
    }
}

struct Past {
    rules: Snapshot,
    rule: Arc<LimitRule>,
    /// The log does not know roles: a user is given those that the rule names.
    roles: Vec<Box<str>>,
    state: LiveState,
    geo: Option<Geo>,
    from: UnixMs,
    latest: UnixMs,
    rows: u64,
    waiting: BinaryHeap<Reverse<Waiting>>,
    clients: HashMap<IpAddr, Tally>,
    found: Refusals,
}

impl Past {
    fn new(question: &WhatIf, config: &Config, from: UnixMs) -> anyhow::Result<Self> {
        let Some(rule) = config.limits.iter().find(|rule| *rule.name == *question.rule) else {
            bail!("there is no limit \"{}\"", question.rule);
        };
        if let Some(why) = cannot_replay(rule) {
            bail!("{why}");
        }
        if rule.cost > question.rate.count() {
            bail!("each request takes {} of \"{}\": a smaller rate admits none", rule.cost, rule.name);
        }
        let changed = Arc::new(LimitRule {
            rate: Some(question.rate),
            // A burst that admits no less than the rate is none.
            burst: rule.burst.filter(|burst| burst.count() < question.rate.count()),
            mode: Mode::Enforce,
            ..LimitRule::clone(rule)
        });
        let known = config.limits.iter().filter(|other| cannot_replay(other).is_none());
        let limits: Vec<Arc<LimitRule>> =
            known.map(|other| Arc::clone(if other.name == rule.name { &changed } else { other })).collect();
        let rules = Snapshot { mode: Mode::Enforce, access: Vec::new(), limits: playable(&limits) };
        Ok(Self {
            geo: if rules.needs().place { Some(Geo::open(&config.geo)?) } else { None },
            roles: roles_named_by(&changed),
            rules,
            rule: changed,
            state: LiveState { limiter: Limiter::repeatable(), ..LiveState::default() },
            from,
            latest: from,
            rows: 0,
            waiting: BinaryHeap::new(),
            clients: HashMap::new(),
            found: Refusals::default(),
        })
    }

    fn take(&mut self, request: &LoggedRequest<'_>) {
        if !reached_the_limits(request) {
            return;
        }
        let reason = request.reason.parse::<Reason>().ok();
        if reason.as_ref().and_then(Reason::limit).is_some_and(|name| *name == self.rule.name) {
            self.found.were_refused += 1;
        }
        self.rows += 1;
        self.waiting.push(Reverse(Waiting {
            at: request.id.time(),
            row: self.rows,
            client: request.client.ip(),
            method: request.method.into(),
            host: request.host.into(),
            path: request.path.into(),
            query: request.query.into(),
            user_agent: request.user_agent.into(),
            user: request.user.into(),
            is_good: matches!(request.status, 200..=399),
        }));
        if self.waiting.len() > MAX_WAITING {
            self.judge_next();
        }
    }

    fn judge_next(&mut self) {
        let Some(Reverse(request)) = self.waiting.pop() else { return };
        self.latest = self.latest.max(request.at);
        let client = ClientIp::new(request.client);
        let identity = (!request.user.is_empty()).then(|| Identity {
            user: Some(request.user.as_ref().into()),
            roles: self.roles.clone(),
            session: None,
        });
        let place = self.geo.as_ref().map_or_else(Place::default, |geo| origin(&geo.files_know(client)));
        let facts = RequestFacts {
            raw_path: request.path.as_bytes(),
            query: request.query.as_bytes(),
            identity: identity.as_ref(),
            user_agent: &request.user_agent,
            place,
            ..RequestFacts::new(
                client,
                &request.method,
                &request.host,
                normalise_path(request.path.as_bytes()),
            )
        };
        // The limiter's clock begins with the span, and does not go back for a request that is late.
        let monotonic_ms = self.latest.since(self.from).as_millis() as u64 + 1;
        let is_meant = self.rule.applies_to.matches(&facts);
        let decision = decide(&self.rules, &self.state, &facts, Now { wall: request.at, monotonic_ms });
        if is_meant {
            let is_refused = matches!(&decision.verdict, Verdict::Limit(hit) if hit.rule.name == self.rule.name)
                && !decision.is_served();
            self.count(client, &request, is_refused);
        }
    }

    fn count(&mut self, client: ClientIp, request: &Waiting, is_refused: bool) {
        self.found.meant += 1;
        self.found.refused += u64::from(is_refused);
        let key = client.limit_key();
        let has_room = self.clients.len() < MAX_CLIENTS;
        if !has_room && !self.clients.contains_key(&key) {
            self.found.of_others += 1;
            return;
        }
        let tally = self.clients.entry(key).or_insert(Tally {
            client,
            requests: 0,
            good: 0,
            refused: 0,
            first_refused: request.at,
        });
        tally.requests += 1;
        tally.good += u64::from(request.is_good);
        if is_refused {
            if tally.refused == 0 {
                tally.first_refused = request.at;
            }
            tally.refused += 1;
        }
    }

    fn finish(mut self, state: &State, from: UnixMs) -> anyhow::Result<Refusals> {
        while !self.waiting.is_empty() {
            self.judge_next();
        }
        let findings = state.findings(&FindingFilter { limit: MAX_FINDINGS, ..FindingFilter::default() })?;
        let suspects: std::collections::HashSet<IpAddr> = findings
            .iter()
            .filter(|stored| stored.finding.last_seen >= from)
            .map(|stored| stored.finding.client.limit_key())
            .collect();
        let mut refused: Vec<(IpAddr, Tally)> =
            self.clients.into_iter().filter(|(_, tally)| tally.refused > 0).collect();
        refused.sort_unstable_by_key(|(key, tally)| (Reverse(tally.refused), *key));
        let is_innocent = |key: &IpAddr, tally: &Tally| !suspects.contains(key) && tally.is_well_served();
        let mut found = self.found;
        found.clients = refused.len() as u64;
        found.innocent = refused.iter().filter(|(key, tally)| is_innocent(key, tally)).count() as u64;
        let named = refused.iter().take(MAX_NAMED).map(|(key, tally)| RefusedClient {
            client: tally.client,
            requests: tally.requests,
            refused: tally.refused,
            first_refused: tally.first_refused,
            is_innocent: is_innocent(key, tally),
        });
        found.first = named.collect();
        Ok(found)
    }
}

/// The roles that a rule names.
pub(crate) fn roles_named_by(rule: &LimitRule) -> Vec<Box<str>> {
    let roles = rule.applies_to.identities.iter().filter_map(|who| match who {
        IdentityMatch::Role(role) => Some(role.clone()),
        IdentityMatch::Anonymous | IdentityMatch::Authenticated | IdentityMatch::User(_) => None,
    });
    roles.collect()
}

/// Whether the gateway asked its limits about the request.
fn reached_the_limits(request: &LoggedRequest<'_>) -> bool {
    match request.verdict {
        VerdictKind::Admitted | VerdictKind::WouldBlock | VerdictKind::WouldLimit => true,
        VerdictKind::Limited => !matches!(request.reason.parse(), Ok(Reason::Connections(_))),
        VerdictKind::Allowed | VerdictKind::Blocked | VerdictKind::Malformed => false,
    }
}

/// The longest span that can be asked about.
pub(crate) const MAX_SPAN: Duration = Duration::from_secs(7 * 86_400);
