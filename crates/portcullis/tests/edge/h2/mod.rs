//! HTTP/2 over TLS, frame by frame: which errors end a stream, which the connection, and what is no error.
//!
//! `wire.rs` makes and reads frames; the tables are by subject. Sections are those of RFC 9113, "HPACK" is RFC
//! 7541. The list of cases follows what the conformance tests for servers ask, in words of our own.

mod cases;
mod floods;
mod frames;
mod hpack;
mod messages;
mod wire;

pub(crate) use cases::{Accept, H2Case, run};
