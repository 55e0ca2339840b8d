//! The edge, case by case: bytes on a raw socket, the answer, the row in the log, and what the upstream saw.
//!
//! Each module is a table of cases with the rule beside it; `suite.rs` runs a table against a gateway of its
//! own. What is right is written here by hand: nothing of the gateway's own reading may be asked.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod chunks;
mod framing;
mod ground;
mod h2;
mod headers;
mod host;
mod identity;
mod line_endings;
mod pipelining;
mod proxy_protocol;
mod request_line;
mod sizes;
mod slow;
mod suite;
mod targets;
mod upgrade;
mod upstreams;
