//! Slow clients, what they are measured with, and the server behind the gateway that bears them.
//!
//! Owns the four ways of being slow. Each part runs in a process of its own, because one process may not
//! have enough descriptors for all of them; `bin/slow_check.rs` starts the processes and puts them together.

pub mod clients;
pub mod run;
pub mod sockets;
pub mod tls;
pub mod upstream;

use std::net::Ipv4Addr;

use clap::ValueEnum;

/// A way to hold a connection for as little as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kind {
    /// A request head that comes a byte at a time.
    Head,
    /// A request body that comes a byte at a time.
    Body,
    /// A large answer that is asked for and not read.
    Read,
    /// The same over HTTP/2, with a flow-control window of zero.
    ZeroWindow,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Head, Self::Body, Self::Read, Self::ZeroWindow];

    /// As it is written on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Body => "body",
            Self::Read => "read",
            Self::ZeroWindow => "zero-window",
        }
    }

    /// Whether it is spoken on the TLS listener.
    pub fn needs_tls(self) -> bool {
        self == Self::ZeroWindow
    }
}

/// Where slow connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sources {
    /// Each one has an address of its own, so that no cap per client hides what they cost.
    Spread,
    /// All of them have the same.
    One,
}

impl Sources {
    /// The address of connection `n`: loopback, but never 127.0.0.1, which is the trusted proxy's.
    pub fn address(self, kind: Kind, n: usize) -> Ipv4Addr {
        const PER_OCTET: usize = 250;
        let network = 16 * (kind as u8 + 1);
        match self {
            Self::One => Ipv4Addr::new(127, network, 0, 1),
            Self::Spread => {
                let octet = |n: usize| u8::try_from(n % PER_OCTET).unwrap_or(0);
                Ipv4Addr::new(127, network, octet(n / PER_OCTET), octet(n) + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn spread_connections_share_no_address_and_none_is_the_trusted_proxy_s() {
        let all: HashSet<Ipv4Addr> = Kind::ALL
            .into_iter()
            .flat_map(|kind| (0..5_000).map(move |n| Sources::Spread.address(kind, n)))
            .collect();
        assert_eq!(all.len(), 20_000);
        assert!(all.iter().all(|address| address.is_loopback()));
        assert!(!all.contains(&Ipv4Addr::LOCALHOST));
    }
}
