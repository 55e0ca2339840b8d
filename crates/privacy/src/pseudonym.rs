//! Addresses that stand for other addresses.
//!
//! Owns their form: a log whose address column holds anything but addresses would be a second kind of log for
//! every reader. Must not keep who is behind one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use portcullis_model::ClientIp;
use ring::hmac;

/// Bytes of a key.
pub const SECRET_BYTES: usize = 32;

/// `3fff::/20`, set aside for documentation (RFC 9637): no packet comes from there.
const PREFIX: u128 = 0x3fff << 112;
const PREFIX_MASK: u128 = u128::MAX << 108;
/// The bit after the prefix tells the two kinds apart.
const KEPT_BIT: u128 = 1 << 107;
/// What is left of the upper half for the hash: 43 bits.
const NETWORK_BITS: u128 = (1 << 43) - 1;

/// What a pseudonym is for. Each kind has its own half of the range, and hashes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A row of the log: `3fff::/21`.
    Row,
    /// A block that outlives the erasure of its address: `3fff:800::/21`.
    Block,
}

impl Kind {
    fn domain(self) -> &'static [u8] {
        match self {
            Self::Row => b"portcullis row\0",
            Self::Block => b"portcullis block\0",
        }
    }
}

/// Whether the address stands for another one.
pub fn is_pseudonym(client: ClientIp) -> bool {
    match client.ip() {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.to_bits() & PREFIX_MASK == PREFIX,
    }
}

/// The first address of an IPv4 address's /24, of an IPv6 address's /48.
pub fn truncate(client: ClientIp) -> ClientIp {
    client.network()
}

/// The key behind pseudonyms (HMAC-SHA-256). Whoever has it can try all IPv4 addresses in minutes; once it is
/// gone, nobody can.
#[derive(Clone)]
pub struct PseudonymKey(hmac::Key);

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKey(..)")
    }
}

impl PseudonymKey {
    pub fn new(secret: &[u8; SECRET_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The address that stands for `client`. Addresses of one IPv6 /64 share the upper half of theirs, so that
    /// what counts by /64 counts the same. A pseudonym stands for itself.
    pub fn pseudonym(&self, kind: Kind, client: ClientIp) -> ClientIp {
        if is_pseudonym(client) {
            return client;
        }
        let subscriber = client.limit_key();
        let of_subscriber = self.hash(kind, subscriber);
        let network = upper_half(&of_subscriber) & NETWORK_BITS;
        let host = match client.ip() {
            // The other bytes of the same hash: one is enough.
            IpAddr::V4(_) => lower_half(&of_subscriber),
            // The /64 itself has the pseudonym of a /64.
            ip @ IpAddr::V6(_) if ip == subscriber => 0,
            ip @ IpAddr::V6(_) => lower_half(&self.hash(kind, ip)),
        };
        let kept = match kind {
            Kind::Row => 0,
            Kind::Block => KEPT_BIT,
        };
        ClientIp::new(IpAddr::V6(Ipv6Addr::from_bits(PREFIX | kept | (network << 64) | host)))
    }

    /// A keyed hash of any text, 32 hexadecimal digits: what can be compared and not be read.
    pub fn digest(&self, domain: &str, text: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(domain.as_bytes());
        context.update(b"\0");
        context.update(text.as_bytes());
        context.sign().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    fn hash(&self, kind: Kind, ip: IpAddr) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(kind.domain());
        match ip {
            IpAddr::V4(v4) => context.update(&v4.octets()),
            IpAddr::V6(v6) => context.update(&v6.octets()),
        }
        context.sign()
    }
}

fn upper_half(tag: &hmac::Tag) -> u128 {
    number(tag.as_ref().iter().take(8))
}

fn lower_half(tag: &hmac::Tag) -> u128 {
    number(tag.as_ref().iter().skip(8).take(8))
}

fn number<'b>(bytes: impl Iterator<Item = &'b u8>) -> u128 {
    bytes.fold(0, |sum, &byte| sum << 8 | u128::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> ClientIp {
        text.parse().unwrap()
    }

    fn key(n: u8) -> PseudonymKey {
        PseudonymKey::new(&[n; SECRET_BYTES])
    }

    #[test]
    fn truncated_addresses_keep_a_24_or_a_48() {
        assert_eq!(truncate(ip("203.0.113.77")), ip("203.0.113.0"));
        assert_eq!(truncate(ip("::ffff:203.0.113.77")), ip("203.0.113.0"));
        assert_eq!(truncate(ip("2001:db8:1:2:3::4")), ip("2001:db8:1::"));
        assert_eq!(truncate(truncate(ip("203.0.113.77"))), ip("203.0.113.0"));
    }

    #[test]
    fn a_pseudonym_is_the_same_under_one_key_and_another_under_the_next() {
        for client in ["203.0.113.77", "2001:db8:1:2:3::4"].map(ip) {
            let one = key(1).pseudonym(Kind::Row, client);
            assert!(is_pseudonym(one) && !is_pseudonym(client));
            assert_eq!(one, key(1).pseudonym(Kind::Row, client));
            assert_eq!(one, key(2).pseudonym(Kind::Row, one), "a pseudonym stands for itself");
            assert_ne!(one, key(2).pseudonym(Kind::Row, client));
            assert_ne!(one, key(1).pseudonym(Kind::Block, client));
        }
    }

    #[test]
    fn neighbours_in_an_ipv6_64_stay_neighbours_and_ipv4_neighbours_do_not() {
        let of = |text| key(1).pseudonym(Kind::Row, ip(text)).limit_key();
        assert_eq!(of("2001:db8:1:2::5"), of("2001:db8:1:2:ffff::9"));
        assert_eq!(key(1).pseudonym(Kind::Row, ip("2001:db8:1:2::")).ip(), of("2001:db8:1:2::5"));
        assert_ne!(of("2001:db8:1:2::5"), of("2001:db8:1:3::5"));
        assert_ne!(of("203.0.113.1"), of("203.0.113.2"));
    }

    #[test]
    fn each_kind_has_its_half_of_the_range() {
        let half = |kind| match key(1).pseudonym(kind, ip("203.0.113.77")).ip() {
            IpAddr::V6(v6) => v6.to_bits() >> 107,
            IpAddr::V4(_) => 0,
        };
        assert_eq!(half(Kind::Row) + 1, half(Kind::Block));
    }

    #[test]
    fn a_digest_says_nothing_about_its_text_and_depends_on_the_key() {
        let one = key(1).digest("opt-out", "alice");
        assert!(one.len() == 32 && one.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(one, key(2).digest("opt-out", "alice"));
        assert_ne!(one, key(1).digest("receipt", "alice"));
    }
}
