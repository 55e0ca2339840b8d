//! Who the client is: the socket's peer, unless that is a proxy that the operator trusts.

use ipnet::IpNet;
use portcullis_model::ClientIp;
use std::net::IpAddr;

use crate::PrefixSet;

/// The most hops of forwarded addresses that are looked at, counted from the right.
pub const MAX_HOPS: usize = 32;

/// Which header a trusted proxy names the client in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientIpSource {
    /// `X-Forwarded-For`, read from the right.
    #[default]
    XForwardedFor,
    /// One header that holds exactly one address, such as `CF-Connecting-IP`. Lower case.
    Header(Box<str>),
}

/// Resolves the client's address.
///
/// `lines` are the values of the forwarding header in the order in which they came; they are read only
/// when `peer` is in `trusted`. For `X-Forwarded-For` the entries of all lines are read from the right:
/// the first that is not trusted is the client. An entry that is no address ends the walk, and the last
/// good hop is the client, because whatever stands to the left of junk was written by nobody we know.
/// For a single header, anything but exactly one line with one address leaves the peer.
pub fn client_ip<'a, I>(
    peer: ClientIp,
    trusted: &PrefixSet<IpNet>,
    source: &ClientIpSource,
    lines: I,
) -> ClientIp
where
    I: DoubleEndedIterator<Item = &'a [u8]>,
{
    if trusted.lookup(peer.ip()).is_none() {
        return peer;
    }
    match source {
        ClientIpSource::XForwardedFor => rightmost_untrusted(peer, trusted, lines),
        ClientIpSource::Header(_) => {
            let mut lines = lines;
            match (lines.next().and_then(parse_hop), lines.next()) {
                (Some(client), None) => client,
                _ => peer,
            }
        }
    }
}

fn rightmost_untrusted<'a, I>(peer: ClientIp, trusted: &PrefixSet<IpNet>, lines: I) -> ClientIp
where
    I: DoubleEndedIterator<Item = &'a [u8]>,
{
    let mut client = peer;
    let hops = lines.rev().flat_map(|line| line.rsplit(|&b| b == b','));
    for hop in hops.take(MAX_HOPS) {
        let Some(address) = parse_hop(hop) else { break };
        client = address;
        if trusted.lookup(address.ip()).is_none() {
            break;
        }
    }
    client
}

/// An address as proxies write it: bare, with a port, or an IPv6 address in brackets with or without one.
fn parse_hop(hop: &[u8]) -> Option<ClientIp> {
    let text = std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ClientIp::new(ip));
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, after.strip_prefix(':').or_else(|| after.is_empty().then_some("0"))?)
        }
        None => {
            let (address, port) = text.split_once(':')?;
            address.parse::<std::net::Ipv4Addr>().ok()?;
            (address, port)
        }
    };
    let numeric = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if !numeric || port.parse::<u16>().is_err() {
        return None;
    }
    address.parse::<IpAddr>().ok().map(ClientIp::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(peer: &str, lines: &[&str]) -> String {
        let trusted: PrefixSet<IpNet> = ["10.0.0.0/8", "2001:db8:ffff::/48"]
            .map(|n| n.parse::<IpNet>().unwrap())
            .into_iter()
            .map(|n| (n, n))
            .collect();
        let source = ClientIpSource::XForwardedFor;
        client_ip(peer.parse().unwrap(), &trusted, &source, lines.iter().map(|l| l.as_bytes())).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(resolve("203.0.113.9", &["198.51.100.7"]), "203.0.113.9");
    }

    #[test]
    fn the_rightmost_untrusted_hop_of_all_lines_is_the_client() {
        assert_eq!(resolve("10.0.0.2", &["evil, 198.51.100.7, 10.0.0.1"]), "198.51.100.7");
        assert_eq!(resolve("10.0.0.2", &["203.0.113.9", "198.51.100.7, 10.0.0.1"]), "198.51.100.7");
        assert_eq!(resolve("10.0.0.2", &["203.0.113.9", "10.0.0.1"]), "203.0.113.9");
        assert_eq!(resolve("2001:db8:ffff::1", &["2001:db8:1::5"]), "2001:db8:1::5");
        assert_eq!(resolve("::ffff:10.0.0.2", &["::ffff:198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn junk_never_becomes_an_address_and_ends_the_walk() {
        for (line, client) in [
            ("unknown", "10.0.0.2"),
            ("", "10.0.0.2"),
            ("198.51.100.7, unknown, 10.0.0.1", "10.0.0.1"),
            ("1.2.3.4:80", "1.2.3.4"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]x", "10.0.0.2"),
            ("1.2.3.4:", "10.0.0.2"),
            ("1.2.3.4:99999", "10.0.0.2"),
            ("1.2.3.4:+80", "10.0.0.2"),
            ("1.2.3", "10.0.0.2"),
            ("01.2.3.4", "10.0.0.2"),
        ] {
            assert_eq!(resolve("10.0.0.2", &[line]), client, "{line:?}");
        }
    }

    #[test]
    fn the_walk_is_bounded() {
        let long = ["10.0.0.1"; 10_000].join(",");
        assert_eq!(resolve("10.0.0.2", &[&format!("198.51.100.7,{long}")]), "10.0.0.1");
    }

    #[test]
    fn a_single_header_must_come_once_and_hold_one_address() {
        let trusted: PrefixSet<IpNet> =
            std::iter::once("10.0.0.0/8".parse::<IpNet>().unwrap()).map(|n| (n, n)).collect();
        let source = ClientIpSource::Header("cf-connecting-ip".into());
        let of = |lines: &[&str]| {
            client_ip("10.0.0.2".parse().unwrap(), &trusted, &source, lines.iter().map(|l| l.as_bytes()))
                .to_string()
        };
        assert_eq!(of(&["198.51.100.7"]), "198.51.100.7");
        assert_eq!(of(&["198.51.100.7", "198.51.100.8"]), "10.0.0.2");
        assert_eq!(of(&["198.51.100.7, 198.51.100.8"]), "10.0.0.2");
        assert_eq!(of(&[]), "10.0.0.2");
    }
}
