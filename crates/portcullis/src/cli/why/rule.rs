//! A refusal by a limit or by the access list explained, with what the client did in the limit's window.
//!
//! Owns the evidence that the log has of a limit. Must not claim what the log does not keep: sessions, headers, roles.

use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use portcullis_model::{Identity, SharedPrefix, UnixMs, VerdictKind, normalise_path};
use portcullis_policy::{
    Exhausted, IdentityMatch, LimitKey, LimitRule, Rate, RequestFacts, Subject, admitted_per_period,
};
use portcullis_store::{LogFilter, LogRow};

use super::decision::{Evidence, Explainer, Grounds, SHOWN};
use super::{Advice, allow};
use crate::app::origin;
use crate::cli::output::{count, number};
use crate::cli::rule_words::{matched, per};
use crate::cli::time;
use crate::replay::roles_named_by;
use portcullis_model::bare;

/// Rows of a limit's window that are read.
const MAX_WINDOW_ROWS: usize = 20_000;

/// What a client did in the window of a limit that it met.
#[derive(Serialize)]
pub(crate) struct LimitWindow {
    rule: String,
    rate: String,
    /// Whose requests are counted together: addresses, or a user.
    client: String,
    served: u64,
    refused: u64,
    /// There were more requests than are read.
    is_partial: bool,
    /// The latest of the served ones, newest first.
    pub(crate) latest: Vec<LogRow>,
    /// When the next request is admitted if none comes before.
    room_at: Option<UnixMs>,
}

/// Whose rows of the log a limit counted together.
enum Counted {
    Network { network: IpNet, user: String, path: Option<String> },
    User(String),
}

impl Counted {
    /// `None`: the log does not keep what the limit counts by.
    fn of(rule: &LimitRule, shared: Option<SharedPrefix>, row: &LogRow) -> Option<Self> {
        let client = shared
            .and_then(|prefix| prefix.of(row.client.ip()))
            .unwrap_or_else(|| row.client.limit_network());
        let network = |network, path| Self::Network { network, user: row.user.clone(), path };
        match &rule.key {
            LimitKey::Session | LimitKey::Header(_) => None,
            // The rule means users alone, and the log was told not to keep them.
            LimitKey::User if row.user.is_empty() && !means_anonymous(rule) => None,
            LimitKey::User if !row.user.is_empty() => Some(Self::User(row.user.clone())),
            LimitKey::Ip | LimitKey::User => Some(network(client, None)),
            LimitKey::Prefix { .. } => match rule.key.subject(&bare_facts(row)) {
                Subject::Prefix(prefix) => Some(network(prefix, None)),
                _ => None,
            },
            LimitKey::IpAndPath => {
                Some(network(client, Some(normalise_path(row.path.as_bytes()).into_owned())))
            }
        }
    }

    fn network(&self) -> Option<IpNet> {
        match self {
            Self::Network { network, .. } => Some(*network),
            Self::User(_) => None,
        }
    }

    /// Whether the limit counted this request of the log for the same.
    fn counts(&self, rule: &LimitRule, row: &LogRow) -> bool {
        let is_of_it = match self {
            Self::User(user) => row.user == *user,
            Self::Network { user, path, .. } => {
                let same_user = !matches!(rule.key, LimitKey::User) || row.user == *user;
                same_user
                    && path.as_ref().is_none_or(|path| normalise_path(row.path.as_bytes()) == path.as_str())
            }
        };
        is_of_it && was_meant(rule, row)
    }

    fn name(&self) -> String {
        match self {
            Self::Network { network, path: None, .. } => bare(network),
            Self::Network { network, path: Some(path), .. } => format!("{} at {path}", bare(network)),
            Self::User(user) => format!("the user {user}"),
        }
    }
}

fn means_anonymous(rule: &LimitRule) -> bool {
    let identities = &rule.applies_to.identities;
    identities.is_empty() || identities.contains(&IdentityMatch::Anonymous)
}

fn bare_facts(row: &LogRow) -> RequestFacts<'_> {
    RequestFacts::new(row.client, &row.method, &row.host, normalise_path(row.path.as_bytes()))
}

