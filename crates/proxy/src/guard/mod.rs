//! The connection guard: what surrounds Pingora's own handling of a connection.
//!
//! It counts connections, reads each HTTP/1 head itself, bounds the time and the pace of everything a client
//! sends or takes, and leaves a record of whatever never becomes a request. Pingora gets requests that are
//! complete and have one reading, one at a time.

mod admit;
mod clients;
mod connection;
mod first_bytes;
mod frames;
mod http2;
mod lobby;
mod pace;
mod proxied;
mod serve;
mod socket;
mod stream;
mod watch;

pub(crate) use clients::Clients;
pub(crate) use connection::{Connection, Failure};
pub(crate) use first_bytes::split_target;
pub(crate) use lobby::Lobby;
pub(crate) use serve::{Acceptor, serve};
use watch::Held;
pub(crate) use watch::{Watch, watch};
