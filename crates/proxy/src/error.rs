//! What can keep the edge from starting or from taking a new configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Each message names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    #[error("cannot listen on {address}: another process has this port; stop it or choose another address")]
    AddressInUse { address: SocketAddr },
    #[error(
        "cannot listen on {address}: no permission; ports below 1024 need root or CAP_NET_BIND_SERVICE, or choose a port above"
    )]
    AddressDenied { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {problem}")]
    Certificate { path: PathBuf, problem: String },
    #[error("cannot start the worker threads: {0}")]
    Runtime(std::io::Error),
    #[error(
        "upstream {upstream}: none of its servers has an address; see that their names can be resolved, or write \
         addresses"
    )]
    Unresolved { upstream: std::sync::Arc<str> },
    #[error("tokens cannot be verified: {0}")]
    Identity(#[from] portcullis_identity::IdentityError),
    #[error("the gateway is ending and takes no new configuration")]
    Ending,
}
