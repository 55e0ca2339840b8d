//! What a replay found, and how it is summed up. Plain data and sums; must not print.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use portcullis_detect::Observation;
use portcullis_model::{ClientIp, Finding, Severity, UnixMs, VerdictKind};
use serde::Serialize;

use super::budget::Figures;
use super::clients::{Clients, Looks, Refused, Tally};
use super::learn::Origin;
use crate::cli::iso;

/// Sums over all requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) malformed: u64,
    /// Requests by [`Refused`].
    pub(crate) refused: [u64; Refused::ALL.len()],
    /// Blocks that the detector would have made.
    pub(crate) blocks: u64,
    /// The furthest step of `block_for`.
    pub(crate) longest_step: usize,
    /// Findings about clients for which the list had no room.
    pub(crate) dropped_flags: u64,
    /// Records that were so late that their hour had been judged.
    pub(crate) late: u64,
}

impl Totals {
    pub(super) fn count(&mut self, seen: &Observation<'_>) {
        self.requests += 1;
        self.malformed += u64::from(seen.verdict == VerdictKind::Malformed);
    }

    pub(crate) fn refused_requests(&self) -> u64 {
        self.refused.iter().sum()
    }
}

/// Somebody whom the detector found.
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    pub(crate) client: ClientIp,
    first: UnixMs,
    severity: Severity,
    /// When each severity was reached, and after how many requests.
    reached: [Option<(UnixMs, u64)>; Severity::ALL.len()],
    reasons: Vec<String>,
    says: String,
    /// Blocks that would have been made.
    pub(crate) blocks: u32,
    /// The first one: when it begins and ends.
    pub(crate) first_block: Option<(UnixMs, Option<UnixMs>)>,
    pub(crate) spared: Option<&'static str>,
}

impl Flag {
    pub(super) fn new(client: ClientIp, first: UnixMs) -> Self {
        Self {
            client,
            first,
            severity: Severity::Low,
            reached: [None; Severity::ALL.len()],
            reasons: Vec::new(),
            says: String::new(),
            blocks: 0,
            first_block: None,
            spared: None,
        }
    }

    /// `before` requests of the client came before the one that gave it away.
    pub(super) fn add(&mut self, finding: &Finding, before: u64, max_reasons: usize) {
        let is_worse = self.says.is_empty() || finding.severity > self.severity;
        self.severity = self.severity.max(finding.severity);
        self.reached[finding.severity as usize].get_or_insert((finding.detected_at, before));
        if is_worse {
            self.says = finding.details["summary"].as_str().unwrap_or_default().to_owned();
        }
        let rules = finding.details["rules"].as_array();
        let names = rules.into_iter().flatten().filter_map(|rule| rule["rule"].as_str());
        let mut new: Vec<String> = Vec::new();
        for name in std::iter::once(finding.reason.as_str()).chain(names) {
            if !self.reasons.iter().chain(&new).any(|known| known == name) {
                new.push(name.to_owned());
            }
        }
        // The strongest rule of the worst finding comes first.
        let at = if is_worse { 0 } else { self.reasons.len() };
        self.reasons.splice(at..at, new);
        self.reasons.truncate(max_reasons);
    }

    /// When it was at least so severe for the first time.
    fn reached(&self, least: Severity) -> Option<(UnixMs, u64)> {
        self.reached[least as usize..].iter().flatten().min().copied()
    }
}

/// One line of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Flagged {
    pub(crate) ip: ClientIp,
    pub(crate) severity: Severity,
    pub(crate) would_block: bool,
    pub(crate) reasons: Vec<String>,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) first_request_at: UnixMs,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) flagged_at: UnixMs,
    pub(crate) requests_before_flag: u64,
    pub(crate) requests: u64,
    pub(crate) forest_score: Option<f64>,
    #[serde(skip)]
    pub(crate) says: String,
    #[serde(skip)]
    pub(crate) looks: Looks,
    #[serde(skip)]
    pub(crate) refused_requests: u64,
    #[serde(skip)]
    pub(crate) first_block: Option<(UnixMs, Option<UnixMs>)>,
    #[serde(skip)]
    pub(crate) blocks: u32,
    #[serde(skip)]
    pub(crate) spared: Option<&'static str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it in like this")]
fn rfc3339<S: serde::Serializer>(at: &UnixMs, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&iso(*at))
}

