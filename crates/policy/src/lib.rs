//! Decides one request: allowlist, blocks, limits, admit. Start with `decide.rs`.
//!
//! Owns the rules and the state that they count in. Must not know tokio, SQL, Pingora or a clock:
//! facts and time are passed in.

mod blocklist;
mod clock;
mod decide;
mod facts;
mod forwarded;
mod limiter;
mod parties;
mod pattern;
mod prefixes;
mod rules;

pub use blocklist::{BlockChange, Blocklist};
pub use clock::Now;
pub use decide::{Decision, LimitHit, LiveState, Verdict, decide};
pub use facts::{NoHeaders, Place, RequestFacts, RequestHeaders};
pub use forwarded::{ClientIpSource, MAX_HOPS, client_ip, forwarded_is_https};
pub use limiter::{Admission, Extent, Limiter, LimiterStats, Secret, admitted_per_period};
pub use parties::{Glance, Look, Parties, PartyChange, ROOM_LOGINS, ROOM_PERIOD};
pub use pattern::{HostPattern, PathPattern, PatternError};
pub use prefixes::PrefixSet;
pub use rules::{
    LimitRule, MAX_LIMIT_RULES, MAX_RATE_COUNT, MAX_RATE_WINDOW, Mode, Rate, RateError, RequestMatch,
    Snapshot,
};
