//! The console as people and programs use it: the real program, real sockets, real databases.
//!
//! One test binary, so that it is linked once; a module per subject. Must not reach into the gateway.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod api;
mod blocks;
mod changes;
mod clients;
mod decisions;
mod findings;
mod limits;
mod lockout;
mod overview;
mod person;
mod programs;
mod requests;
mod secrets;
mod sessions;
mod settings;
mod sign_in;
mod users;

use portcullis_testkit::{Gateway, GatewayConfig, Upstream};

/// A configuration with a console and nothing else in it yet.
fn config() -> GatewayConfig {
    with_console("")
}

/// The same with more lines of `[console]`.
fn with_console(lines: &str) -> GatewayConfig {
    GatewayConfig::new(env!("CARGO_BIN_EXE_portcullis")).console_with(lines)
}

/// A gateway with a console in front of an upstream, which believes the tests when they say which client they are.
fn in_front_of(upstream: &Upstream) -> Gateway {
    Gateway::start(config().upstream(upstream).behind_local_proxy())
}

/// A gateway whose site is not needed.
fn alone() -> Gateway {
    Gateway::start(config())
}
