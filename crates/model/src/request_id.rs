//! The ID that a request carries from the edge to the log, the refusal page and `why`.

use std::fmt;
use std::str::FromStr;

use crate::UnixMs;

/// When the request began (48 bits of milliseconds) and 32 random bits, written as 16 characters of
/// Crockford's base 32. The time inside lets a look-up go straight to the right part of the log;
/// the random part keeps the ID from telling how many requests the site gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    time_ms: u64,
    random: u32,
}

/// The text is not a decision ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseRequestIdError(pub String);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LENGTH: usize = 16;
const TIME_BITS: u32 = 48;

impl RequestId {
    /// `random` should come from a random generator; times outside of 48 bits are clamped.
    pub fn new(at: UnixMs, random: u32) -> Self {
        let time_ms = u64::try_from(at.0).unwrap_or(0).min((1 << TIME_BITS) - 1);
        Self { time_ms, random }
    }

    /// When the request began.
    pub fn time(self) -> UnixMs {
        UnixMs(i64::try_from(self.time_ms).unwrap_or(i64::MAX))
    }

    /// The part that tells requests of one millisecond apart.
    pub fn random(self) -> u32 {
        self.random
    }

    /// The 16 ASCII characters of the ID, without an allocation.
    pub fn encode(self) -> [u8; LENGTH] {
        let mut bits = u128::from(self.time_ms) << 32 | u128::from(self.random);
        let mut out = [b'0'; LENGTH];
        for slot in out.iter_mut().rev() {
            *slot = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
        out
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.encode().iter().try_for_each(|&byte| fmt::Write::write_char(f, char::from(byte)))
    }
}

impl FromStr for RequestId {
    type Err = ParseRequestIdError;

    /// Accepts lower case, surrounding blanks, and the look-alikes that Crockford allows (`O`, `I`, `L`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        if trimmed.len() != LENGTH {
            return Err(ParseRequestIdError(text.to_owned()));
        }
        let mut bits: u128 = 0;
        for byte in trimmed.bytes() {
            let canonical = match byte.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                other => other,
            };
            let digit = ALPHABET
                .iter()
                .position(|&a| a == canonical)
                .ok_or_else(|| ParseRequestIdError(text.to_owned()))?;
            bits = bits << 5 | digit as u128;
        }
        Ok(Self { time_ms: (bits >> 32) as u64, random: bits as u32 })
    }
}

impl fmt::Display for ParseRequestIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected a decision ID of {LENGTH} letters and digits, got {:?}", self.0)
    }
}

impl std::error::Error for ParseRequestIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_and_sloppy_typing() {
        let id = RequestId::new(UnixMs(1_795_000_000_123), 0xDEAD_BEEF);
        let text = id.to_string();
        assert_eq!(text.len(), 16);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(format!(" {} ", text.to_lowercase().replace('0', "o")).parse(), Ok(id));
        assert!("not-an-id".parse::<RequestId>().is_err());
        assert!("UUUUUUUUUUUUUUUU".parse::<RequestId>().is_err());
    }

    #[test]
    fn ids_sort_by_time() {
        let early = RequestId::new(UnixMs(1_000), u32::MAX).to_string();
        let late = RequestId::new(UnixMs(1_001), 0).to_string();
        assert!(early < late);
    }
}
