//! A key that verifies tokens, and the algorithms that it may verify: the key decides, never the token.

use std::fmt;
use std::sync::Arc;

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{digest, hmac};
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::IdentityError;

/// PEM blocks of one file that are looked at.
const MAX_PEM_BLOCKS: usize = 10;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// The sign that a point is not compressed (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// A signature algorithm of RFC 7518 and RFC 8037. `none` is no algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub const ALL: [Self; 9] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The word in `alg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            // RFC 9864 names the curve.
            "Ed25519" => Some(Self::EdDsa),
            name => Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name),
        }
    }

    /// Whether both sides have the same key.
    pub fn is_symmetric(self) -> bool {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => true,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Es256 | Self::Es384 | Self::EdDsa => false,
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => "a secret",
            Self::Rs256 | Self::Rs384 | Self::Rs512 => "an RSA key",
            Self::Es256 => "a P-256 key",
            Self::Es384 => "a P-384 key",
            Self::EdDsa => "an Ed25519 key",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key and what it is for. Debug output and comparison do not show it.
#[derive(Clone)]
pub struct Key {
    id: Option<Box<str>>,
    /// `None`: all that its material can do.
    algorithm: Option<Algorithm>,
    material: Arc<Material>,
    /// SHA-256 of the material, to tell whether a key has changed.
    digest: [u8; 32],
}

#[derive(Debug)]
pub(crate) enum Material {
    /// The algorithm is that of the HMAC.
    Secret(Algorithm, hmac::Key),
    /// Modulus and exponent, big endian, without leading zeros.
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// An uncompressed point.
    P256(Vec<u8>),
    /// An uncompressed point.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// A secret that the issuer and the gateway share.
    ///
    /// # Errors
    /// The algorithm is not symmetric, or the secret is too short for it or no secret.
    pub fn secret(algorithm: Algorithm, secret: &str, id: Option<&str>) -> Result<Self, IdentityError> {
        let (hmac, least) = match algorithm {
            Algorithm::Hs256 => (hmac::HMAC_SHA256, 32),
            Algorithm::Hs384 => (hmac::HMAC_SHA384, 48),
            Algorithm::Hs512 => (hmac::HMAC_SHA512, 64),
            _ => return Err(IdentityError::PublicKeyExpected { algorithm }),
        };
        if secret.contains("-----BEGIN") {
            return Err(IdentityError::PemAsSecret { algorithm });
        }
        if secret.len() < least {
            return Err(IdentityError::ShortSecret { algorithm, got: secret.len(), least });
        }
        let material = Material::Secret(algorithm, hmac::Key::new(hmac, secret.as_bytes()));
        Ok(Self::new(Some(algorithm), material, secret.as_bytes(), id))
    }

    /// The first public key or certificate of a PEM file.
    ///
    /// # Errors
    /// There is none, or it is of another kind than the algorithm's.
    pub fn from_pem(algorithm: Algorithm, pem: &str, id: Option<&str>) -> Result<Self, IdentityError> {
        if algorithm.is_symmetric() {
            return Err(IdentityError::SecretExpected { algorithm });
        }
        let mut is_private = false;
        for block in Pem::iter_from_buffer(pem.as_bytes()).take(MAX_PEM_BLOCKS).flatten() {
            is_private |= block.label.contains("PRIVATE KEY");
            if let Some(material) = public_key(&block)? {
                return Self::of_material(Some(algorithm), material, id);
            }
        }
        Err(if is_private { IdentityError::PrivateKey } else { IdentityError::NoPublicKey })
    }

    /// # Errors
    /// The algorithm does not fit, or the RSA key is too small or too large.
    pub(crate) fn of_material(
        algorithm: Option<Algorithm>,
        material: Material,
        id: Option<&str>,
    ) -> Result<Self, IdentityError> {
        if let Some(algorithm) = algorithm
            && !material.can(algorithm)
        {
            let (needed, found) = (algorithm.needs(), material.kind());
            return Err(IdentityError::WrongKind { algorithm, needed, found });
        }
        let bytes = match &material {
            Material::Secret(algorithm, _) => {
                return Err(IdentityError::PublicKeyExpected { algorithm: *algorithm });
            }
            Material::Rsa(key) => {
                let bits = key.n.len() * 8 - key.n.first().map_or(0, |first| first.leading_zeros() as usize);
                if !RSA_BITS.contains(&bits) || key.e.is_empty() {
                    return Err(IdentityError::RsaSize { bits });
                }
                [&key.n[..], &key.e[..]].concat()
            }
            Material::P256(bytes) | Material::P384(bytes) | Material::Ed25519(bytes) => bytes.clone(),
        };
        Ok(Self::new(algorithm, material, &bytes, id))
    }

    fn new(algorithm: Option<Algorithm>, material: Material, bytes: &[u8], id: Option<&str>) -> Self {
        let mut sum = [0; 32];
        sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self { id: id.map(Into::into), algorithm, material: Arc::new(material), digest: sum }
    }

    /// Its `kid`.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether tokens may be signed with it in this way.
    pub fn can(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|only| only == algorithm) && self.material.can(algorithm)
    }

    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.can(algorithm) && self.material.verifies(algorithm, message, signature)
    }
}

