//! Why a message did not get through, one sentence each, with the remedy where there is one.
//! Must not hold a password, nor the path of a URL: those of chats are secrets.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Every failure of this crate. `place` is HOST:PORT of a mail server or the name of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotifyError {
    #[error("cannot use the certificates in {}: {problem}", path.display())]
    Certificates { path: PathBuf, problem: String },

    #[error("the mail cannot be written: {problem}")]
    Message { problem: String },

    #[error("cannot reach the mail server {place}: {problem}; check alerts.smtp.host and port")]
    Unreachable { place: String, problem: String },

    #[error("the mail server {place} did not answer in time")]
    Timeout { place: String },

    #[error(
        "the mail server {place} offers no STARTTLS; alerts.smtp.tls = \"tls\" is for servers that begin with TLS"
    )]
    NoStartTls { place: String },

    #[error("TLS with the mail server {place} failed: {problem}; check alerts.smtp.host, port, tls and ca")]
    Tls { place: String, problem: String },

    #[error(
        "the mail server {place} does not let {user} log in: {said}; check alerts.smtp.username and password"
    )]
    Login { place: String, user: String, said: String },

    #[error("the mail server {place} offers no way to log in that is known here (PLAIN, LOGIN)")]
    NoLogin { place: String },

    #[error("the mail server {place} refused the mail: {said}")]
    Refused {
        place: String,
        said: String,
        /// Trying the same again makes no sense to the server.
        is_permanent: bool,
    },

    #[error("the mail server {place} does not speak SMTP as it should: {problem}")]
    Protocol { place: String, problem: String },

    #[error("the connection to the mail server {place} broke: {problem}")]
    Broken { place: String, problem: String },

    #[error("the webhook {place}: {problem}")]
    Webhook { place: String, problem: String, may_have_arrived: bool },

    #[error("the webhook {place} answered {status}{}", retry_in_words(*retry_after))]
    Status { place: String, status: u16, retry_after: Option<Duration> },
}

impl NotifyError {
    /// Whether it is this very message that was refused, for good.
    pub fn is_about_the_message(&self) -> bool {
        match self {
            Self::Refused { is_permanent, .. } => *is_permanent,
            Self::Status { status, .. } => matches!(status, 400 | 413 | 422),
            Self::Message { .. } => true,
            Self::Certificates { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::NoStartTls { .. }
            | Self::Tls { .. }
            | Self::Login { .. }
            | Self::NoLogin { .. }
            | Self::Protocol { .. }
            | Self::Broken { .. }
            | Self::Webhook { .. } => false,
        }
    }

    /// Whether the message may have arrived all the same: the answer to it is missing.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Broken { .. } => true,
            Self::Webhook { may_have_arrived, .. } => *may_have_arrived,
            Self::Certificates { .. }
            | Self::Message { .. }
            | Self::Unreachable { .. }
            | Self::NoStartTls { .. }
            | Self::Tls { .. }
            | Self::Login { .. }
            | Self::NoLogin { .. }
            | Self::Refused { .. }
            | Self::Protocol { .. }
            | Self::Status { .. } => false,
        }
    }

    /// How long the receiver wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Certificates { .. }
            | Self::Message { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::NoStartTls { .. }
            | Self::Tls { .. }
            | Self::Login { .. }
            | Self::NoLogin { .. }
            | Self::Refused { .. }
            | Self::Protocol { .. }
            | Self::Broken { .. }
            | Self::Webhook { .. } => None,
        }
    }
}

fn retry_in_words(after: Option<Duration>) -> String {
    after.map(|after| format!(", to be tried again in {} s", after.as_secs())).unwrap_or_default()
}
