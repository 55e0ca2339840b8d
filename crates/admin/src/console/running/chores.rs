//! Tasks, alerts, reloads: what a person may have done at once.
//! Must not know how it is done.

/// Has done at once what the gateway does by itself.
pub trait Chores: Send + Sync {}
