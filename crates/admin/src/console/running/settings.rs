//! Settings of the detector that are changed while running, beside what the file says.
//! Must not know how it is done.

/// Settings that are changed while running.
pub trait LiveSettings: Send + Sync {}