impl Material {
    fn can(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Secret(only, _) => *only == algorithm,
            Self::Rsa(_) => matches!(algorithm, Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::P384(_) => algorithm == Algorithm::Es384,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Secret(..) => "a secret",
            Self::Rsa(_) => "an RSA key",
            Self::P256(_) => "a P-256 key",
            Self::P384(_) => "a P-384 key",
            Self::Ed25519(_) => "an Ed25519 key",
        }
    }

    /// Only for an algorithm that it can do.
    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            // In constant time.
            Self::Secret(_, key) => hmac::verify(key, message, signature),
            Self::Rsa(key) => {
                let parameters = match algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA256,
                };
                key.verify(parameters, message, signature)
            }
            Self::P256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::P384(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }

    /// An RSA key from big-endian numbers.
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        let trimmed = |bytes: &[u8]| {
            let start = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len());
            bytes[start..].to_vec()
        };
        Self::Rsa(RsaPublicKeyComponents { n: trimmed(modulus), e: trimmed(exponent) })
    }

    /// `None` when it is not an uncompressed point of P-256.
    pub(crate) fn p256(point: &[u8]) -> Option<Self> {
        (point.len() == 65 && point[0] == UNCOMPRESSED).then(|| Self::P256(point.to_vec()))
    }

    /// `None` when it is not an uncompressed point of P-384.
    pub(crate) fn p384(point: &[u8]) -> Option<Self> {
        (point.len() == 97 && point[0] == UNCOMPRESSED).then(|| Self::P384(point.to_vec()))
    }

    /// `None` when it has not the length of a key.
    pub(crate) fn ed25519(key: &[u8]) -> Option<Self> {
        (key.len() == 32).then(|| Self::Ed25519(key.to_vec()))
    }
}

/// The public key of a PEM block; `None` when it is a block of something else.
fn public_key(block: &Pem) -> Result<Option<Material>, IdentityError> {
    let bytes = &block.contents;
    let found = match block.label.as_str() {
        "PUBLIC KEY" => SubjectPublicKeyInfo::from_der(bytes).ok().and_then(|(_, key)| of_spki(&key)),
        "CERTIFICATE" => X509Certificate::from_der(bytes)
            .ok()
            .and_then(|(_, certificate)| of_spki(certificate.public_key())),
        "RSA PUBLIC KEY" => {
            RSAPublicKey::from_der(bytes).ok().map(|(_, key)| Material::rsa(key.modulus, key.exponent))
        }
        _ => return Ok(None),
    };
    found.map(Some).ok_or(IdentityError::NoPublicKey)
}

fn of_spki(key: &SubjectPublicKeyInfo<'_>) -> Option<Material> {
    let bytes = &*key.subject_public_key.data;
    if key.algorithm.algorithm == OID_SIG_ED25519 {
        return Material::ed25519(bytes);
    }
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => Some(Material::rsa(rsa.modulus, rsa.exponent)),
        // Other curves have points of the same length.
        PublicKey::EC(_) => match key.algorithm.parameters.as_ref()?.as_oid().ok()? {
            curve if curve == OID_EC_P256 => Material::p256(bytes),
            curve if curve == OID_NIST_EC_P384 => Material::p384(bytes),
            _ => None,
        },
        _ => None,
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, self.algorithm, self.digest) == (&other.id, other.algorithm, other.digest)
            && self.material.kind() == other.material.kind()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = self.algorithm.map_or("", Algorithm::as_str);
        write!(f, "Key({} {} {:?})", self.material.kind(), algorithm, self.id)
    }
}
