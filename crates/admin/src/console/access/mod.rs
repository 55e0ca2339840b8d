//! Who may use the console and the API: signing in, sessions, one-time links, tokens of programs.
//!
//! Owns how somebody proves who they are. Must not know what they may do then: each page says.

mod attempts;
mod cookie;
mod hasher;
mod noting;
mod password;
mod sign_in;
mod token;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue};
use portcullis_model::{Secret, UnixMs};
use portcullis_store::{ApiToken, ConsoleSession, ConsoleUser, NewSession, State, StoreError, TokenDigest};
use tokio::sync::Semaphore;

use super::error::PageError;
use super::shared::Shared;
use super::visitor::{Peer, Proof, Visitor};
use attempts::Attempts;
use hasher::Hasher;
use noting::Noting;

pub(super) use hasher::MAX_HASHERS;
pub use password::{MIN_PASSWORD_CHARS, PasswordProblem, check_password, hash_password};
pub(super) use sign_in::SignIn;
pub use token::{digest_of, new_api_token, new_token};

/// Threads that look up sessions and tokens, apart from those that read for pages.
pub(super) const MAX_LOOKUPS: usize = 2;
/// How long a link of the terminal or of an operator can be used.
pub const LINK_LASTS: Duration = Duration::from_secs(24 * 3_600);
/// The longest that an API token can be used.
pub const MAX_TOKEN_LASTS: Duration = Duration::from_secs(366 * 24 * 3_600);
/// Characters of the longest name of a user or a token.
pub(super) const MAX_NAME: usize = 64;
/// How exactly it is known when something was used last.
const TOUCH: Duration = Duration::from_secs(60);

const EVENT_STREAM: &str = "text/event-stream";

/// What signing in needs to remember.
pub(super) struct Access {
    attempts: Attempts,
    hasher: Hasher,
    lookups: Semaphore,
    noting: Noting,
}

impl Access {
    pub(super) fn new() -> Self {
        Self {
            attempts: Attempts::new(),
            hasher: Hasher::new(),
            lookups: Semaphore::new(MAX_LOOKUPS),
            noting: Noting::default(),
        }
    }
}

/// Names of users and tokens: what is easy to type and to tell apart.
///
/// # Errors
/// What to use instead.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
    match name.len() {
        // It would be erased with the data of that address.
        _ if name.parse::<IpAddr>().is_ok() => Err("use a name, not an address"),
        1..=MAX_NAME if name.chars().all(is_fine) => Ok(()),
        _ => Err("use 1 to 64 letters, digits and . _ @ + -"),
    }
}

/// The other end of a request's connection.
pub(super) fn peer(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>();
    peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip())
}

impl Shared {
    /// Whoever the cookie of a request belongs to.
    pub(super) async fn visitor(
        self: &Arc<Self>,
        headers: &HeaderMap,
        from: IpAddr,
    ) -> Result<Option<Visitor>, PageError> {
        let Some(token) = cookie::read(headers, self.is_secure(headers)) else { return Ok(None) };
        let Some(digest) = token::digest_of_sent(token) else { return Ok(None) };
        let form_token = token::form_token(token);
        let (idle, now) = (self.settings.idle_timeout, self.now());
        // What a page listens to by itself is no sign that somebody is there.
        let is_use = headers.get(ACCEPT).is_none_or(|accept| accept != EVENT_STREAM);
        let found = self
            .look_up(move |shared| {
                let session = State::open_read_only(&shared.data)?.session(&digest, idle, now)?;
                if let Some(session) = session.as_ref().filter(|_| is_use) {
                    shared.touch(session, now);
                }
                Ok(session)
            })
            .await?;
        Ok(found.map(|session| Visitor {
            name: session.user.into(),
            role: session.role,
            from,
            form_token: form_token.into(),
            proof: Proof::Session { id: session.id, user_id: session.user_id },
        }))
    }

