//! What a certificate authority is answered that asks for the proof of a name (ACME). Filled from outside.
//! Must not talk to an authority.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// The protocol of the handshakes that ask for a proof (RFC 8737).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";
/// Where plain requests ask for it (RFC 8555, 8.3).
const ACME_PATH: &[u8] = b"/.well-known/acme-challenge/";
/// Proofs that can be offered at a time; more are not taken.
const MAX_OFFERED: usize = 100;

/// The proofs that are asked for now. They are there while an order is under way, and unknown to others.
#[derive(Debug, Default)]
pub struct Challenges {
    /// By token.
    files: ArcSwap<HashMap<String, Bytes>>,
    /// By name, lower case.
    certificates: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

impl Challenges {
    /// Answers requests for the token's file with `content`, on plain listeners.
    pub fn offer_file(&self, token: &str, content: String) {
        insert(&self.files, token, Bytes::from(content));
    }

    /// Answers handshakes that ask for the proof of `name`, on all TLS listeners. `key` is PKCS #8, both are DER.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn offer_certificate(
        &self,
        name: &str,
        certificate: Vec<u8>,
        key: Vec<u8>,
    ) -> Result<(), rustls::Error> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let key = rustls::crypto::ring::default_provider().key_provider.load_private_key(key)?;
        // Not `from_der`: it knows no critical extension such as the one that is the proof.
        let certified = CertifiedKey::new(vec![CertificateDer::from(certificate)], key);
        insert(&self.certificates, &name.to_ascii_lowercase(), Arc::new(certified));
        Ok(())
    }

    pub fn withdraw_file(&self, token: &str) {
        remove(&self.files, token);
    }

    pub fn withdraw_certificate(&self, name: &str) {
        remove(&self.certificates, &name.to_ascii_lowercase());
    }

    /// The answer to a plain request for this path.
    pub(crate) fn file(&self, path: &[u8]) -> Option<Bytes> {
        let token = std::str::from_utf8(path.strip_prefix(ACME_PATH)?).ok()?;
        self.files.load().get(token).cloned()
    }

    /// The answer to a handshake for [`ACME_TLS`].
    pub(super) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.certificates.load().get(&name.to_ascii_lowercase()).cloned()
    }
}

/// Whether it is where an authority asks for the proof of a name.
pub(crate) fn is_challenge_path(path: &[u8]) -> bool {
    path.starts_with(ACME_PATH)
}

fn insert<T: Clone>(map: &ArcSwap<HashMap<String, T>>, key: &str, value: T) {
    map.rcu(|map| {
        let mut map = HashMap::clone(map);
        if map.len() < MAX_OFFERED || map.contains_key(key) {
            map.insert(key.to_owned(), value.clone());
        }
        map
    });
}

fn remove<T: Clone>(map: &ArcSwap<HashMap<String, T>>, key: &str) {
    map.rcu(|map| {
        let mut map = HashMap::clone(map);
        map.remove(key);
        map
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_in_flight_are_answered() {
        let challenges = Challenges::default();
        challenges.offer_file("token", "proof".to_owned());
        let file = |path: &str| challenges.file(path.as_bytes());
        assert_eq!(file("/.well-known/acme-challenge/token"), Some(Bytes::from("proof")));
        assert_eq!(file("/.well-known/acme-challenge/other"), None);
        assert_eq!(file("/.well-known/acme-challenge/"), None);
        assert_eq!(file("/token"), None);
        challenges.withdraw_file("token");
        assert_eq!(file("/.well-known/acme-challenge/token"), None);
    }

    #[test]
    fn proofs_are_bounded() {
        let challenges = Challenges::default();
        for n in 0..=MAX_OFFERED {
            challenges.offer_file(&n.to_string(), String::new());
        }
        assert_eq!(challenges.files.load().len(), MAX_OFFERED);
    }
}
