//! What a run of the detector means for people: findings that are news, and blocks.

use std::collections::HashMap;
use std::time::Duration;

use portcullis_config::Config;
use portcullis_model::{ClientIp, Finding, Party, Severity, UnixMs, bare};
use portcullis_notify::{Digest, Event};
use portcullis_store::{FindingFilter, State, StoreError};

use crate::cli::quoted;
use crate::detection::Done;

/// A finding of the last day is brought up to date by a run; older ones are new findings.
const SAME_FINDING: Duration = Duration::from_secs(2 * 86_400);
/// Findings that are remembered at most; those beyond are told once more.
const MAX_KNOWN: usize = 100_000;

/// The findings that there were before a run, with their severities.
pub(crate) struct Known(HashMap<i64, Severity>);

impl Known {
    /// Reads them; nothing when nobody wants to hear of findings.
    ///
    /// # Errors
    /// The state database fails.
    pub(crate) fn before_run(state: &State, config: &Config, now: UnixMs) -> Result<Self, StoreError> {
        Self::read(state, config, None, now)
    }

    /// The same of one client alone.
    ///
    /// # Errors
    /// The state database fails.
    pub(crate) fn of(
        state: &State,
        config: &Config,
        client: ClientIp,
        now: UnixMs,
    ) -> Result<Self, StoreError> {
        Self::read(state, config, Some(client), now)
    }

    fn read(
        state: &State,
        config: &Config,
        client: Option<ClientIp>,
        now: UnixMs,
    ) -> Result<Self, StoreError> {
        let least = config.alerts.findings.filter(|_| config.alerts.has_channels());
        let Some(least) = least else { return Ok(Self(HashMap::new())) };
        let filter = FindingFilter {
            client,
            min_severity: Some(least),
            since: Some(now.minus(SAME_FINDING)),
            limit: MAX_KNOWN,
            ..FindingFilter::default()
        };
        let known = state.findings(&filter)?;
        Ok(Self(known.into_iter().map(|stored| (stored.id, stored.finding.severity)).collect()))
    }

    /// The events of a run.
    fn events(&self, config: &Config, done: &Done) -> Vec<Event> {
        let settings = &config.alerts;
        let is_news = |(id, finding): &&(i64, Finding)| {
            let is_severe = settings.findings.is_some_and(|least| finding.severity >= least);
            is_severe && self.0.get(id).is_none_or(|known| finding.severity > *known)
        };
        let findings = done.saved.iter().filter(is_news).map(|(id, finding)| Event::Finding {
            id: *id,
            client: finding.client,
            user: finding.user.clone(),
            severity: finding.severity,
            rule: finding.reason.clone(),
            says: says(finding),
            requests: finding.request_count,
        });
        let blocks = done.blocked.iter().map(|block| Event::AutoBlock {
            whom: bare(&block.network),
            reason: block.reason.clone(),
            unblock: bare(&block.network),
        });
        let of_parties = done.blocked_parties.iter().map(|block| Event::AutoBlock {
            whom: block.party.to_string(),
            reason: block.reason.clone(),
            unblock: match &block.party {
                Party::User(user) => format!("--user {}", quoted(user)),
                Party::Anonymous { network, .. } => bare(network),
            },
        });
        let blocks = blocks.chain(of_parties);
        findings.chain(blocks).filter(|event| settings.wants(event.kind())).collect()
    }

    /// Stores what a run means for people.
    ///
    /// # Errors
    /// The state database fails.
    pub(crate) fn tell(
        &self,
        state: &mut State,
        config: &Config,
        done: &Done,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        match Digest::of_all(&self.events(config, done), now) {
            Some(digest) => super::store(state, config, &digest),
            None => Ok(()),
        }
    }
}

/// The finding in a sentence, without whom it is about.
fn says(finding: &Finding) -> String {
    let summary = finding.details["summary"].as_str().unwrap_or(&finding.reason);
    let client = finding.client;
    let whom = match &finding.user {
        Some(user) => format!("user {user} at {client} "),
        None => format!("{client} "),
    };
    summary.strip_prefix(&whom).unwrap_or(summary).to_owned()
}
