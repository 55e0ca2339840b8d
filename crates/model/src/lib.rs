//! Plain data that every other crate speaks: addresses, verdicts, request records, findings, blocks.
//!
//! Owns the types and their textual forms. Must not do I/O, read clocks or decide anything.

mod access;
mod block;
mod client;
mod finding;
mod identity;
mod location;
mod party;
mod path;
mod record;
mod request_id;
mod secret;
mod time;
mod verdict;

pub use access::{Role, Scope, UnknownRole, UnknownScope, actor_in_words};
pub use block::{Allow, Block, BlockSource, bare, network_of, reason_of};
pub use client::{ClientIp, ParseClientIpError, SharedPrefix};
pub use finding::{Finding, FindingStatus, Severity, UnknownSeverity};
pub use identity::{Identity, is_session_name};
pub use location::Location;
pub use party::{Party, PartyBlock, user_of};
pub use path::normalise_path;
pub use record::{Protocol, RecordText, RequestRecord, TextFields, cut_text, limits};
pub use request_id::{ParseRequestIdError, RequestId};
pub use secret::Secret;
pub use time::UnixMs;
pub use verdict::{
    ConnectionLimit, LoggedReason, LoginOutcome, MalformedKind, ParseReasonError, Reason, UnknownVerdict,
    UpstreamFailure, VerdictKind,
};
