//! Limits as they stand: what is counted, and what other limits would have refused.
//! Must not know how it is done.

/// Limits as they stand.
pub trait Limits: Send + Sync {}
