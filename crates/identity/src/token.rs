//! The outer form of a token: the compact serialisation of RFC 7515, taken apart strictly.
//! Must not judge what it claims.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Algorithm;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Why a token proves nothing. The words are label values of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenFault {
    /// Not three parts of base64url, or no JSON in them, or a critical extension.
    Malformed,
    TooLong,
    /// There are several, and servers differ in which one they take.
    Ambiguous,
    /// `alg` is `none`.
    Unsigned,
    /// `alg` is unknown, or not one that the keys are for.
    Algorithm,
    /// No key has its `kid`.
    UnknownKey,
    Signature,
    /// It does not say which key it is signed with, and more fit than are tried; the right one may be among the rest.
    TooManyKeys,
    NoExpiry,
    Expired,
    NotYetValid,
    Issuer,
    Audience,
    /// The claim of the user is missing, empty, too long or no text.
    NoUser,
}

impl TokenFault {
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::TooLong,
        Self::Ambiguous,
        Self::Unsigned,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::TooManyKeys,
        Self::NoExpiry,
        Self::Expired,
        Self::NotYetValid,
        Self::Issuer,
        Self::Audience,
        Self::NoUser,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Ambiguous => "ambiguous",
            Self::Unsigned => "unsigned",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::TooManyKeys => "too_many_keys",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoUser => "no_user",
        }
    }
}

/// A token whose signature has not been looked at.
pub(crate) struct Unverified<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    /// What the signature is of.
    pub(crate) message: &'a [u8],
    /// The JSON of the claims.
    pub(crate) claims: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

/// Members of the header (RFC 7515, 4.1); one that is there twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl<'a> Unverified<'a> {
    pub(crate) fn parse(token: &'a [u8]) -> Result<Self, TokenFault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenFault::TooLong);
        }
        let mut dots = token.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(TokenFault::Malformed);
        };
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed);
        let header: Header =
            serde_json::from_slice(&decode(&token[..first])?).map_err(|_| TokenFault::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenFault::Malformed);
        }
        let algorithm = match Algorithm::from_name(&header.alg) {
            Some(algorithm) => algorithm,
            // In whichever letters: some libraries have taken "nOnE" for it.
            None if header.alg.eq_ignore_ascii_case("none") => return Err(TokenFault::Unsigned),
            None => return Err(TokenFault::Algorithm),
        };
        Ok(Self {
            algorithm,
            key_id: header.kid,
            message: &token[..second],
            claims: decode(&token[first + 1..second])?,
            signature: decode(&token[second + 1..])?,
        })
    }
}