/// Whether the rule means a request of the log. Roles are not in it: a user is given those that the rule names.
fn was_meant(rule: &LimitRule, row: &LogRow) -> bool {
    let identity = (!row.user.is_empty()).then(|| Identity {
        user: Some(row.user.as_str().into()),
        roles: roles_named_by(rule),
        session: None,
    });
    rule.applies_to.matches(&RequestFacts {
        identity: identity.as_ref(),
        user_agent: &row.user_agent,
        place: origin(&row.location),
        ..bare_facts(row)
    })
}

impl Explainer<'_> {
    pub(super) fn access(&self, name: &str, row: &LogRow) -> Grounds {
        let client = row.client.limit_network();
        let to = format!("exempt {} from the access list, all limits and blocks", bare(&client));
        let exempt = allow(to, client, self.context);
        let Some(rule) = self.config.access.iter().find(|rule| *rule.name == *name) else {
            let gone = format!(
                "The rule \"{name}\" of the access list refused it. The configuration does not have it any more."
            );
            return Grounds::words(gone, vec![exempt]);
        };
        let change = Advice::sentence(format!(
            "To change that, change the [[access]] named \"{name}\" in the configuration, or put one with action = \
             \"allow\" before it."
        ));
        let denies = format!("The rule \"{name}\" of the access list denies {}.", matched(&rule.applies_to));
        let lasts = Some("as long as the rule is in the configuration".to_owned());
        Grounds { lasts, ..Grounds::words(denies, vec![exempt, change]) }
    }

    pub(super) fn limit(&self, name: &str, exhausted: Exhausted, row: &LogRow) -> anyhow::Result<Grounds> {
        let client = row.client.limit_network();
        let exempt =
            allow(format!("exempt {} from all limits and blocks", bare(&client)), client, self.context);
        let Some(rule) = self.config.limits.iter().find(|rule| *rule.name == *name) else {
            return Ok(Grounds::words(
                format!(
                    "The limit \"{name}\" was used up. The configuration does not have it any more, so what it \
                     admitted is not known."
                ),
                vec![exempt],
            ));
        };
        let (rate, shared, setting) = match exhausted {
            Exhausted::Rate => (rule.rate, None, "rate"),
            Exhausted::SharedRate(prefix) => (rule.rate, Some(prefix), "rate"),
            Exhausted::Burst => (rule.burst, None, "burst"),
            Exhausted::Concurrency => return Ok(at_once(rule, exempt)),
        };
        let Some(rate) = rate else {
            let gone = format!(
                "The {setting} of the limit \"{name}\" was used up. The configuration does not have it any more."
            );
            return Ok(Grounds::words(gone, vec![exempt]));
        };
        let admitted = admitted_per_period(rate, shared) / rule.cost.max(1);
        let admits = format!(
            "The {}limit \"{name}\" admits {} of one {} in any {}: {}.",
            if exhausted == Exhausted::Burst { "burst of the " } else { "" },
            count(u64::from(admitted), "request"),
            shared.map_or_else(|| per(&rule.key), |prefix| format!("IPv6 /{}", prefix.length())),
            time::in_words(rate.window()),
            matched(&rule.applies_to)
        );
        let change = Advice::sentence(format!(
            "To change the limit, change {setting} = \"{rate}\" of the [[limit]] named \"{name}\" in the \
             configuration."
        ));
        let Some(counted) = Counted::of(rule, shared, row) else {
            let unknown = format!(
                "It counts by {}, which the log does not keep: what was counted is not known.",
                rule.key
            );
            let mut grounds = Grounds::words(admits, vec![exempt, change]);
            grounds.because.push(unknown);
            return Ok(grounds);
        };
        let window = self.window(rule, rate, admitted, &counted, row)?;
        let at_least = if window.is_partial { "at least " } else { "" };
        let did = format!(
            "In the {} before this one, {} had {at_least}{} served and {} refused.",
            time::in_words(rate.window()),
            whole(&counted, shared),
            number(window.served),
            number(window.refused)
        );
        let did = if window.served > u64::from(admitted) && shared.is_none() {
            format!(
                "{did} That is more than the rule says: verified users share the address, or the rule has changed."
            )
        } else {
            did
        };
        // Otherwise the gateway would have served it; one more or less is a matter of milliseconds.
        let is_other_rate = window.served + 1 < u64::from(admitted) && !window.is_partial;
        let lasts = window.room_at.map(|at| self.room(at));
        let (because, advice) = if is_other_rate {
            let misfit = "That does not fit: the gateway had another rate then, or runs with another configuration. \
                          Name its file with --config.";
            (vec![admits, did, misfit.to_owned()], vec![exempt])
        } else {
            (vec![admits, did], vec![exempt, change])
        };
        Ok(Grounds { because, evidence: Evidence::Limit(window), lasts, advice })
    }

    fn room(&self, at: UnixMs) -> String {
        if at <= self.context.now {
            format!("over since {}", self.context.time(at))
        } else {
            format!("until about {}, if nothing else comes from there", self.context.time(at))
        }
    }

    /// What was counted in the limit's window before this request, from the log.
    fn window(
        &self,
        rule: &LimitRule,
        rate: Rate,
        admitted: u32,
        counted: &Counted,
        row: &LogRow,
    ) -> anyhow::Result<LimitWindow> {
        let filter = LogFilter {
            network: counted.network(),
            since: Some(row.time().minus(rate.window())),
            until: Some(row.time().plus(Duration::from_millis(1))),
            ..LogFilter::default()
        };
        let mut rows = self.log.rows(&filter, MAX_WINDOW_ROWS)?;
        let is_partial = rows.len() >= MAX_WINDOW_ROWS;
        rows.retain(|other| other.id != row.id && counted.counts(rule, other));
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.time()));
        let refused = rows.iter().filter(|row| row.verdict == VerdictKind::Limited).count() as u64;
        // What an allow let in was not counted, and what a block refused did not get as far as the limit.
        rows.retain(|row| match row.verdict {
            VerdictKind::Admitted | VerdictKind::WouldBlock | VerdictKind::WouldLimit => true,
            VerdictKind::Allowed | VerdictKind::Blocked | VerdictKind::Limited | VerdictKind::Malformed => {
                false
            }
        });
        let served = rows.len() as u64;
        // The next one is admitted when of the last N the oldest leaves the window.
        let oldest = usize::try_from(admitted).ok().and_then(|n| rows.get(n.saturating_sub(1)));
        let room_at = oldest.map(|row| row.time().plus(rate.window()));
        rows.truncate(SHOWN);
        Ok(LimitWindow {
            rule: rule.name.to_string(),
            rate: rate.to_string(),
            client: counted.name(),
            served,
            refused,
            is_partial,
            latest: rows,
            room_at,
        })
    }
}

