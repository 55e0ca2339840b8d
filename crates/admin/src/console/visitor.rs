//! Who asks: the address of the connection, and the person that signed in.
//!
//! Owns the extractors. Must not decide who may sign in.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use portcullis_model::Role;
use subtle::ConstantTimeEq as _;

use super::error::PageError;

/// The other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Peer {
    pub(super) fn ip(self) -> IpAddr {
        self.0.ip().to_canonical()
    }
}

/// A person with a session, or a program with an API token.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    /// The address that they come from.
    pub(super) from: IpAddr,
    /// Every form of this session carries it.
    pub(super) form_token: Arc<str>,
    pub(super) proof: Proof,
}

/// By what somebody is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Session {
        id: i64,
        user_id: i64,
    },
    /// Of a program.
    Token,
}

impl Visitor {
    /// As the audit log names them.
    pub(super) fn actor(&self) -> String {
        match self.proof {
            Proof::Session { .. } => format!("console:{}", self.name),
            Proof::Token => format!("api:{}", self.name),
        }
    }

    /// Compared in constant time.
    pub(super) fn has_token(&self, token: &str) -> bool {
        self.form_token.as_bytes().ct_eq(token.as_bytes()).into()
    }

    /// For what changes something.
    pub(super) fn require_operator(&self) -> Result<(), PageError> {
        match self.is_operator() {
            true => Ok(()),
            false => Err(PageError::Forbidden(
                "Viewers look and do not change. Ask an operator to do it.".to_owned(),
            )),
        }
    }

    pub(super) fn is_operator(&self) -> bool {
        self.role == Role::Operator
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PageError> {
        parts.extensions.get::<Self>().cloned().ok_or(PageError::SignedOut)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}
