//! The client's address in its one canonical form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

/// A client's address. IPv4-mapped (`::ffff:0:0/96`) and NAT64 (`64:ff9b::/96`) forms are IPv4 here,
/// so that a block of `192.0.2.1` also meets the same client when it arrives over IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "IpAddr", into = "IpAddr")]
pub struct ClientIp(IpAddr);

/// An IPv6 prefix wider than a /64 that one subscriber may own: all its /64 share what is left to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SharedPrefix {
    /// What many providers give a household.
    Slash56,
    /// What a provider gives a company, and a tunnel broker anybody.
    Slash48,
}

impl SharedPrefix {
    /// The narrower first.
    pub const ALL: [Self; 2] = [Self::Slash56, Self::Slash48];

    /// Bits of the prefix.
    pub fn length(self) -> u8 {
        match self {
            Self::Slash56 => 56,
            Self::Slash48 => 48,
        }
    }

    /// The prefix that holds the address; IPv4 has none.
    pub fn of(self, ip: IpAddr) -> Option<IpNet> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(IpNet::V6(Ipv6Net::new_assert(v6, self.length()).trunc())),
        }
    }
}

/// The text is not an IPv4 or IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseClientIpError(pub String);

const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

impl ClientIp {
    /// The only constructor: canonicalises.
    pub fn new(ip: IpAddr) -> Self {
        let IpAddr::V6(v6) = ip else { return Self(ip) };
        if let Some(v4) = v6.to_ipv4_mapped() {
            return Self(IpAddr::V4(v4));
        }
        let s = v6.segments();
        if s[..6] == NAT64 {
            let [a, b] = s[6].to_be_bytes();
            let [c, d] = s[7].to_be_bytes();
            return Self(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
        }
        Self(ip)
    }

    /// The canonical address.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// The first address of its network: the /24 of an IPv4 address, the /48 of an IPv6 address, which say where
    /// somebody is and not who.
    pub fn network(self) -> Self {
        Self(match self.0 {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80))),
        })
    }

    /// The address whose requests are counted together: IPv4 as it is, IPv6 by its /64, because one
    /// subscriber commonly owns a whole /64 and can use any address of it.
    pub fn limit_key(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        }
    }

    /// All addresses that are counted together with this one: itself, or the /64 around it.
    pub fn limit_network(self) -> IpNet {
        let key = self.limit_key();
        IpNet::new_assert(key, if key.is_ipv4() { 32 } else { 64 })
    }
}

impl From<IpAddr> for ClientIp {
    fn from(ip: IpAddr) -> Self {
        Self::new(ip)
    }
}

impl From<ClientIp> for IpAddr {
    fn from(client: ClientIp) -> Self {
        client.0
    }
}

impl FromStr for ClientIp {
    type Err = ParseClientIpError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Self::new).map_err(|_| ParseClientIpError(text.to_owned()))
    }
}

impl fmt::Display for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ParseClientIpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected an IPv4 or IPv6 address, got {:?}", self.0)
    }
}

impl std::error::Error for ParseClientIpError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_and_nat64_addresses_are_the_ipv4_address_inside() {
        for text in ["192.0.2.1", "::ffff:192.0.2.1", "64:ff9b::c000:201"] {
            assert_eq!(text.parse::<ClientIp>().unwrap().to_string(), "192.0.2.1");
        }
        assert_eq!(
            "::192.0.2.1".parse::<ClientIp>().unwrap().to_string(),
            "::192.0.2.1".parse::<IpAddr>().unwrap().to_string()
        );
    }

    #[test]
    fn ipv6_addresses_of_one_64_share_a_limit_key() {
        let a: ClientIp = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        let b: ClientIp = "2001:db8:1:2:ffff::1".parse().unwrap();
        let other: ClientIp = "2001:db8:1:3::1".parse().unwrap();
        assert_eq!(a.limit_key(), b.limit_key());
        assert_ne!(a.limit_key(), other.limit_key());
    }

    #[test]
    fn shared_prefixes_cut_the_address_and_leave_ipv4_alone() {
        let of =
            |ip: &str| SharedPrefix::ALL.map(|prefix| prefix.of(ip.parse().unwrap()).map(|n| n.to_string()));
        assert_eq!(
            of("2001:db8:1:fffe::5"),
            [Some("2001:db8:1:ff00::/56".to_owned()), Some("2001:db8:1::/48".to_owned())]
        );
        assert_eq!(of("192.0.2.1"), [None, None]);
    }
}
