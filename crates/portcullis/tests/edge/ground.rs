//! Where a table is run: a gateway with its listeners, the upstream behind it, and the addresses that a case
//! may come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use portcullis_testkit::{Authority, Gateway, GatewayConfig, StrictUpstream, client_config};
use rustls::ClientConfig;
use tempfile::TempDir;

/// The name in the gateway's certificate.
pub(crate) const NAME: &str = "edge.example";

/// Which listener a case connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    /// HTTP/1.1 by ALPN.
    Tls,
    /// HTTP/2 by ALPN.
    H2,
    /// The listener with TLS, and no TLS spoken.
    Bare,
}

/// The addresses that belong to one case: whichever of them a row names, the case is known by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) number: u16,
}

impl Addresses {
    /// Where the case connects from. Grounds with trusted proxies trust it.
    pub(crate) fn peer(self) -> Ipv4Addr {
        self.v4(127, 9)
    }

    /// Where it connects from when it must not be trusted.
    pub(crate) fn stranger(self) -> Ipv4Addr {
        self.v4(127, 10)
    }

    /// A client that a header or a PROXY line may name.
    pub(crate) fn client(self) -> Ipv4Addr {
        self.v4(198, 18)
    }

    pub(crate) fn client6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, self.number, 0, 0, 0, 1)
    }

    /// A client inside of the block that grounds with blocks have.
    pub(crate) fn blocked(self) -> Ipv4Addr {
        self.v4(198, 19)
    }

    /// A proxy in front of the peer, in 10/8.
    pub(crate) fn hop(self) -> Ipv4Addr {
        self.v4(10, 9)
    }

    fn v4(self, a: u8, b: u8) -> Ipv4Addr {
        let [c, d] = self.number.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    }

    /// The case that an address belongs to.
    pub(crate) fn owner(address: IpAddr) -> Option<Self> {
        let number = match address {
            IpAddr::V4(v4) => match v4.octets() {
                [127, 9 | 10, c, d] | [198, 18 | 19, c, d] | [10, 9, c, d] => u16::from_be_bytes([c, d]),
                _ => return None,
            },
            IpAddr::V6(v6) => match v6.segments() {
                [0x2001, 0xdb8, 0, number, 0, 0, 0, 1] => number,
                _ => return None,
            },
        };
        Some(Self { number })
    }
}

/// A gateway and its upstream.
pub(crate) struct Ground {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: StrictUpstream,
    authority: Authority,
    _folder: TempDir,
}

impl Ground {
    /// Nobody is trusted.
    pub(crate) fn direct() -> Self {
        Self::with(|config| config)
    }

    /// One plain listener, one with TLS and HTTP/2.
    pub(crate) fn with(more: impl FnOnce(GatewayConfig) -> GatewayConfig) -> Self {
        let upstream = StrictUpstream::start();
        let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
        let (cert, key) = authority.issue(&[NAME]).write(folder.path(), "edge");
        let listener = format!(
            "[[server.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ cert = \"{}\", key = \"{}\" }}]",
            cert.display(),
            key.display()
        );
        let config = GatewayConfig::new(env!("CARGO_BIN_EXE_portcullis"))
            .upstream_with(&format!("servers = [\"{}\"]", upstream.url()))
            .section(&listener);
        let gateway = Gateway::start(more(config));
        Self { gateway, upstream, authority, _folder: folder }
    }

    pub(crate) fn address(&self, over: Over) -> SocketAddr {
        match over {
            Over::Plain => self.gateway.address(),
            Over::Tls | Over::H2 | Over::Bare => self.gateway.tls_address(),
        }
    }

    pub(crate) fn tls_client(&self, over: Over) -> Option<Arc<ClientConfig>> {
        match over {
            Over::Plain | Over::Bare => None,
            Over::Tls => Some(client_config(&self.authority, &["http/1.1"])),
            Over::H2 => Some(client_config(&self.authority, &["h2"])),
        }
    }
}
