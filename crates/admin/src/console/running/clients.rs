//! Blocks, allows, findings and erasures: what may be done about a client, and what speaks against it.
//! Must not know how it is done.

/// What may be done about a client.
pub trait Clients: Send + Sync {}
