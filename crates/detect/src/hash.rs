//! Hashes of what clients send, the same in every process, so that the same requests give the same findings.
//! Must not key a map: a client can choose texts whose hashes are equal.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// SipHash-1-3 under a fixed key: evenly spread, and stable from version to version, so that it may be stored.
pub(crate) fn of(text: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x706F_7274_6375_6C6C, 0x6973_2064_6574_6563);
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Both halves of a hash in one.
pub(crate) fn short(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}
