//! The table of rules. A rule reads one client's window and says what it saw; it owns its thresholds and
//! its sentence, and must not know of other rules.

mod error_rate;
mod false_bot;
mod high_frequency;
mod login_campaign;
mod login_failures;
mod malformed_requests;
mod path_probing;
mod scanner_user_agent;
mod script_guessing;
mod sensitive_files;
mod sensitive_paths;
mod site_spike;
mod slow_probing;
mod spike;
mod swarm;

use portcullis_model::Severity;
use serde_json::Value;

use crate::client::{Client, SampleKind};
use crate::scenarios::SCENARIOS;
use crate::signatures::Signatures;
use crate::together::Around;
use crate::{Knowledge, Settings};

/// The name under which the forest's opinion appears among the rules.
pub(crate) const FOREST: &str = "forest";

/// What kind of thing a rule looks at. Two rules of one kind are no independent evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// How much: never more than medium, whatever else is much.
    Volume,
    /// Answers of the 4xx class.
    Errors,
    /// Which configured paths were touched.
    Paths,
    /// What was asked for is what attacks ask for.
    Signatures,
    /// Passwords that are tried.
    Logins,
    /// The program's own name.
    Agent,
    /// As whom it came.
    Identity,
    /// What its neighbours do.
    Company,
    /// The forest.
    Statistics,
}

impl Evidence {
    /// In the order of declaration.
    pub const ALL: [Self; 9] = [
        Self::Volume,
        Self::Errors,
        Self::Paths,
        Self::Signatures,
        Self::Logins,
        Self::Agent,
        Self::Identity,
        Self::Company,
        Self::Statistics,
    ];

    /// The word that the configuration uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Errors => "errors",
            Self::Paths => "paths",
            Self::Signatures => "signatures",
            Self::Logins => "logins",
            Self::Agent => "agent",
            Self::Identity => "identity",
            Self::Company => "company",
            Self::Statistics => "statistics",
        }
    }
}

/// What a rule says about a client.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hit {
    pub(crate) severity: Severity,
    /// A clause with the numbers, whose subject is the client.
    pub(crate) says: String,
    pub(crate) evidence: Value,
    pub(crate) samples: Option<SampleKind>,
}

/// What rules may look at besides the client.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) signatures: &'a Signatures,
    pub(crate) knowledge: &'a Knowledge,
    pub(crate) neighbours: Neighbours,
    /// What other addresses did; nothing before a window is over.
    pub(crate) around: Option<&'a Around>,
}

impl Context<'_> {
    /// Whether what was found is to be blocked.
    pub(crate) fn is_bad(&self, severity: Option<Severity>) -> bool {
        self.settings.block_severity.is_some_and(|least| severity >= Some(least))
    }
}

/// The verified users with whom a client shares its address, those left out who are bad themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Neighbours {
    pub(crate) users: u32,
    /// Of one user agent that none of them uses: logins that failed or met a limit.
    pub(crate) strange_logins: u32,
}

/// Verified users that raise what one address may do, at most: as much as so many addresses with one user each.
const MAX_USERS: u32 = 64;
/// The same for failed logins: users mistype them seldom, and here it is that a crowd would hide an attacker.
const MAX_USERS_FOR_LOGINS: u32 = 4;

impl Neighbours {
    /// What an address with so many users may do of what one user may do so often.
    pub(crate) fn raise(self, threshold: u32) -> u32 {
        threshold.saturating_mul(self.users.clamp(1, MAX_USERS))
    }

    /// The same for failed logins.
    pub(crate) fn raise_for_logins(self, threshold: u32) -> u32 {
        threshold.saturating_mul(self.users.clamp(1, MAX_USERS_FOR_LOGINS))
    }
}

/// One line of the table.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) evidence: Evidence,
    pub(crate) check: fn(&Client, &Context<'_>) -> Option<Hit>,
}

/// All rules; among equally severe ones the first names the finding.
pub(crate) const RULES: &[Rule] = &[
    Rule { name: "sensitive_files", evidence: Evidence::Signatures, check: sensitive_files::check },
    Rule { name: "scanner_user_agent", evidence: Evidence::Agent, check: scanner_user_agent::check },
    Rule { name: "false_bot", evidence: Evidence::Identity, check: false_bot::check },
    Rule { name: "login_failures", evidence: Evidence::Logins, check: login_failures::check },
    Rule { name: "login_campaign", evidence: Evidence::Logins, check: login_campaign::check },
    Rule { name: "script_guessing", evidence: Evidence::Errors, check: script_guessing::check },
    Rule { name: "path_probing", evidence: Evidence::Errors, check: path_probing::check },
    Rule { name: "slow_probing", evidence: Evidence::Errors, check: slow_probing::check },
    Rule { name: "swarm", evidence: Evidence::Company, check: swarm::check },
    Rule { name: "malformed_requests", evidence: Evidence::Errors, check: malformed_requests::check },
    Rule { name: "error_rate", evidence: Evidence::Errors, check: error_rate::check },
    Rule { name: "sensitive_paths", evidence: Evidence::Paths, check: sensitive_paths::check },
    Rule { name: "high_frequency", evidence: Evidence::Volume, check: high_frequency::check },
    Rule { name: "site_spike", evidence: Evidence::Volume, check: site_spike::check },
    Rule { name: "spike", evidence: Evidence::Volume, check: spike::check },
];

/// The names that findings can have as their reason, the forest's included.
pub fn rule_names() -> impl Iterator<Item = &'static str> {
    let scenarios = SCENARIOS.iter().map(|scenario| scenario.name);
    RULES.iter().map(|rule| rule.name).chain(scenarios).chain([FOREST])
}

/// What kind of evidence the rule of this name looks at.
pub(crate) fn evidence_of(rule: &str) -> Option<Evidence> {
    let of_rules = RULES.iter().map(|known| (known.name, known.evidence));
    let of_scenarios = SCENARIOS.iter().map(|known| (known.name, known.evidence));
    let mut all = of_rules.chain(of_scenarios).chain([(FOREST, Evidence::Statistics)]);
    all.find(|(name, _)| *name == rule).map(|(_, evidence)| evidence)
}

/// Whether a dismissal for a path changes anything for the rule: whether it counts requests for paths, not how many there
/// were or who came.
pub fn may_be_dismissed_by_path(rule: &str) -> bool {
    SCENARIOS.iter().any(|scenario| scenario.name == rule)
        || matches!(
            rule,
            "sensitive_files" | "path_probing" | "error_rate" | "sensitive_paths" | "login_failures"
        )
}

/// A share as people write it: `94 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A share as evidence keeps it: three decimals.
pub(crate) fn rounded(share: f64) -> f64 {
    (share * 1_000.0).round() / 1_000.0
}
