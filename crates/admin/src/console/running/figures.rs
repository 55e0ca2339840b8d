//! How the gateway is at this moment: counters for the live overview, health of its parts.
//! Must not know how it is done.

use portcullis_model::VerdictKind;

/// How the gateway is at this moment.
pub trait Figures: Send + Sync {
    /// `None` while the gateway is ending. Takes no time.
    fn counters(&self) -> Option<Counters>;

    /// Every part that can fail, in the order in which they are shown. Reads files and databases.
    fn health(&self) -> Vec<Health>;
}

/// What is counted on the way of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that have ended since the start, in the order of `VerdictKind::ALL`.
    pub verdicts: [u64; VerdictKind::ALL.len()],
    /// Connections from clients that are open.
    pub connections: u64,
    /// Blocks in force.
    pub blocks: u64,
}

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Nobody has asked for it.
    Off,
    Good,
    Warning,
    Bad,
}

/// A part of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub part: &'static str,
    /// The worst of its problems.
    pub grade: Grade,
    /// How it is, in a few words.
    pub said: String,
    pub problems: Vec<Problem>,
}

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub seen: String,
    pub remedy: String,
    /// The lines for the configuration, or the command.
    pub write: Option<String>,
}
