//! One request on its way through identity: what it came with, and what its answer has taught so far.

use std::borrow::Cow;
use std::sync::Arc;

use portcullis_identity::{Known, Learned, Step};
use portcullis_model::{Identity, LoginOutcome};

use super::response::Scan;

pub(crate) struct Visit {
    identity: Option<Arc<Identity>>,
    pub(super) known: Option<Known>,
    step: Step,
    pub(super) learned: Learned,
    /// Looks for the text of a failure, while there is still something to look through.
    pub(super) scan: Option<Scan>,
    pub(super) login: Option<LoginOutcome>,
}

impl Visit {
    pub(super) fn new(identity: Option<Arc<Identity>>, known: Option<Known>, step: Step) -> Self {
        Self { identity, known, step, learned: Learned::default(), scan: None, login: None }
    }

    /// `None` is anonymous.
    pub(crate) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// How the login ended, if it was one.
    pub(crate) fn login(&self) -> Option<LoginOutcome> {
        self.login
    }
}

/// The user column of the log.
pub(crate) fn user_of(identity: Option<&Identity>) -> Cow<'_, str> {
    match identity {
        None => Cow::Borrowed(""),
        Some(Identity { user: Some(user), .. }) => Cow::Borrowed(user),
        Some(Identity { user: None, session, .. }) => {
            Cow::Owned(format!("session:{:08x}", session.unwrap_or_default() >> 32))
        }
    }
}
