//! Which networks a list may not block, whoever wrote it: a feed that names the site's own proxy, or half of
//! the Internet, must not shut everybody out. Must not know where these networks come from.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::ranges::Ranges;

/// The shortest prefix of IPv4 that a list may block.
pub const WIDEST_V4: u8 = 8;
/// The shortest prefix of IPv6 that a list may block: providers get up to a /19 each.
pub const WIDEST_V6: u8 = 19;

/// Ranges that never belong to a stranger on the Internet, as first address and prefix length: this network,
/// private, shared, loopback, link-local, multicast, reserved (RFC 6890, RFC 6598, RFC 4193).
const NOT_STRANGERS: &[(IpAddr, u8)] = &[
    (v4(0, 0), 8),
    (v4(10, 0), 8),
    (v4(100, 64), 10),
    (v4(127, 0), 8),
    (v4(169, 254), 16),
    (v4(172, 16), 12),
    (v4(192, 168), 16),
    (v4(224, 0), 4),
    (v4(240, 0), 4),
    (v6(0), 96),
    (v6(0xfc00), 7),
    (v6(0xfe80), 10),
    (v6(0xff00), 8),
];

const fn v4(a: u8, b: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(a, b, 0, 0))
}

const fn v6(first: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0))
}

/// Why a network of a list is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// A prefix shorter than [`WIDEST_V4`] or [`WIDEST_V6`].
    TooWide,
    /// Private, loopback, link-local, multicast or reserved.
    NotAStranger,
    ThisMachine,
    TrustedProxy,
    /// An allow covers all of it, and always wins.
    Allowed,
}

impl Refused {
    pub const ALL: [Self; 5] =
        [Self::TooWide, Self::NotAStranger, Self::ThisMachine, Self::TrustedProxy, Self::Allowed];

    /// As part of a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooWide => "takes in a large part of the Internet",
            Self::NotAStranger => "private, loopback, multicast or reserved",
            Self::ThisMachine => "an address of this machine",
            Self::TrustedProxy => "a trusted proxy",
            Self::Allowed => "allowed, and an allow always wins",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Looks at each network of a list before it is used.
#[derive(Clone, Debug)]
pub struct Screen {
    never: Ranges,
    own: Ranges,
    proxies: Ranges,
    allowed: Ranges,
}

impl Screen {
    pub fn new(
        own: impl IntoIterator<Item = IpAddr>,
        proxies: impl IntoIterator<Item = IpNet>,
        allowed: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let never = NOT_STRANGERS.iter().map(|&(first, length)| IpNet::new_assert(first, length));
        Self {
            never: Ranges::new(never),
            own: Ranges::new(own.into_iter().map(IpNet::from)),
            proxies: Ranges::new(proxies),
            allowed: Ranges::new(allowed),
        }
    }

    /// Why this network may not be blocked by a list; `None`: it may.
    pub fn refuses(&self, network: &IpNet) -> Option<Refused> {
        let widest = match network {
            IpNet::V4(_) => WIDEST_V4,
            IpNet::V6(_) => WIDEST_V6,
        };
        if network.prefix_len() < widest {
            Some(Refused::TooWide)
        } else if self.never.touches(network) {
            Some(Refused::NotAStranger)
        } else if self.own.touches(network) {
            Some(Refused::ThisMachine)
        } else if self.proxies.touches(network) {
            Some(Refused::TrustedProxy)
        } else if self.allowed.holds(network) {
            Some(Refused::Allowed)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_shut_out_ones_own_side_is_refused() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let screen = Screen::new(
            ["198.51.100.7".parse().unwrap()],
            [net("203.0.113.64/26")],
            [net("192.0.2.0/25"), net("192.0.2.128/25")],
        );
        for (network, want) in [
            ("0.0.0.0/0", Some(Refused::TooWide)),
            ("16.0.0.0/7", Some(Refused::TooWide)),
            ("2001::/18", Some(Refused::TooWide)),
            ("10.1.2.3/32", Some(Refused::NotAStranger)),
            ("100.0.0.0/8", Some(Refused::NotAStranger)),
            ("127.0.0.1/32", Some(Refused::NotAStranger)),
            ("240.0.0.0/8", Some(Refused::NotAStranger)),
            ("fd00::/32", Some(Refused::NotAStranger)),
            ("::1/128", Some(Refused::NotAStranger)),
            ("198.51.100.0/24", Some(Refused::ThisMachine)),
            ("203.0.113.0/24", Some(Refused::TrustedProxy)),
            ("203.0.113.70/32", Some(Refused::TrustedProxy)),
            ("192.0.2.0/24", Some(Refused::Allowed)),
            ("192.0.2.9/32", Some(Refused::Allowed)),
            ("192.0.0.0/16", None),
            ("203.0.113.9/32", None),
            ("16.0.0.0/8", None),
            ("2001:db8::/32", None),
        ] {
            assert_eq!(screen.refuses(&net(network)), want, "{network}");
        }
    }
}
