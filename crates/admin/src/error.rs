//! What can go wrong with our own listeners, as sentences that name the address and the remedy.
//!
//! Owns the error types only; must not log.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why a listener of our own cannot start. `listener` is its name in a sentence.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(
        "the {listener} cannot use {address}: another process listens there; \
         stop it or choose another address"
    )]
    AddressInUse { listener: &'static str, address: SocketAddr },

    #[error(
        "the {listener} cannot use {address}: no interface of this machine has that address; \
         use 127.0.0.1 or an address of this machine"
    )]
    AddressNotAvailable { listener: &'static str, address: SocketAddr },

    #[error(
        "the {listener} may not use {address}: permission denied; choose a port above 1023 \
         or grant CAP_NET_BIND_SERVICE"
    )]
    PermissionDenied { listener: &'static str, address: SocketAddr },

    #[error("the {listener} cannot use {address}: {source}; choose another address")]
    Bind { listener: &'static str, address: SocketAddr, source: io::Error },

    #[error("the thread of the {listener} on {address} cannot start: {source}; raise the process limits")]
    Start { listener: &'static str, address: SocketAddr, source: io::Error },

    #[error("console.certificate cannot be used: {}: {why}", file.display())]
    Certificate { file: PathBuf, why: String },
}

impl AdminError {
    /// The sentence for a failed `bind`.
    pub(crate) fn from_bind(listener: &'static str, address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { listener, address },
            io::ErrorKind::AddrNotAvailable => Self::AddressNotAvailable { listener, address },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { listener, address },
            _ => Self::Bind { listener, address, source },
        }
    }
}

/// Why a gateway does not count as ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error(
        "nothing answers on {address}: {source}; is the gateway running, and is this its metrics address?"
    )]
    Unreachable { address: SocketAddr, source: io::Error },

    #[error(
        "the gateway on {address} gave no answer within {allowed:?}: it is overloaded or stuck; see its log"
    )]
    TooSlow { address: SocketAddr, allowed: Duration },

    #[error("{address} does not answer as a gateway does; is this the metrics address?")]
    NotAGateway { address: SocketAddr },

    #[error("the gateway on {address} is not ready: {reason}")]
    NotReady { address: SocketAddr, reason: String },
}
