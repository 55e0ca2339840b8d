//! How the gateway is at this moment: counters for the live overview, health of its parts.
//! Must not know how it is done.

/// How the gateway is at this moment.
pub trait Figures: Send + Sync {}
