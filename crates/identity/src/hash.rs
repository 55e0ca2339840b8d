//! Keyed hashes, under which cookies and tokens are kept instead of themselves.

use std::fmt;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::IdentityError;

/// The key of a hash. Without it nobody can tell which cookie a hash is of.
#[derive(Clone)]
pub struct HashKey(hmac::Key);

impl HashKey {
    /// The length of a key in bytes.
    pub const BYTES: usize = 32;

    pub fn new(bytes: &[u8; Self::BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Bytes for a new key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random() -> Result<[u8; Self::BYTES], IdentityError> {
        let mut bytes = [0; Self::BYTES];
        let random = SystemRandom::new();
        random.fill(&mut bytes).map_err(|_| IdentityError::NoRandomness)?;
        Ok(bytes)
    }

    /// The first 128 bits of HMAC-SHA-256.
    pub(crate) fn hash(&self, value: &[u8]) -> u128 {
        let tag = hmac::sign(&self.0, value);
        let (first, _) = tag.as_ref().split_first_chunk().unwrap_or((&[0; 16], &[]));
        u128::from_be_bytes(*first)
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}
