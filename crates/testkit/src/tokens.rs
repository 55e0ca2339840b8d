//! JSON Web Tokens of every kind, good and bad, made by the tests themselves. The RSA key is for tests alone.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding,
    RsaKeyPair,
};
use ring::{hmac, rsa};
use serde_json::{Value, json};

const RSA_PRIVATE: &str = include_str!("keys/rsa-private.pk8.b64");
/// The public half of the RSA key that tokens of [`Signer::rs`] are signed with.
pub const RSA_PUBLIC_PEM: &str = include_str!("keys/rsa-public.pem");
/// An RSA key that is too small to be trusted.
pub const RSA_1024_PUBLIC_PEM: &str = include_str!("keys/rsa-1024-public.pem");

/// What comes before the point in the DER of a public key on P-256.
const P256_SPKI: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// What comes before the key in the DER of an Ed25519 public key.
const ED25519_SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

enum Secret {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

/// One who issues tokens.
pub struct Signer {
    algorithm: &'static str,
    secret: Secret,
}

impl Signer {
    /// HS256, HS384 or HS512.
    pub fn hs(algorithm: &'static str, secret: &[u8]) -> Self {
        let hash = match algorithm {
            "HS256" => hmac::HMAC_SHA256,
            "HS384" => hmac::HMAC_SHA384,
            "HS512" => hmac::HMAC_SHA512,
            other => panic!("{other} is no HMAC"),
        };
        Self { algorithm, secret: Secret::Hmac(hmac::Key::new(hash, secret)) }
    }

    /// RS256, RS384 or RS512; always with the same key.
    pub fn rs(algorithm: &'static str) -> Self {
        let encoding: &'static dyn RsaEncoding = match algorithm {
            "RS256" => &RSA_PKCS1_SHA256,
            "RS384" => &RSA_PKCS1_SHA384,
            "RS512" => &RSA_PKCS1_SHA512,
            other => panic!("{other} is no RSA"),
        };
        let der = STANDARD.decode(RSA_PRIVATE.split_whitespace().collect::<String>()).unwrap();
        Self { algorithm, secret: Secret::Rsa(RsaKeyPair::from_pkcs8(&der).unwrap(), encoding) }
    }

    /// ES256 or ES384, with a new key.
    pub fn es(algorithm: &'static str) -> Self {
        let (curve, how): (_, &'static EcdsaSigningAlgorithm) = match algorithm {
            "ES256" => ("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            other => panic!("{other} is no ECDSA"),
        };
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(how, der.as_ref(), &random).unwrap();
        Self { algorithm, secret: Secret::Ec(pair, curve) }
    }

    /// EdDSA, with a new key.
    pub fn ed() -> Self {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { algorithm: "EdDSA", secret: Secret::Ed(Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap()) }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm, "typ": "JWT" }), claims)
    }

    /// A token that names its key.
    pub fn token_of_key(&self, kid: &str, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm, "kid": kid }), claims)
    }

    /// A token with any header; the signature is this signer's, whatever the header says.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(&header.to_string()), encode(&claims.to_string()));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Secret::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Secret::Ec(pair, _) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Secret::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key as a member of a key set.
    pub fn jwk(&self, kid: &str) -> Value {
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.secret {
            Secret::Hmac(_) => panic!("a secret has no public half"),
            Secret::Rsa(pair, _) => {
                let public: rsa::PublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": number(&public.n), "e": number(&public.e) })
            }
            Secret::Ec(pair, curve) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                json!({ "kty": "EC", "kid": kid, "crv": curve, "alg": self.algorithm, "x": number(x), "y": number(y) })
            }
            Secret::Ed(pair) => {
                json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": number(pair.public_key().as_ref()) })
            }
        }
    }

    /// The public key as a PEM file.
    pub fn public_pem(&self) -> String {
        let (start, key) = match &self.secret {
            Secret::Rsa(..) => return RSA_PUBLIC_PEM.to_owned(),
            Secret::Ec(pair, "P-256") => (P256_SPKI, pair.public_key().as_ref()),
            Secret::Ed(pair) => (ED25519_SPKI, pair.public_key().as_ref()),
            Secret::Hmac(_) | Secret::Ec(..) => panic!("no PEM of {}", self.algorithm),
        };
        let der = STANDARD.encode([start, key].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
    }
}

/// A key set of these members.
pub fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}
