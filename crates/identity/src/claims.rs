//! What a token claims, and whether that counts here and now (RFC 7519, 4.1).

use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{Identity, UnixMs, is_session_name, limits};
use serde_json::{Map, Value};

use crate::TokenFault;

/// The most roles of a user; further ones are left out.
pub(crate) const MAX_ROLES: usize = 64;
/// The longest role, in bytes; longer ones are left out.
const MAX_ROLE: usize = 128;

/// Where a claim is: its name, or names of objects within objects with dots between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(Box<str>);

impl ClaimPath {
    pub fn new(path: &str) -> Self {
        Self(path.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A claim of this whole name comes first, since names may be URLs.
    fn find<'v>(&self, claims: &'v Map<String, Value>) -> Option<&'v Value> {
        if let Some(value) = claims.get(&*self.0) {
            return Some(value);
        }
        let mut names = self.0.split('.');
        let mut value = claims.get(names.next()?)?;
        for name in names {
            value = value.as_object()?.get(name)?;
        }
        Some(value)
    }
}

/// What a token must claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRules {
    /// One of them must be `iss`; empty is any.
    pub issuers: Vec<String>,
    /// One of them must be in `aud`; when there is none, a token with `aud` is meant for somebody else.
    pub audiences: Vec<String>,
    /// How far the clocks may differ.
    pub leeway: Duration,
    pub user: ClaimPath,
    pub roles: Option<ClaimPath>,
}

/// What a token says of its bearer, if its signature is good.
pub(crate) struct Claimed {
    pub(crate) identity: Identity,
    /// With the leeway.
    pub(crate) expires_at: UnixMs,
}

impl ClaimRules {
    pub(crate) fn read(&self, claims: &[u8], now: UnixMs) -> Result<Claimed, TokenFault> {
        let claims: Map<String, Value> = serde_json::from_slice(claims).map_err(|_| TokenFault::Malformed)?;
        let expires_at = match claims.get("exp") {
            Some(value) => numeric_date(value).ok_or(TokenFault::Malformed)?.plus(self.leeway),
            None => return Err(TokenFault::NoExpiry),
        };
        if now >= expires_at {
            return Err(TokenFault::Expired);
        }
        if let Some(value) = claims.get("nbf") {
            let not_before = numeric_date(value).ok_or(TokenFault::Malformed)?;
            if now < not_before.minus(self.leeway) {
                return Err(TokenFault::NotYetValid);
            }
        }
        if !self.issuers.is_empty() {
            let issuer = claims.get("iss").and_then(Value::as_str);
            if !issuer.is_some_and(|issuer| self.issuers.iter().any(|known| known == issuer)) {
                return Err(TokenFault::Issuer);
            }
        }
        if !self.is_meant_for_us(claims.get("aud")) {
            return Err(TokenFault::Audience);
        }
        let user = self.user.find(&claims).and_then(user_name).ok_or(TokenFault::NoUser)?;
        let roles = self.roles.as_ref().and_then(|path| path.find(&claims)).map(roles).unwrap_or_default();
        Ok(Claimed { identity: Identity { user: Some(user), roles, session: None }, expires_at })
    }

    fn is_meant_for_us(&self, audience: Option<&Value>) -> bool {
        let is_ours =
            |value: &Value| value.as_str().is_some_and(|one| self.audiences.iter().any(|a| a == one));
        match audience {
            None => self.audiences.is_empty(),
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
        }
    }
}

/// Seconds since 1970, also with a fraction.
fn numeric_date(value: &Value) -> Option<UnixMs> {
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite())?;
    // A cast of floats saturates.
    Some(UnixMs((seconds * 1_000.0) as i64))
}

fn user_name(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::String(text) => usable_user(text),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string().into()),
        _ => None,
    }
}

/// The name as it is kept. One that is too long is none: cut, it could be somebody else's.
pub(crate) fn usable_user(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    let is_good = !text.is_empty()
        && text.len() <= limits::USER
        && !text.chars().any(char::is_control)
        // The log shows sessions that have no user like that.
        && !is_session_name(text);
    is_good.then(|| text.into())
}

/// A list, or words with blanks between them as in `scope`.
fn roles(value: &Value) -> Vec<Box<str>> {
    match value {
        Value::String(text) => usable_roles(text.split_ascii_whitespace()),
        Value::Array(all) => usable_roles(all.iter().filter_map(Value::as_str)),
        _ => Vec::new(),
    }
}

pub(crate) fn usable_roles<'t>(words: impl Iterator<Item = &'t str>) -> Vec<Box<str>> {
    let is_good =
        |word: &&str| !word.is_empty() && word.len() <= MAX_ROLE && !word.chars().any(char::is_control);
    words.map(str::trim).filter(is_good).take(MAX_ROLES).map(Into::into).collect()
}