/// All that one policy would have done.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Of the policy.
    pub(crate) name: String,
    pub(crate) totals: Totals,
    pub(crate) clients: Clients,
    pub(super) flags: HashMap<(IpAddr, Option<String>), Flag>,
    /// Requests by the rule that met them; those of the detector's blocks are not among them.
    pub(crate) rules: BTreeMap<String, u64>,
    pub(crate) model: Origin,
    pub(crate) model_id: Option<String>,
    /// The times of the first request and the latest one.
    pub(crate) span: Option<(UnixMs, UnixMs)>,
    /// Whether the detector blocks anybody at all.
    pub(crate) blocks: bool,
}

impl Outcome {
    /// Clients that reach the severity: the most severe first, then in the order in which they did.
    pub(crate) fn flagged(&self, least: Severity) -> Vec<Flagged> {
        let mut all: Vec<Flagged> =
            self.flags.values().filter_map(|flag| self.as_flagged(flag, least)).collect();
        all.sort_by(|a, b| {
            (b.severity, a.flagged_at, a.ip, &a.says).cmp(&(a.severity, b.flagged_at, b.ip, &b.says))
        });
        all
    }

    fn as_flagged(&self, flag: &Flag, least: Severity) -> Option<Flagged> {
        let (flagged_at, requests_before_flag) = flag.reached(least)?;
        let tally = self.clients.get(flag.client);
        Some(Flagged {
            ip: flag.client,
            severity: flag.severity,
            would_block: flag.blocks > 0,
            reasons: flag.reasons.clone(),
            first_request_at: flag.first,
            flagged_at,
            requests_before_flag,
            requests: tally.map_or(requests_before_flag, |tally| u64::from(tally.requests)),
            forest_score: tally.and_then(Tally::score).map(|score| (score * 1e4).round() / 1e4),
            says: flag.says.clone(),
            looks: tally.map_or(Looks::Unknown, Tally::looks),
            refused_requests: tally.map_or(0, Tally::refused_requests),
            first_block: flag.first_block,
            blocks: flag.blocks,
            spared: flag.spared,
        })
    }

    /// Clients that look innocent and would have been refused something, the most refused first.
    pub(crate) fn innocent_and_refused(&self) -> Vec<&Tally> {
        let mut all: Vec<&Tally> = self
            .clients
            .iter()
            .filter(|tally| tally.looks() != Looks::Unknown && tally.refused_requests() > 0)
            .collect();
        all.sort_by_key(|tally| (std::cmp::Reverse(tally.refused_requests()), tally.address));
        all
    }

    /// What budgets are about.
    pub(crate) fn figures(&self, flagged: &[Flagged], bad_lines: u64) -> Figures {
        let mut figures = Figures::default();
        let count = |test: &dyn Fn(&Tally) -> bool| self.clients.iter().filter(|t| test(t)).count() as u64;
        let flags = |test: &dyn Fn(&Flagged) -> bool| flagged.iter().filter(|f| test(f)).count() as u64;
        let is_human = |tally: &Tally| tally.looks() == Looks::Human;
        let is_bot = |tally: &Tally| tally.looks() == Looks::VerifiedBot;
        let by = |tally: &Tally, why: Refused| tally.refused_by(why) > 0;
        let is_refused = |tally: &Tally| tally.refused_requests() > 0;
        let values = [
            ("requests", self.totals.requests),
            ("clients", self.clients.len() as u64),
            ("bad_lines", bad_lines),
            ("flagged", flagged.len() as u64),
            ("blocked", flags(&|f| f.would_block)),
            ("listed", count(&|t| by(t, Refused::Listed))),
            ("denied", count(&|t| by(t, Refused::Denied))),
            ("limited", count(&|t| by(t, Refused::Limited))),
            ("refused", count(&is_refused)),
            ("requests_refused", self.totals.refused_requests()),
            ("humans", count(&is_human)),
            ("humans_flagged", flags(&|f| f.looks == Looks::Human)),
            ("humans_blocked", flags(&|f| f.looks == Looks::Human && f.would_block)),
            ("humans_limited", count(&|t| is_human(t) && by(t, Refused::Limited))),
            ("humans_refused", count(&|t| is_human(t) && is_refused(t))),
            ("bots", count(&is_bot)),
            ("bots_flagged", flags(&|f| f.looks == Looks::VerifiedBot)),
            ("bots_refused", count(&|t| is_bot(t) && is_refused(t))),
        ];
        for (name, value) in values {
            figures.set(name, value);
        }
        figures
    }
}

/// The most memory that this process has had so far, in bytes; `None` where the system does not say.
pub(crate) fn memory_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}
