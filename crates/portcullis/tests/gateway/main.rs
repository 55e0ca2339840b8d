//! The gateway as its users have it: the real program, real sockets, real upstreams, real databases.
//!
//! One test binary, so that it is linked once; a module per subject. Must not reach into the gateway.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod acme;
mod alerts;
mod bots;
mod client_ip;
mod counts;
mod decisions;
mod detector;
mod django;
mod doctor;
mod explained;
mod feeds;
mod forwarding;
mod geo;
mod guard;
mod http2_guard;
mod https;
mod identity;
mod identity_keys;
mod limits;
mod lists;
mod log;
mod malformed;
#[path = "../../../geo/tests/mmdb/mod.rs"]
#[allow(dead_code, reason = "the tests of the geo crate need more of it")]
mod mmdb;
mod mtls;
mod originals;
mod privacy;
mod privacy_requests;
mod proxy_protocol;
mod reload;
mod report;
mod seconds;
mod shared;
mod start;
mod streaming;
mod tasks;
mod tls;
mod upgrade;
mod upstreams;
mod upstreams_health;
mod upstreams_load;
mod upstreams_retries;

use portcullis_testkit::{Gateway, GatewayConfig, Upstream};

/// A configuration with nothing in it yet.
fn config() -> GatewayConfig {
    GatewayConfig::new(env!("CARGO_BIN_EXE_portcullis"))
}

/// A gateway with the defaults in front of an upstream.
fn in_front_of(upstream: &Upstream) -> Gateway {
    Gateway::start(config().upstream(upstream))
}

/// A gateway that believes the tests when they say which client they are.
fn behind_proxy(upstream: &Upstream) -> GatewayConfig {
    config().upstream(upstream).behind_local_proxy()
}
