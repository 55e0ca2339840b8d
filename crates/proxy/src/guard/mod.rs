//! The connection guard: what surrounds Pingora's own handling of a connection.
//!
//! Pingora answers, or drops, bytes that never become a request without telling anybody. The guard
//! watches the bytes of each head: it bounds their number and their time, gives its own answer in place
//! of Pingora's, and leaves a record.

mod connection;
mod serve;
mod socket;
mod stream;

pub(crate) use connection::{Connection, split_target};
pub(crate) use serve::{Acceptor, serve};
