//! The edge: listeners, the Pingora adapter, upstreams, refusals. The only crate that knows Pingora.
//!
//! Owns connections and requests from accept to the record of them. Must not decide (that is `policy`),
//! nor know SQL: records leave through a closure.

mod attempt;
mod clock;
mod descriptors;
mod edge;
mod error;
mod facts;
mod failure;
mod gateway;
mod guard;
mod headers;
mod hooks;
mod identity;
mod metrics;
mod pages;
mod pool;
mod rehearsal;
mod respond;
mod routes;
mod ruleset;
mod tls;

pub use clock::Clock;
pub use edge::{Callbacks, Edge, Observer, Places, Recorder, Seen};
pub use error::EdgeError;
pub use gateway::{Bound, Gateway, Inherited};
pub use identity::Identities;
pub use metrics::{
    CLASSES, EdgeMetrics, FORWARDING_HEADERS, LATENCY_BUCKETS_US, LatencySnapshot, RuleCounter,
};
pub use pool::{CircuitState, PoolState, ServerState};
pub use rehearsal::rehearse;
pub use tls::{
    CertificateFacts, CertificateSource, CertificateStatus, Challenges, inspect_certificates,
    inspect_client_authorities,
};
