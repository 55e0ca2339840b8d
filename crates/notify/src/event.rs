//! What can happen that a person should hear of. A closed set: each kind can be switched off by itself.
//! Must not hold more of what strangers chose than a line or two.

use std::fmt;
use std::str::FromStr;

use portcullis_model::{ClientIp, Severity};
use serde::{Deserialize, Serialize};

use crate::escape::line;
use crate::words::{bytes, count};

/// The longest title and text of an event, in characters.
const MAX_TITLE: usize = 160;
const MAX_TEXT: usize = 400;
/// The longest name of whom an event is about, in characters: no user's name is cut, or it could not be erased later.
const MAX_NAME: usize = 140;

/// Something that happened once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The detector found a client for the first time, or found it to be worse.
    Finding {
        /// Its number in the database.
        id: i64,
        client: ClientIp,
        /// The verified user on it who did this.
        user: Option<String>,
        severity: Severity,
        /// The strongest rule.
        rule: String,
        /// What the finding says, in a sentence.
        says: String,
        requests: u64,
    },
    /// The detector blocked.
    AutoBlock {
        /// An address, a prefix, a user, or the anonymous clients of an address.
        whom: String,
        reason: String,
        /// What follows `portcullis unblock` to lift it.
        unblock: String,
    },
    /// Rows of the log were lost.
    LogLoss {
        rows: u64,
        /// The log cannot be written at the moment.
        is_failing: bool,
    },
    /// The disk of the data folder is nearly full.
    DiskPressure { free: u64, total: u64 },
    /// A feed of addresses could not be read.
    FeedFailure { feed: String, problem: String },
    /// Somebody tries whether messages arrive.
    Test,
}

/// Which kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Finding,
    AutoBlock,
    LogLoss,
    DiskPressure,
    FeedFailure,
    Test,
}

impl EventKind {
    pub const ALL: [Self; 6] =
        [Self::Finding, Self::AutoBlock, Self::LogLoss, Self::DiskPressure, Self::FeedFailure, Self::Test];

    /// The word that the database, JSON and the metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finding => "finding",
            Self::AutoBlock => "auto_block",
            Self::LogLoss => "log_loss",
            Self::DiskPressure => "disk_pressure",
            Self::FeedFailure => "feed_failure",
            Self::Test => "test",
        }
    }

    /// What so many of them are called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Finding => "finding",
            Self::AutoBlock => "block",
            Self::LogLoss => "loss of log row",
            Self::DiskPressure => "full disk",
            Self::FeedFailure => "failure of feed",
            Self::Test => "test",
        }
    }

    /// `3 findings`, `1 loss of log rows`.
    pub fn counted(self, n: u64) -> String {
        match self {
            Self::Finding | Self::AutoBlock | Self::Test => count(n, self.noun()),
            Self::LogLoss if n == 1 => "1 loss of log rows".to_owned(),
            Self::LogLoss => format!("{} losses of log rows", crate::words::number(n)),
            Self::DiskPressure if n == 1 => "1 warning of a full disk".to_owned(),
            Self::DiskPressure => format!("{} warnings of a full disk", crate::words::number(n)),
            Self::FeedFailure if n == 1 => "1 failed feed".to_owned(),
            Self::FeedFailure => format!("{} failed feeds", crate::words::number(n)),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("unknown kind of event {text:?}"))
    }
}

