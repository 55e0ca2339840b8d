//! Sets of public keys as issuers publish them (RFC 7517). Nothing in one is trusted beyond what it is for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::key::Material;
use crate::{Algorithm, IdentityError, Key};

/// The largest key set that is read, in bytes.
pub const MAX_JWKS_BYTES: u64 = 1 << 20;
/// The most keys of a set, those that cannot be used included.
pub const MAX_KEYS: usize = 100;
/// The longest `kid`, in bytes.
const MAX_KEY_ID: usize = 1_024;

/// Keys that verify tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// The members of RFC 7517, 4 and RFC 7518, 6 that say what a public key is and is for.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys that are not for signatures, symmetric ones and those of unknown kinds are
    /// left out, as RFC 7517, 5 asks: a public document cannot hold a secret.
    ///
    /// # Errors
    /// It is too large, no key set, or has no usable key.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        if bytes.len() as u64 > MAX_JWKS_BYTES {
            return Err(IdentityError::KeySetTooLarge { got: bytes.len() as u64 });
        }
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| IdentityError::KeySetSyntax { problem: error.to_string() })?;
        let got = document.keys.len();
        if got > MAX_KEYS {
            return Err(IdentityError::TooManyKeys { got });
        }
        let keys: Vec<Key> = document
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok())
            .filter_map(|jwk| usable(&jwk))
            .collect();
        if keys.is_empty() { Err(IdentityError::NoUsableKey { got }) } else { Ok(Self { keys }) }
    }

    pub fn keys(&self) -> &[Key] {
        &self.keys
    }
}

fn usable(jwk: &Jwk) -> Option<Key> {
    let is_for_signatures = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|one| one == "verify"));
    let has_good_id = jwk.kid.as_ref().is_none_or(|id| id.len() <= MAX_KEY_ID);
    if !is_for_signatures || !has_good_id {
        return None;
    }
    let algorithm = match &jwk.alg {
        // One that is unknown here is not for the algorithms that are known.
        Some(name) => Some(Algorithm::from_name(name)?),
        None => None,
    };
    Key::of_material(algorithm, material(jwk)?, jwk.kid.as_deref()).ok()
}

fn material(jwk: &Jwk) -> Option<Material> {
    let decode = |field: &Option<String>| URL_SAFE_NO_PAD.decode(field.as_ref()?.trim_end_matches('=')).ok();
    let point = || Some([&[4][..], &decode(&jwk.x)?, &decode(&jwk.y)?].concat());
    match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Some(Material::rsa(&decode(&jwk.n)?, &decode(&jwk.e)?)),
        ("EC", Some("P-256")) => Material::p256(&point()?),
        ("EC", Some("P-384")) => Material::p384(&point()?),
        ("OKP", Some("Ed25519")) => Material::ed25519(&decode(&jwk.x)?),
        _ => None,
    }
}