    /// The program of a request's `Authorization: Bearer`; `None` when it has none, or a wrong one.
    pub(super) async fn program(
        self: &Arc<Self>,
        headers: &HeaderMap,
        from: IpAddr,
    ) -> Result<Option<Visitor>, PageError> {
        let Some(sent) = bearer(headers) else { return Ok(None) };
        let now = self.now();
        if let Some(until) = self.access.attempts.tokens_locked_until(from, now) {
            return Err(PageError::TooMany {
                sentence: "Too many wrong API tokens came from this address.".to_owned(),
                wait: until.since(now),
            });
        }
        let found = match token::digest_of_sent(sent) {
            None => None,
            Some(digest) => self.look_up(move |shared| shared.token(&digest, now)).await?,
        };
        if found.is_none() {
            self.access.attempts.wrong_token(from, now);
        }
        Ok(found.map(|token| Visitor {
            name: token.name.into(),
            role: token.scope.role(),
            from,
            form_token: new_token().expose().into(),
            proof: Proof::Token,
        }))
    }

    /// Whether browsers reach the console over TLS, here or at a proxy in front.
    pub(super) fn is_secure(&self, headers: &HeaderMap) -> bool {
        self.settings.certificate.is_some()
            || self.settings.url.as_ref().is_some_and(|url| {
                let host = headers.get(HOST).and_then(|host| host.to_str().ok());
                url.is_https && host.is_some_and(|host| host.eq_ignore_ascii_case(&url.authority))
            })
    }

    /// Begins a session; the answer is the header that gives it to the browser.
    pub(super) async fn begin_session(
        self: &Arc<Self>,
        user: &ConsoleUser,
        from: IpAddr,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, PageError> {
        let token = new_token();
        let cookie = cookie::set(&token, self.is_secure(headers));
        let agent =
            headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned());
        let (user, now) = (user.clone(), self.now());
        let expires_at = now.plus(self.settings.session_timeout);
        self.look_up(move |shared| {
            let session = NewSession {
                digest: digest_of(&token),
                user_id: user.id,
                expires_at,
                address: from,
                user_agent: agent.as_deref().unwrap_or_default(),
            };
            State::open_existing(&shared.data)?.acting_from(from).begin_session(&session, &user.name, now)
        })
        .await?;
        Ok(cookie)
    }

    /// Ends the session that a browser has, if it has one: for everybody, on the server.
    pub(super) async fn end_session_of(
        self: &Arc<Self>,
        headers: &HeaderMap,
        from: IpAddr,
    ) -> Result<(), PageError> {
        let token = cookie::read(headers, self.is_secure(headers));
        let Some(digest) = token.and_then(token::digest_of_sent) else { return Ok(()) };
        let (idle, now) = (self.settings.idle_timeout, self.now());
        self.look_up(move |shared| {
            let mut state = State::open_existing(&shared.data)?.acting_from(from);
            if let Some(session) = state.session(&digest, idle, now)? {
                state.end_session(session.user_id, session.id, &format!("console:{}", session.user), now)?;
            }
            Ok(())
        })
        .await
    }

    /// The header that has a browser forget its session.
    pub(super) fn forget_session(&self, headers: &HeaderMap) -> HeaderValue {
        cookie::clear(self.is_secure(headers))
    }

    /// Hashes a password in its turn.
    pub(super) async fn hash(&self, password: String) -> Result<Secret, PageError> {
        self.access.hasher.run(move || hash_password(&password)).await
    }

    /// Looks up who asks, or changes it, however busy the pages are.
    pub(super) async fn look_up<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PageError> {
        let Ok(_permit) = self.access.lookups.acquire().await else { return Err(PageError::Busy) };
        let shared = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => Ok(result?),
            Err(panicked) => Err(PageError::Failed(format!("a look-up failed: {panicked}"))),
        }
    }

    fn token(&self, digest: &TokenDigest, now: UnixMs) -> Result<Option<ApiToken>, StoreError> {
        let token = State::open_read_only(&self.data)?.api_token(digest, now)?;
        if let Some(token) = &token
            && token.last_used.is_none_or(|last| now.since(last) >= TOUCH)
        {
            note_use(
                State::open_existing(&self.data).and_then(|mut state| state.touch_api_token(token.id, now)),
            );
        }
        Ok(token)
    }

    fn touch(&self, session: &ConsoleSession, now: UnixMs) {
        // Often enough that a session in use never looks idle.
        let least = TOUCH.min(self.settings.idle_timeout / 4);
        if now.since(session.last_used) >= least {
            note_use(
                State::open_existing(&self.data).and_then(|mut state| state.touch_session(session.id, now)),
            );
        }
    }
}

/// A state that cannot be written just now keeps nobody from reading.
fn note_use(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!("the use of a session or token could not be noted: {error}");
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