impl Event {
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Finding { .. } => EventKind::Finding,
            Self::AutoBlock { .. } => EventKind::AutoBlock,
            Self::LogLoss { .. } => EventKind::LogLoss,
            Self::DiskPressure { .. } => EventKind::DiskPressure,
            Self::FeedFailure { .. } => EventKind::FeedFailure,
            Self::Test => EventKind::Test,
        }
    }

    pub fn severity(&self) -> Severity {
        match self {
            Self::Finding { severity, .. } => *severity,
            Self::AutoBlock { .. } | Self::DiskPressure { .. } | Self::LogLoss { is_failing: false, .. } => {
                Severity::High
            }
            Self::LogLoss { is_failing: true, .. } => Severity::Critical,
            Self::FeedFailure { .. } => Severity::Medium,
            Self::Test => Severity::Low,
        }
    }

    /// The client or the network that it is about.
    pub fn client(&self) -> Option<String> {
        match self {
            Self::Finding { client, user: None, .. } => Some(client.to_string()),
            Self::Finding { user: Some(user), .. } => Some(line(&format!("user {user}"), MAX_NAME)),
            Self::AutoBlock { whom, .. } => Some(line(whom, MAX_NAME)),
            Self::LogLoss { .. } | Self::DiskPressure { .. } | Self::FeedFailure { .. } | Self::Test => None,
        }
    }

    /// What happened, in one harmless line.
    pub fn title(&self) -> String {
        let title = match self {
            Self::Finding { client, user: None, severity, rule, .. } => {
                format!("{client} is suspicious ({severity}: {rule})")
            }
            Self::Finding { client, user: Some(user), severity, rule, .. } => {
                format!("user {user} on {client} is suspicious ({severity}: {rule})")
            }
            Self::AutoBlock { whom, .. } => format!("{whom} was blocked"),
            Self::LogLoss { rows: 0, .. } => "the log cannot be written".to_owned(),
            Self::LogLoss { rows, .. } => format!("{} of the log lost", count(*rows, "row")),
            Self::DiskPressure { free, total } => {
                format!("{} of {} are free on the disk of the data folder", bytes(*free), bytes(*total))
            }
            Self::FeedFailure { feed, .. } => format!("the feed {feed} could not be read"),
            Self::Test => "this is a test".to_owned(),
        };
        line(&title, MAX_TITLE)
    }

    /// More about it, in one harmless line, and what to do.
    pub fn text(&self) -> String {
        let text = match self {
            Self::Finding { id, says, requests, .. } => {
                format!("{says}; {}. Evidence: portcullis suspicious {id}", count(*requests, "request"))
            }
            Self::AutoBlock { reason, unblock, .. } => {
                format!("{reason}. To lift it: portcullis unblock {unblock}")
            }
            Self::LogLoss { is_failing: true, .. } => {
                "The log cannot be written at the moment; traffic flows. Look at the disk of the data folder."
                    .to_owned()
            }
            Self::LogLoss { is_failing: false, .. } => {
                "The disk was too slow for the traffic, or failed for a while. portcullis doctor says more."
                    .to_owned()
            }
            Self::DiskPressure { .. } => {
                "Make room, or keep less of the log: log.max_size and log.retention.".to_owned()
            }
            Self::FeedFailure { problem, .. } => format!("{problem}. The last good copy stays in force."),
            Self::Test => {
                "Somebody ran \"portcullis alerts test\". Alerts of this gateway arrive here.".to_owned()
            }
        };
        line(&text, MAX_TEXT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_and_texts_of_hostile_events_are_one_short_line() {
        let event = Event::Finding {
            id: 7,
            client: "203.0.113.9".parse().unwrap(),
            user: None,
            severity: Severity::Critical,
            rule: "x\r\nBcc: a@b".to_owned(),
            says: format!("asked for {}", "/\u{1b}[2J\n".repeat(1_000)),
            requests: 3,
        };
        for text in [event.title(), event.text()] {
            assert!(!text.contains(['\n', '\r', '\u{1b}']), "{text}");
            assert!(text.chars().count() <= MAX_TEXT + 1, "{text}");
        }
        assert!(event.title().starts_with("203.0.113.9 is suspicious (critical: x\\r\\n"));
    }

    #[test]
    fn a_verified_user_is_named_and_cannot_break_the_line() {
        let event = Event::Finding {
            id: 7,
            client: "203.0.113.9".parse().unwrap(),
            user: Some("mallory\r\n".to_owned()),
            severity: Severity::High,
            rule: "login_failures".to_owned(),
            says: String::new(),
            requests: 3,
        };
        assert_eq!(event.client().as_deref(), Some("user mallory\\r\\n"));
        assert!(
            event.title().starts_with("user mallory\\r\\n on 203.0.113.9 is suspicious"),
            "{}",
            event.title()
        );
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
