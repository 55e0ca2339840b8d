//! `[identity]`, validated: how the gateway knows who a request is from. Plain data.
//! Must not read files or know TOML.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_identity::{SessionRules, TokenRules};
use portcullis_policy::PathPattern;

/// The default knows nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// JWTs; `None` is off.
    pub tokens: Option<TokenSettings>,
    /// Sessions that the upstream was seen to issue; `None` is off.
    pub sessions: Option<SessionSettings>,
    pub logins: LoginSettings,
    /// The header of an answer that names the user, lower case. The client never sees it.
    pub user_header: Option<String>,
    /// The header of an answer with the user's roles, lower case. The client never sees it.
    pub roles_header: Option<String>,
}

impl Identity {
    /// Whether nothing has to be done for it.
    pub fn is_off(&self) -> bool {
        self.tokens.is_none()
            && self.sessions.is_none()
            && self.logins.paths.is_empty()
            && self.user_header.is_none()
            && self.roles_header.is_none()
    }
}

/// Which tokens are believed, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// At least one; the first that a request has counts.
    pub sources: Vec<TokenSource>,
    pub rules: TokenRules,
    /// Where keys are published; `None`: those of the configuration are all.
    pub key_set: Option<KeySetSettings>,
}

/// Where a request has its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer TOKEN`
    Authorization,
    /// The whole value of this header, lower case; a `Bearer` before it is left out.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
}

/// A published key set (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetSettings {
    pub source: KeySetSource,
    /// PEM certificates that are trusted besides the system's when it is fetched.
    pub ca: Option<PathBuf>,
    /// From one fetch to the next.
    pub refresh: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetSource {
    /// Changes are noticed.
    File(PathBuf),
    Url(String),
}

/// The cookie of observed sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    pub cookie: String,
    pub rules: SessionRules,
}

/// How a login is recognised. Without paths no login is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginSettings {
    pub paths: Vec<PathPattern>,
    pub logout_paths: Vec<PathPattern>,
    /// Statuses that may be those of a success, ascending.
    pub success: Vec<RangeInclusive<u16>>,
    /// Statuses of a failure, ascending.
    pub failure: Vec<RangeInclusive<u16>>,
    /// What the body of an answer holds when the login failed.
    pub failure_text: Option<String>,
}
