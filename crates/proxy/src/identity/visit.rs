//! One request on its way through identity: what it came with, and what its answer has taught so far.

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

    /// Whether the answer's body may still say how a login ended.
    pub(crate) fn reads_the_answer(&self) -> bool {
        self.scan.is_some()
    }

    /// How the login ended, if it was one.
    pub(crate) fn login(&self) -> Option<LoginOutcome> {
        self.login
    }
}
