//! What the detector says about a client.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ClientIp, UnixMs};

/// How sure the evidence makes us that the client is hostile. Ordered: `Low < Critical`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// From the least to the most severe.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The word that the configuration, the database and the metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// The text names no severity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSeverity(pub String);

impl FromStr for Severity {
    type Err = UnknownSeverity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| UnknownSeverity(text.to_owned()))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for UnknownSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected low, medium, high or critical, got {:?}", self.0)
    }
}

impl std::error::Error for UnknownSeverity {}

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingStatus {
    /// Nobody has looked at it.
    Open,
    /// A person agreed.
    Confirmed,
    /// A person disagreed.
    Dismissed,
}

impl FindingStatus {
    /// The word that the database and the commands use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Confirmed => "confirmed",
            Self::Dismissed => "dismissed",
        }
    }
}

impl FromStr for FindingStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "open" => Ok(Self::Open),
            "confirmed" => Ok(Self::Confirmed),
            "dismissed" => Ok(Self::Dismissed),
            _ => Err(format!("unknown finding status {text:?}")),
        }
    }
}

/// A suspicious client, with everything that a person needs to judge it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub client: ClientIp,
    /// The verified user on it who did this, by [`crate::Identity::name`]; `None`: whoever on it is none, or the
    /// address as a whole where nobody is verified.
    #[serde(default)]
    pub user: Option<String>,
    /// The name of the strongest rule; `details` lists all of them.
    pub reason: String,
    pub severity: Severity,
    /// The client's requests in the window.
    pub request_count: u64,
    /// The first and the last of these requests.
    pub first_seen: UnixMs,
    pub last_seen: UnixMs,
    pub detected_at: UnixMs,
    /// `{"summary": "...", "rules": [{"rule", "severity", "says", "evidence": {...}, "samples": [...]}],
    /// "features": {...}, "forest": {...} | null}`.
    pub details: serde_json::Value,
}
