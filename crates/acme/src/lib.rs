//! Certificates from an authority (ACME, RFC 8555): orders, renewals, and what has to survive a restart.
//!
//! Owns the thread that talks to the authority and the folder with accounts, keys and certificates. Must not know
//! listeners: proofs leave through [`Responder`], certificates through their files. Nothing waits for it.

mod certificate;
mod directory;
mod error;
mod folder;
mod order;
mod progress;
mod schedule;
mod worker;

pub use error::AcmeError;
pub use folder::progress;
pub use progress::Progress;
pub use worker::{Acme, Stats};

/// What an authority is to be shown as the proof of a name.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// The content of the token's file at port 80 (RFC 8555, 8.3).
    File { token: String, content: String },
    /// What the handshake for a name shows at port 443 (RFC 8737), both DER; the key is PKCS #8.
    Certificate { name: String, certificate: Vec<u8>, key: Vec<u8> },
}

/// Whoever answers the authority.
pub trait Responder: Send + Sync {
    /// Shows the proof until it is withdrawn.
    ///
    /// # Errors
    /// Why it cannot be shown.
    fn offer(&self, proof: &Proof) -> Result<(), String>;

    fn withdraw(&self, proof: &Proof);
}
