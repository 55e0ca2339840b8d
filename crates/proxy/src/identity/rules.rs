//! `[identity]` as the request path needs it: built once per reload, then read only.

use std::sync::Arc;

use http::HeaderName;
use portcullis_config::{
    Identity as Settings, KeySetSettings, KeySetSource, LoginSettings, SessionSettings, TokenSettings,
    TokenSource,
};
use portcullis_identity::{Step, Verifier};

use crate::EdgeError;

/// How identities are found and learned.
pub(crate) struct IdentityRules {
    pub(super) tokens: Option<Tokens>,
    pub(super) sessions: Option<SessionSettings>,
    pub(super) logins: LoginSettings,
    pub(super) user_header: Option<HeaderName>,
    pub(super) roles_header: Option<HeaderName>,
}

pub(super) struct Tokens {
    pub(super) sources: Vec<Source>,
    pub(super) verifier: Arc<Verifier>,
    key_source: Option<KeySetSource>,
}

/// Where a token may be.
pub(super) enum Source {
    Authorization,
    Header(HeaderName),
    Cookie(Box<[u8]>),
}

impl IdentityRules {
    /// `None` when there is nothing to do. What `previous` has verified is kept where the same is asked for.
    pub(crate) fn build(settings: &Settings, previous: Option<&Self>) -> Result<Option<Self>, EdgeError> {
        if settings.is_off() {
            return Ok(None);
        }
        let held = previous.and_then(|rules| rules.tokens.as_ref());
        let header = |name: &Option<String>| name.as_ref().and_then(|name| name.parse().ok());
        Ok(Some(Self {
            tokens: settings.tokens.as_ref().map(|tokens| Tokens::build(tokens, held)).transpose()?,
            sessions: settings.sessions.clone(),
            logins: settings.logins.clone(),
            user_header: header(&settings.user_header),
            roles_header: header(&settings.roles_header),
        }))
    }

    /// Whether anybody can become a verified user: paths of logins alone make none.
    pub(crate) fn knows_users(&self) -> bool {
        self.tokens.is_some() || self.sessions.is_some()
    }

    /// Whether a request may cost a signature.
    pub(crate) fn verifies_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Verifies the tokens, if there is anything to verify them with.
    pub(crate) fn verifier(&self) -> Option<&Arc<Verifier>> {
        self.tokens.as_ref().map(|tokens| &tokens.verifier)
    }

    /// What a request with this method and this normal path is for.
    pub(super) fn step(&self, method: &http::Method, path: &str) -> Step {
        if *method == http::Method::POST && self.is_login_path(path) {
            Step::Login
        } else if self.sessions.is_some() && self.logins.logout_paths.iter().any(|p| p.matches(path)) {
            Step::Logout
        } else {
            Step::Visit
        }
    }

    pub(super) fn is_login_path(&self, path: &str) -> bool {
        self.logins.paths.iter().any(|pattern| pattern.matches(path))
    }
}

impl Tokens {
    fn build(settings: &TokenSettings, held: Option<&Self>) -> Result<Self, EdgeError> {
        let source = |source: &TokenSource| match source {
            TokenSource::Authorization => Some(Source::Authorization),
            TokenSource::Header(name) => name.parse().ok().map(Source::Header),
            TokenSource::Cookie(name) => Some(Source::Cookie(name.as_bytes().into())),
        };
        let source_of = |key_set: &Option<KeySetSettings>| key_set.as_ref().map(|set| set.source.clone());
        let key_source = source_of(&settings.key_set);
        let same_keys = held.filter(|held| held.key_source == key_source);
        let verifier = match same_keys {
            Some(held) if *held.verifier.rules() == settings.rules => Arc::clone(&held.verifier),
            held => {
                let new = Verifier::new(settings.rules.clone())?;
                if let Some(held) = held {
                    new.publish(held.verifier.published());
                }
                Arc::new(new)
            }
        };
        let sources = settings.sources.iter().filter_map(source).collect();
        Ok(Self { sources, verifier, key_source })
    }
}
