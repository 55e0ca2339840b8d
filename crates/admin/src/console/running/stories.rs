//! Decisions and findings in words.
//! Must not know how it is done.

/// Decisions and findings in words.
pub trait Stories: Send + Sync {}
