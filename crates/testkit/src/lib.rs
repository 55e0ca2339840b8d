//! Runs a real gateway in front of a real upstream, over real sockets, for the integration tests.
//!
//! Owns starting and ending both, the clients that speak to them, and reading the databases from outside.
//! Must not know how the gateway works inside: everything goes through its command line, ports and files.
//! Helpers panic with a sentence when they fail, as tests do.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod certificates;
mod client;
mod django;
mod dns;
mod fail2ban;
mod files;
mod gateway;
mod geo_service;
mod h2_client;
mod load;
mod pebble;
mod raw_connection;
mod raw_upstream;
mod smtp_server;
mod strict_upstream;
mod tokens;
mod upstream;
mod upstream_answers;
mod wait;
mod webhook_receiver;

pub use certificates::{
    Authority, Issued, client_config, client_config_as, old_client_config, server_config, trusting,
};
pub use client::{Client, Head, Request, Response, connect, exchange, parse_response};
pub use django::{Browser, DjangoSite};
pub use dns::Dns;
pub use fail2ban::{Fail2banRow, write_fail2ban_database};
pub use files::Data;
pub use gateway::{Ended, Gateway, GatewayConfig, Output};
pub use geo_service::{GeoMood, GeoQuestion, GeoService};
pub use h2_client::{H2Client, H2Request};
pub use load::{Counts, Load, Visitors};
pub use pebble::{Pebble, PebbleConfig, free_port};
pub use raw_connection::{RawConnection, Received};
pub use raw_upstream::RawUpstream;
pub use smtp_server::{Mail, SmtpOptions, SmtpServer};
pub use strict_upstream::{SeenRequest, StrictUpstream};
pub use tokens::{RSA_1024_PUBLIC_PEM, RSA_PUBLIC_PEM, Signer, key_set};
pub use upstream::{Refusing, Seen, Silent, Upstream};
pub use wait::{DEADLINE, eventually, eventually_within};
pub use webhook_receiver::{Posted, WebhookReceiver};

/// What a TLS client of the tests offers and trusts.
pub use rustls::ClientConfig;
/// The WebSocket client of the tests.
pub use tokio_tungstenite::tungstenite;
