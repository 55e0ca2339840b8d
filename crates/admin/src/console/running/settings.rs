//! Settings of the detector that are changed while running, beside what the file says.
//! Must not know how it is done.

/// Settings that are changed while running.
pub trait LiveSettings: Send + Sync {
    /// Puts what was changed in the state database in force before it returns; the gateway would notice by itself
    /// within a second.
    ///
    /// # Errors
    /// A sentence: the gateway is ending.
    fn apply_settings(&self) -> Result<(), String>;
}
