//! Limits as they stand: what is counted, and what other limits would have refused.
//! Must not know about pages.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::anyhow;
use parking_lot::Mutex;
use portcullis_admin::running::limits::{Answer, Asked, Busy, LimitNow, Limits, LimitsNow, Refusals, WhatIf};
use portcullis_config::Config;
use portcullis_model::{ClientIp, SharedPrefix, UnixMs};
use portcullis_policy::{Exhausted, LimitKey, LimitRule, Mode, RequestFacts};
use portcullis_store::{LogFilter, LogReader, StoreError};

use crate::app::{App, wall_now};
use crate::cli::rule_words::{matched, per};
use crate::replay::{MAX_SPAN, Progress, cannot_replay, what_if};
use crate::sentence::sentence;
use crate::tasks::lower_priority;

use super::Backend;

/// The newest requests of the log, among whose clients the fullest windows are looked for.
const LATEST: usize = 2_000;
/// Windows that are shown of a rule.
const BUSIEST: usize = 10;

/// The question that was asked last.
pub(super) struct Question {
    what: WhatIf,
    begun: UnixMs,
    progress: Arc<Progress>,
    outcome: Arc<Mutex<Outcome>>,
}

/// What became of a computation.
#[derive(Default)]
enum Outcome {
    #[default]
    Awaited,
    Cancelled,
    Found(Refusals),
    Failed(String),
}

impl Question {
    pub(super) fn cancel(&self) {
        self.progress.is_cancelled.store(true, Ordering::Relaxed);
    }

    fn answer(&self) -> Answer {
        match &*self.outcome.lock() {
            Outcome::Awaited => Answer::Computing(self.progress.percent.load(Ordering::Relaxed)),
            Outcome::Cancelled => Answer::Cancelled,
            Outcome::Found(refusals) => Answer::Done(Box::new(refusals.clone())),
            Outcome::Failed(why) => Answer::Failed(why.clone()),
        }
    }
}

impl Limits for Backend {
    fn limits(&self) -> Result<LimitsNow, String> {
        let app = self.app()?;
        let config = app.config();
        let clients = latest_clients(&config).map_err(|error| error.to_string())?;
        let stats = app.gateway().edge().state.limiter.stats();
        Ok(LimitsNow {
            rules: config.limits.iter().map(|rule| limit(rule, &clients, &app)).collect(),
            is_dry_run: config.mode == Mode::DryRun,
            windows: stats.keys,
            bytes: stats.bytes,
            evictions: stats.evictions,
        })
    }

    fn ask_what_if(&self, question: WhatIf) -> Result<(), String> {
        if question.span > MAX_SPAN {
            return Err("At most 7 days can be asked about.".to_owned());
        }
        let config = self.app()?.config();
        let mut last = self.question.lock();
        if last.as_ref().is_some_and(|last| matches!(*last.outcome.lock(), Outcome::Awaited)) {
            return Err("Another question is being computed. Cancel it, or wait for its answer.".to_owned());
        }
        let asked = Question {
            what: question.clone(),
            begun: wall_now(),
            progress: Arc::default(),
            outcome: Arc::default(),
        };
        let (progress, outcome) = (Arc::clone(&asked.progress), Arc::clone(&asked.outcome));
        let compute = move || {
            lower_priority();
            let computed =
                catch_unwind(AssertUnwindSafe(|| what_if(&question, &config, wall_now(), &progress)))
                    .unwrap_or_else(|_| {
                        Err(anyhow!("it panicked, which is a bug; the gateway's own log says where"))
                    });
            *outcome.lock() = match computed {
                Ok(Some(refusals)) => Outcome::Found(refusals),
                Ok(None) => Outcome::Cancelled,
                Err(error) => Outcome::Failed(sentence(&error)),
            };
        };
        let thread = std::thread::Builder::new().name("portcullis-what-if".to_owned()).spawn(compute);
        thread.map_err(|error| format!("The computation cannot begin: {error}."))?;
        *last = Some(asked);
        Ok(())
    }

    fn what_if(&self) -> Result<Option<Asked>, String> {
        let last = self.question.lock();
        Ok(last.as_ref().map(|last| Asked {
            question: last.what.clone(),
            begun: last.begun,
            answer: last.answer(),
        }))
    }

    fn cancel_what_if(&self) -> Result<(), String> {
        if let Some(last) = &*self.question.lock() {
            last.cancel();
        }
        Ok(())
    }
}

/// The clients of the newest requests, each once.
fn latest_clients(config: &Config) -> Result<Vec<ClientIp>, StoreError> {
    let rows = match LogReader::open(&config.data) {
        Ok(log) => log.rows(&LogFilter::default(), LATEST)?,
        Err(StoreError::NoLog(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut seen = HashSet::new();
    Ok(rows.iter().map(|row| row.client).filter(|client| seen.insert(client.limit_key())).collect())
}

fn limit(rule: &Arc<LimitRule>, clients: &[ClientIp], app: &App) -> LimitNow {
    let shares = SharedPrefix::ALL.map(|prefix| format!("/{}", prefix.length())).join(" and ");
    let is_shared = rule.rate.is_some() && matches!(rule.key, LimitKey::Ip | LimitKey::IpAndPath);
    LimitNow {
        name: Arc::clone(&rule.name),
        allowance: rule.allowance(),
        per: per(&rule.key),
        meant: matched(&rule.applies_to),
        is_dry_run: rule.mode == Mode::DryRun,
        shared: is_shared.then(|| format!("IPv6 networks of {shares} are counted as a whole, too.")),
        rate: rule.rate,
        busiest: busiest(rule, clients, app),
        cannot_replay: cannot_replay(rule),
    }
}

/// The limiter keeps no names, so it is asked about those who came lately.
fn busiest(rule: &LimitRule, clients: &[ClientIp], app: &App) -> Vec<Busy> {
    let edge = app.gateway().edge();
    let now = edge.clock.now().monotonic_ms;
    let usage = |client: ClientIp| {
        let facts = RequestFacts::new(client, "GET", "", "/".into());
        let subject = rule.key.subject(&facts);
        edge.state.limiter.usage(rule, &subject, now).into_iter().map(move |usage| Busy {
            client,
            window: match usage.window {
                Exhausted::Rate => "rate".to_owned(),
                Exhausted::SharedRate(prefix) => format!("all of its /{}", prefix.length()),
                Exhausted::Burst => "burst".to_owned(),
                Exhausted::Concurrency => "at once".to_owned(),
            },
            used: usage.used,
            most: usage.most,
        })
    };
    let mut all: Vec<Busy> = match rule.key {
        LimitKey::Ip | LimitKey::Prefix { .. } => clients.iter().copied().flat_map(usage).collect(),
        // Users, sessions, values and paths are not known by the address alone.
        LimitKey::User | LimitKey::Session | LimitKey::Header(_) | LimitKey::IpAndPath => Vec::new(),
    };
    all.retain(|busy| busy.used > 0);
    // By the share that is used, without rounding.
    all.sort_unstable_by(|a, b| {
        let share = |busy: &Busy, other: &Busy| u64::from(busy.used) * u64::from(other.most);
        share(b, a).cmp(&share(a, b)).then_with(|| a.client.cmp(&b.client))
    });
    all.truncate(BUSIEST);
    all
}
