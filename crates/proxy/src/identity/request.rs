//! Finds the token and the session cookie in the head of a request, and takes from the request what the upstream
//! must not get. Where a head can be read in two ways, it proves nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use portcullis_identity::{CookieValue, Known, Step, TokenFault, cookie_value};
use portcullis_model::{Identity, UnixMs};

use super::rules::{Source, Tokens};
use super::{Identities, IdentityRules, Visit};

impl IdentityRules {
    /// Who a request is from: its token if that is good, else its session.
    pub(crate) fn visit(
        &self,
        live: &Identities,
        method: &http::Method,
        headers: &HeaderMap,
        path: &str,
        now: UnixMs,
    ) -> Visit {
        let by_token = self.tokens.as_ref().and_then(|tokens| tokens.identity(live, headers, now));
        let known = self.session(live, headers, now);
        let identity = by_token.or_else(|| known.as_ref().map(|known| Arc::clone(known.identity())));
        Visit::new(identity, known, self.step(method, path))
    }

    fn session(&self, live: &Identities, headers: &HeaderMap, now: UnixMs) -> Option<Known> {
        let settings = self.sessions.as_ref()?;
        match cookie_value(cookie_lines(headers), settings.cookie.as_bytes()) {
            CookieValue::None => None,
            CookieValue::One(value) => live.sessions()?.find(value, &settings.rules, now),
            CookieValue::Several => {
                live.ambiguous_cookies.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// What clients may not say to the upstream, and what would hide the upstream's answer from the gateway.
    pub(crate) fn prepare(&self, visit: &Visit, request: &mut RequestHeader) {
        for ours in [&self.user_header, &self.roles_header].into_iter().flatten() {
            while let Some(name) = request.headers.keys().find(|name| is_same(name, ours)).cloned() {
                request.remove_header(&name);
            }
        }
        // A text is not found in a body that is compressed.
        if visit.step() == Step::Login && self.logins.failure_text.is_some() {
            request.remove_header(&ACCEPT_ENCODING);
        }
    }
}

impl Tokens {
    fn identity(&self, live: &Identities, headers: &HeaderMap, now: UnixMs) -> Option<Arc<Identity>> {
        let found = self.sources.iter().find_map(|source| source.token(headers))?;
        match found {
            Ok(token) => self.verifier.verify(token, now, &live.tokens).ok(),
            Err(fault) => {
                live.tokens.count(fault);
                None
            }
        }
    }
}

type Found<'a> = Option<Result<&'a [u8], TokenFault>>;

impl Source {
    fn token<'a>(&self, headers: &'a HeaderMap) -> Found<'a> {
        match self {
            Self::Authorization => match only(headers, &AUTHORIZATION)? {
                Ok(value) => after_bearer(value).map(Ok),
                Err(fault) => Some(Err(fault)),
            },
            Self::Header(name) => {
                only(headers, name).map(|value| value.map(|value| after_bearer(value).unwrap_or(value)))
            }
            Self::Cookie(name) => match cookie_value(cookie_lines(headers), name) {
                CookieValue::None => None,
                CookieValue::One(value) => Some(Ok(value)),
                CookieValue::Several => Some(Err(TokenFault::Ambiguous)),
            },
        }
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Found<'a> {
    let mut lines = headers.get_all(name).iter();
    let value = lines.next()?.as_bytes().trim_ascii();
    Some(if lines.next().is_some() { Err(TokenFault::Ambiguous) } else { Ok(value) })
}

/// What follows the scheme of RFC 6750; `None` when it is another scheme.
fn after_bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

fn cookie_lines(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes)
}

/// Whether an application that follows CGI would take the one for the other.
fn is_same(name: &HeaderName, ours: &HeaderName) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (name, ours) = (name.as_str().as_bytes(), ours.as_str().as_bytes());
    name.len() == ours.len() && name.iter().zip(ours).all(|(&a, &b)| dashed(a) == dashed(b))
}
