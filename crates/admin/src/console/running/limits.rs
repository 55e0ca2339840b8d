//! Limits as they stand: what is counted, and what other limits would have refused.
//! Must not know how it is done.

use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{ClientIp, UnixMs};
use portcullis_policy::Rate;

/// Limits as they stand.
pub trait Limits: Send + Sync {
    /// The rules and what the limiter holds.
    ///
    /// # Errors
    /// A sentence, here and below: the gateway is ending, or the log cannot be read.
    fn limits(&self) -> Result<LimitsNow, String>;

    /// Begins to compute what another rate would have refused, and returns before it is done.
    ///
    /// # Errors
    /// The question makes no sense, another one is being computed, or see above.
    fn ask_what_if(&self, question: WhatIf) -> Result<(), String>;

    /// The question that was asked last, and how far its answer is.
    ///
    /// # Errors
    /// See above.
    fn what_if(&self) -> Result<Option<Asked>, String>;

    /// Breaks the computation off, if there is one.
    ///
    /// # Errors
    /// See above.
    fn cancel_what_if(&self) -> Result<(), String>;
}

/// The rules and what the limiter holds.
#[derive(Clone, Debug)]
pub struct LimitsNow {
    pub rules: Vec<LimitNow>,
    /// The whole gateway refuses nobody.
    pub is_dry_run: bool,
    /// Windows of all rules that are held now.
    pub windows: u64,
    pub bytes: u64,
    /// Windows that were given up early because there was no room.
    pub evictions: u64,
}

/// A rule as it stands.
#[derive(Clone, Debug)]
pub struct LimitNow {
    pub name: Arc<str>,
    /// `600/1m, burst 10/1s`
    pub allowance: String,
    /// Whose requests are counted together.
    pub per: String,
    /// Which requests it means.
    pub meant: String,
    pub is_dry_run: bool,
    /// What else is counted together, because whoever has one IPv6 /64 may have many.
    pub shared: Option<String>,
    pub rate: Option<Rate>,
    /// The fullest windows among those of the clients that came lately, the fullest first.
    pub busiest: Vec<Busy>,
    /// Why nobody can say what another rate would have refused.
    pub cannot_replay: Option<&'static str>,
}

/// How much of a window is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    pub client: ClientIp,
    /// `rate`, `burst`, or the prefix that is counted as a whole.
    pub window: String,
    pub used: u32,
    pub most: u32,
}

impl Busy {
    pub fn is_full(&self) -> bool {
        self.used >= self.most
    }
}

/// What a rule with another rate would have refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhatIf {
    pub rule: String,
    pub rate: Rate,
    /// How far back.
    pub span: Duration,
}

/// A question, and how far its answer is.
#[derive(Clone, Debug)]
pub struct Asked {
    pub question: WhatIf,
    pub begun: UnixMs,
    pub answer: Answer,
}

#[derive(Clone, Debug)]
pub enum Answer {
    /// So much of the span has been gone through, in percent.
    Computing(u8),
    Cancelled,
    Done(Box<Refusals>),
    Failed(String),
}

/// What would have been refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Requests of the span that the rule means.
    pub meant: u64,
    /// Those that were refused by the rule as it was, or would have been if it were enforced.
    pub were_refused: u64,
    pub refused: u64,
    pub clients: u64,
    /// Clients among them that look innocent: nothing was found about them, and most of what they asked for was
    /// answered well.
    pub innocent: u64,
    /// Those that were refused most, the most first.
    pub first: Vec<RefusedClient>,
    /// Requests of clients for which there was no room.
    pub of_others: u64,
}

/// A client that would have been refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedClient {
    pub client: ClientIp,
    pub requests: u64,
    pub refused: u64,
    pub first_refused: UnixMs,
    pub is_innocent: bool,
}
