//! What of a request must not be kept: secrets in queries, and addresses where anonymity is asked for.
//!
//! Owns the pure functions alone: text in, text out; an address and a key in, an address out. Must not do I/O,
//! read a clock, or know where rows go.

mod pseudonym;
mod redact;

pub use pseudonym::{Kind, PseudonymKey, SECRET_BYTES, is_pseudonym, truncate};
pub use redact::{DEFAULT_NAMES, MAX_NAMES, REDACTED, SecretNames};

/// What becomes of a client's address when its row is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymise {
    /// It is kept.
    #[default]
    None,
    /// The /24 of an IPv4 address, the /48 of an IPv6 address.
    Truncate,
    /// An address out of a range for documentation, by a keyed hash whose key is replaced regularly.
    Hash,
}

impl Anonymise {
    pub const ALL: [Self; 3] = [Self::None, Self::Truncate, Self::Hash];

    /// The word that the configuration uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Truncate => "truncate",
            Self::Hash => "hash",
        }
    }
}
