//! What is wrong with keys and files that the operator gave. What is wrong with a request is no error:
//! that is a [`crate::TokenFault`].

use crate::Algorithm;

/// Each message says what to do, and holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "the secret has {got} bytes, {algorithm} needs {least} or more (RFC 7518, 3.2): make one with \"openssl rand \
         -hex {least}\""
    )]
    ShortSecret { algorithm: Algorithm, got: usize, least: usize },
    #[error(
        "this is a PEM key, which is no secret; {algorithm} takes a shared secret, a PEM key belongs to RS256, ES256 \
         or EdDSA"
    )]
    PemAsSecret { algorithm: Algorithm },
    #[error("{algorithm} takes a shared secret, not the key of a file")]
    SecretExpected { algorithm: Algorithm },
    #[error("{algorithm} takes a public key from a PEM file, not a secret")]
    PublicKeyExpected { algorithm: Algorithm },
    #[error("there is no PEM public key in it (-----BEGIN PUBLIC KEY----- or a certificate)")]
    NoPublicKey,
    #[error(
        "it is a private key, which the gateway must not have; write the public one (openssl pkey -in FILE -pubout)"
    )]
    PrivateKey,
    #[error("{algorithm} needs {needed}, this is {found}")]
    WrongKind { algorithm: Algorithm, needed: &'static str, found: &'static str },
    #[error("an RSA key of {bits} bits; 2048 to 8192 are possible")]
    RsaSize { bits: usize },
    #[error("the key set has {got} bytes, at most {} are read", crate::MAX_JWKS_BYTES)]
    KeySetTooLarge { got: u64 },
    #[error("the key set is no JSON Web Key Set (RFC 7517): {problem}")]
    KeySetSyntax { problem: String },
    #[error("the key set has {got} keys, at most {} are possible", crate::MAX_KEYS)]
    TooManyKeys { got: usize },
    #[error(
        "none of the {got} keys of the set can verify tokens (RSA, P-256, P-384 or Ed25519, for signatures)"
    )]
    NoUsableKey { got: usize },
    #[error("the saved sessions cannot be read: {problem}")]
    SavedSessions { problem: String },
    #[error("the system has no random numbers")]
    NoRandomness,
}
