//! Random tokens of sessions, links and programs, and what of them may be kept.
//! Must not keep a token itself.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use portcullis_model::Secret;
use portcullis_store::TokenDigest;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac};

/// What API tokens begin with, so that people and scanners of secrets know them.
const API_PREFIX: &str = "pk_";
const BYTES: usize = 32;
/// Characters of the longest token that is looked up.
const MAX_CHARS: usize = 64;

/// A token for a session or a link: 32 random bytes.
pub fn new_token() -> Secret {
    Secret::new(&BASE64_URL_SAFE_NO_PAD.encode(random::<BYTES>()))
}

/// A token for a program.
pub fn new_api_token() -> Secret {
    Secret::new(&format!("{API_PREFIX}{}", new_token().expose()))
}

/// What is kept of a token.
pub fn digest_of(token: &Secret) -> TokenDigest {
    digest_of_text(token.expose())
}

/// The same of what somebody sent; `None` when that cannot be a token.
pub(super) fn digest_of_sent(text: &str) -> Option<TokenDigest> {
    (!text.is_empty() && text.len() <= MAX_CHARS).then(|| digest_of_text(text))
}

fn digest_of_text(text: &str) -> TokenDigest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    TokenDigest(bytes)
}

/// The token that the forms of a session carry: made from the session's, and says nothing about it.
pub(super) fn form_token(session: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, session.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, b"form").as_ref())
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (one, other) = (new_token(), new_token());
        assert_ne!(one, other);
        assert_eq!(one.expose().len(), 43);
        assert!(new_api_token().expose().starts_with("pk_"));
        assert!(digest_of(&one) == digest_of_sent(one.expose()).unwrap());
        assert!(digest_of_sent(&"x".repeat(65)).is_none());
        assert_ne!(form_token(one.expose()), form_token(other.expose()));
    }
}
