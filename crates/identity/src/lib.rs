//! Who a request is from: what a signed token proves, and which sessions the upstream was seen to issue.
//!
//! Owns the verification of JWTs, the keys for it, and the table of observed sessions. Must not do I/O, read a
//! clock or know HTTP libraries; whatever it is given of a request is a stranger's word until proven.

mod claims;
mod cookie;
mod error;
mod hash;
mod key;
mod key_set;
mod learn;
mod saved;
mod sessions;
mod token;
mod verifier;

pub use claims::{ClaimPath, ClaimRules};
pub use cookie::{CookieChange, CookieValue, cookie_change, cookie_value};
pub use error::IdentityError;
pub use hash::HashKey;
pub use key::{Algorithm, Key};
pub use key_set::{KeySet, MAX_JWKS_BYTES, MAX_KEYS};
pub use learn::{Answer, Learned, Named, Step, Who};
pub use saved::MAX_SAVED_BYTES;
pub use sessions::{Known, MAX_SESSIONS, SessionRules, Sessions};
pub use token::{MAX_TOKEN_BYTES, TokenFault};
pub use verifier::{MAX_TRIES, TokenRules, TokenStats, Verifier};
