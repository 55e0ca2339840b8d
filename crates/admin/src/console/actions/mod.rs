//! What people change: blocks, allows, findings, settings. Pages and the JSON API call the same functions.
//!
//! Owns what each change does, what it answers, and how it is taken back. Must not know HTML or HTTP.

mod blocks;
mod findings;
pub(super) mod settings;
mod undo;

pub(crate) use blocks::{Entry, Whom, allow, block, disallow, import, lift, remarks};
pub(crate) use findings::{ForGood, allow_client, block_client, dismiss_for_good, judge, remove_never};
pub(crate) use undo::{Step, Undo, undo};

use portcullis_model::UnixMs;

/// Things that one change may be about: more are asked for in parts.
pub(crate) const MAX_AT_ONCE: usize = 1_000;

/// Who changes something, and when.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    /// As the audit log names them.
    pub(crate) actor: String,
    pub(crate) now: UnixMs,
}

/// A change that was made.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    /// In one sentence.
    pub(crate) text: String,
    /// `None`: nothing has changed, or it cannot be taken back.
    pub(crate) undo: Option<Undo>,
}

impl Done {
    fn new(text: String, steps: Vec<Step>) -> Self {
        Self { text, undo: (!steps.is_empty()).then_some(Undo { steps }) }
    }
}
