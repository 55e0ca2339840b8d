//! What is told, to whom, and how often at most. Plain data with defaults; everything is off without a channel.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lettre::message::Mailbox;
use portcullis_model::{Secret, Severity};

use crate::EventKind;

/// `[alerts]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Findings from this severity on; `None` is none.
    pub findings: Option<Severity>,
    /// Blocks that the detector adds.
    pub auto_blocks: bool,
    pub log_loss: bool,
    pub disk_pressure: bool,
    pub feed_failures: bool,
    /// Free bytes on the disk of the data folder below which that is told.
    pub min_free: u64,
    /// How long events are gathered before a message about them goes out.
    pub gather: Duration,
    /// Messages about events on each channel in any hour, at least 1.
    pub max_per_hour: u32,
    /// What messages call this gateway; empty is the machine's name.
    pub name: String,
    pub smtp: Option<Smtp>,
    /// Each with a name of its own.
    pub webhooks: Vec<Webhook>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            findings: Some(Severity::Critical),
            auto_blocks: true,
            log_loss: true,
            disk_pressure: true,
            feed_failures: true,
            min_free: 512 << 20,
            gather: Duration::from_secs(30),
            max_per_hour: 12,
            name: String::new(),
            smtp: None,
            webhooks: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether there is anybody to tell.
    pub fn has_channels(&self) -> bool {
        self.smtp.is_some() || !self.webhooks.is_empty()
    }

    /// Whether events of this kind are told to anybody.
    pub fn wants(&self, kind: EventKind) -> bool {
        let is_on = match kind {
            EventKind::Finding => self.findings.is_some(),
            EventKind::AutoBlock => self.auto_blocks,
            EventKind::LogLoss => self.log_loss,
            EventKind::DiskPressure => self.disk_pressure,
            EventKind::FeedFailure => self.feed_failures,
            EventKind::Test => true,
        };
        is_on && self.has_channels()
    }
}

/// Where mails are handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// A name or an address.
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    /// User name and password; `None` does not log in.
    pub login: Option<(String, Secret)>,
    pub from: Address,
    /// At least one.
    pub to: Vec<Address>,
    /// PEM certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// For connecting, and for each answer of the server.
    pub timeout: Duration,
}

/// How the connection to the mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmtpTls {
    /// Plain at first, then TLS, or nothing is sent (RFC 3207).
    #[default]
    StartTls,
    /// The same where the server offers it; whoever is in between can take the offer away.
    StartTlsOptional,
    /// TLS from the first byte (RFC 8314).
    Tls,
    None,
}

impl SmtpTls {
    pub const ALL: [Self; 4] = [Self::StartTls, Self::StartTlsOptional, Self::Tls, Self::None];

    /// The word that the file uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::StartTlsOptional => "starttls-optional",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }

    /// Whether mails and passwords may be sent readable by whoever is in between.
    pub fn may_be_plain(self) -> bool {
        match self {
            Self::StartTls | Self::Tls => false,
            Self::StartTlsOptional | Self::None => true,
        }
    }

    /// The port that belongs to it.
    pub fn default_port(self) -> u16 {
        match self {
            Self::StartTls | Self::StartTlsOptional => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// A mail address, with or without the name of a person: `Gateway <gateway@example.com>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub(crate) Mailbox);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            "expected a mail address such as \"admin@example.com\" or \"Gateway <gateway@example.com>\""
                .to_owned()
        };
        if text.chars().any(char::is_control) {
            return Err(wrong());
        }
        text.trim().parse().map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A URL that messages are posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub name: String,
    /// Those of chats are secrets: whoever knows one may write there.
    pub url: Secret,
    pub kind: WebhookKind,
    /// Signs each message, so that the receiver knows who sent it.
    pub secret: Option<Secret>,
    pub headers: Vec<(String, Secret)>,
    /// PEM certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

/// What the receiver understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebhookKind {
    /// Everything that is known, for programs.
    #[default]
    Json,
    /// Incoming webhooks of Slack, and of Mattermost and Rocket.Chat, which understand the same.
    Slack,
    Discord,
}

impl WebhookKind {
    pub const ALL: [Self; 3] = [Self::Json, Self::Slack, Self::Discord];

    /// The word that the file uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Slack => "slack",
            Self::Discord => "discord",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_cannot_smuggle_lines_into_the_header() {
        for good in ["a@example.com", "Gate Way <a@example.com>", " a@example.com "] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        for bad in ["", "a", "a@", "a@b\r\nBcc: c@d", "Gate\nWay <a@example.com>", "<a@b", "a@b, c@d"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nothing_is_told_without_a_channel() {
        let settings = Settings::default();
        assert!(!settings.wants(EventKind::Test) && !settings.wants(EventKind::AutoBlock));
    }
}
