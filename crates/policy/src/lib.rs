//! Decides one request: allowlist, blocks, access list, limits, admit. Start with `decide.rs`.
//!
//! Owns the rules and the state that they count in. Must not know tokio, SQL, Pingora or a clock:
//! facts and time are passed in.

mod access;
mod blocklist;
mod caught;
mod clock;
mod criteria;
mod crowd;
mod decide;
mod facts;
mod feeds;
mod forwarded;
mod key;
mod limiter;
mod limits;
mod parties;
mod pattern;
mod prefixes;
mod rules;
mod under_way;

pub use access::{AccessAction, AccessRule, MAX_ACCESS_RULES};
pub use blocklist::{BlockChange, Blocklist, StandIn};
pub use caught::{Caught, Culprit, Hold, MAX_CAUGHT};
pub use clock::Now;
pub use criteria::{IdentityMatch, Needs, RequestMatch};
pub use crowd::{Crowds, MAX_TIMES};
pub use decide::{Decision, LiveState, Verdict, decide, decide_by_address};
pub use facts::{NoHeaders, Place, RequestFacts, RequestHeaders};
pub use feeds::{AddressRanges, Feed, Feeds, MAX_FEEDS};
pub use forwarded::{ClientIpSource, MAX_HOPS, client_ip, forwarded_is_https};
pub use key::{LimitKey, Subject};
pub use limiter::{Admission, Exhausted, Extent, Limiter, LimiterStats, Secret, Usage, admitted_per_period};
pub use limits::{LimitHit, RETRY_CONCURRENCY};
pub use parties::{Glance, Look, Parties, PartyChange, ROOM_LOGINS, ROOM_PERIOD};
pub use pattern::{HostPattern, PathPattern, PatternError, TextPattern};
pub use prefixes::PrefixSet;
pub use rules::{
    LimitRule, MAX_LIMIT_RULES, MAX_RATE_COUNT, MAX_RATE_WINDOW, Mode, Rate, RateError, Snapshot,
};
pub use under_way::{Permit, UnderWay};
