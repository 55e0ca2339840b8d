//! Decisions and findings in words.
//! Must not know how it is done.

use ipnet::IpNet;
use portcullis_model::{Party, RequestId};
use portcullis_store::{LogRow, StoredFinding};

/// Decisions and findings in words.
pub trait Stories: Send + Sync {
    /// What an ID leads to.
    ///
    /// # Errors
    /// A sentence: the log or the state cannot be read.
    fn decision(&self, id: RequestId) -> Result<Told, String>;

    /// What there is to say about a finding; `None`: there is none with this number.
    ///
    /// # Errors
    /// A sentence: the state cannot be read.
    fn finding(&self, id: i64) -> Result<Option<FindingStory>, String>;
}

/// What an ID leads to.
#[derive(Clone, Debug)]
pub enum Told {
    Story(Box<Story>),
    /// Why it leads nowhere, in a sentence.
    Nowhere(String),
}

/// A finding with what its details mean.
#[derive(Clone, Debug)]
pub struct FindingStory {
    pub stored: StoredFinding,
    /// What was done, or why nothing was.
    pub outcome: String,
    /// At request time or by the hourly run, and after how long.
    pub found: Option<String>,
    /// Why it is not more severe than it is.
    pub held_down: Option<String>,
    /// Who shares the address, and whom a block leaves alone.
    pub spared: Vec<String>,
    /// Rules that had something to say and were not to be asked.
    pub silent: Vec<String>,
    /// Which model found it unusual, and how clearly.
    pub model: Option<String>,
}

/// A decision with all that is known about it.
#[derive(Clone, Debug)]
pub struct Story {
    pub request: LogRow,
    /// What became of the request, in one sentence.
    pub outcome: String,
    /// Which rule, in sentences.
    pub because: Vec<String>,
    /// What the decision rests on.
    pub evidence: Vec<Passage>,
    /// The latest requests that the limit counted, newest first.
    pub counted: Vec<LogRow>,
    /// The block that refused it.
    pub block: Option<i64>,
    /// The finding that the block came of.
    pub finding: Option<i64>,
    /// How long it holds, or that it is over.
    pub lasts: Option<String>,
    /// How the client stands at this moment.
    pub now: String,
    pub advice: Vec<Advice>,
}

/// Lines under a heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    pub heading: &'static str,
    pub lines: Vec<String>,
}

/// What can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What it leads to: the beginning of a sentence if there is a command, and a whole one otherwise.
    pub to: String,
    /// What to type.
    pub command: Option<String>,
    /// The same for a button.
    pub remedy: Option<Remedy>,
}

/// What a button does about a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Lifts the block of a network.
    Unblock(IpNet),
    /// Lifts the block of a user, or of the anonymous clients of an address.
    UnblockParty(Party),
    Allow(IpNet),
    Disallow(IpNet),
    /// Says of a finding that it is wrong.
    Dismiss(i64),
}