/// Nothing of the log tells which requests were under way at one moment.
fn at_once(rule: &LimitRule, exempt: Advice) -> Grounds {
    let admits = rule.concurrency.map_or_else(
        || "had a bound of requests under way, which the configuration does not have any more".to_owned(),
        |most| {
            let requests = count(u64::from(most), "request");
            format!(
                "lets {requests} of one {} be under way at once: {}",
                per(&rule.key),
                matched(&rule.applies_to)
            )
        },
    );
    let because = vec![
        format!("The limit \"{}\" {admits}.", rule.name),
        "As many were under way when this one came; a WebSocket counts as long as it is open.".to_owned(),
    ];
    let change = Advice::sentence(format!(
        "To change the limit, change concurrency of the [[limit]] named \"{}\" in the configuration.",
        rule.name
    ));
    let lasts = Some("until one of them ended".to_owned());
    Grounds { because, evidence: Evidence::None, lasts, advice: vec![exempt, change] }
}

/// Whose requests were counted, as the subject of a sentence.
fn whole(counted: &Counted, shared: Option<SharedPrefix>) -> String {
    match (counted, shared) {
        (Counted::Network { network, .. }, Some(_)) => {
            format!("{}, which has many clients or one who changes addresses,", bare(network))
        }
        (Counted::Network { network, .. }, None) if network.prefix_len() != network.max_prefix_len() => {
            format!("{}, whose addresses count as one client,", counted.name())
        }
        (Counted::Network { .. } | Counted::User(_), _) => counted.name(),
    }
}
