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
    /// The `for` of `Forwarded` (RFC 7239), read from the right.
    Forwarded,
    /// One header that holds exactly one address, such as `CF-Connecting-IP`. Lower case.
    Header(Box<str>),
}

impl ClientIpSource {
    /// The header's name in lower case.
    pub fn header(&self) -> &str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::Header(name) => name,
        }
    }
}

/// Resolves the client's address.
///
/// `lines` are the values of the forwarding header in the order in which they came; they are read only
/// when `peer` is in `trusted`. For `X-Forwarded-For` and `Forwarded` the entries of all lines are read from the right:
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
        ClientIpSource::XForwardedFor => {
            let hops = lines.rev().flat_map(|line| line.rsplit(|&b| b == b','));
            rightmost_untrusted(peer, trusted, hops.map(parse_hop))
        }
        ClientIpSource::Forwarded => {
            let elements = lines.rev().flat_map(|line| Elements { rest: Some(line) });
            rightmost_untrusted(peer, trusted, elements.map(|element| parse_hop(parameter(element, b"for")?)))
        }
        ClientIpSource::Header(_) => {
            let mut lines = lines;
            match (lines.next().and_then(parse_hop), lines.next()) {
                (Some(client), None) => client,
                _ => peer,
            }
        }
    }
}

/// Whether the client's connection was over TLS, as the element of `Forwarded` says that names the client:
/// proxies further on may have had plain ones. `None`: it does not say. Only for lines of a trusted peer.
pub fn forwarded_is_https<'a, I>(trusted: &PrefixSet<IpNet>, lines: I) -> Option<bool>
where
    I: DoubleEndedIterator<Item = &'a [u8]>,
{
    let elements = lines.rev().flat_map(|line| Elements { rest: Some(line) });
    let mut proto = None;
    for element in elements.take(MAX_HOPS) {
        let Some(hop) = parameter(element, b"for").and_then(parse_hop) else { break };
        proto = parameter(element, b"proto");
        if trusted.lookup(hop.ip()).is_none() {
            break;
        }
    }
    proto.map(|proto| proto.eq_ignore_ascii_case(b"https"))
}

/// `hops` come from the right; `None` is one that is no address.
fn rightmost_untrusted(
    peer: ClientIp,
    trusted: &PrefixSet<IpNet>,
    hops: impl Iterator<Item = Option<ClientIp>>,
) -> ClientIp {
    let mut client = peer;
    for hop in hops.take(MAX_HOPS) {
        let Some(address) = hop else { break };
        client = address;
        if trusted.lookup(address.ip()).is_none() {
            break;
        }
    }
    client
}

/// The elements of a `Forwarded` line from the right. It is read backwards, quotes included: what a client
/// wrote stands to the left, so that a quote which it left open cannot swallow what our proxies added.
struct Elements<'a> {
    /// What is still unread; `None` when all has been.
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.rest?;
        let mut quoted = false;
        let comma = line.iter().enumerate().rposition(|(at, &byte)| {
            quoted ^= byte == b'"' && !is_escaped(line, at);
            byte == b',' && !quoted
        });
        let (rest, element) = match comma {
            Some(at) => (Some(&line[..at]), &line[at + 1..]),
            None => (None, line),
        };
        self.rest = rest;
        Some(element)
    }
}

/// Whether an odd number of backslashes stands before the byte.
fn is_escaped(line: &[u8], at: usize) -> bool {
    line[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// The one value of this name in an element, without its quotes. An element that is not made of `name=value`
/// pairs, or has two of the name, says nothing.
fn parameter<'a>(element: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut quoted = false;
    let pairs = element.split(|&byte| {
        quoted ^= byte == b'"';
        byte == b';' && !quoted
    });
    let mut found = None;
    for pair in pairs {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        if !name.eq_ignore_ascii_case(wanted) {
            continue;
        }
        let bare = value.strip_prefix(b"\"").map_or(Some(value), |inner| inner.strip_suffix(b"\""))?;
        if found.replace(bare).is_some() {
            return None;
        }
    }
    found
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

    fn resolve_forwarded(lines: &[&str]) -> String {
        let trusted =
            ["10.0.0.0/8"].map(|n| n.parse::<IpNet>().unwrap()).into_iter().map(|n| (n, n)).collect();
        let lines = lines.iter().map(|line| line.as_bytes());
        client_ip("10.0.0.2".parse().unwrap(), &trusted, &ClientIpSource::Forwarded, lines).to_string()
    }

    #[test]
    fn forwarded_is_read_from_the_right_with_quotes_brackets_and_ports() {
        for (lines, client) in [
            (&["for=198.51.100.7"][..], "198.51.100.7"),
            (&["For=\"198.51.100.7:4711\";proto=https;by=10.0.0.2"], "198.51.100.7"),
            (&["proto=https; for=198.51.100.7 "], "198.51.100.7"),
            (&["for=\"[2001:db8::7]\""], "2001:db8::7"),
            (&["for=\"[2001:db8::7]:80\", for=10.0.0.9"], "2001:db8::7"),
            (&["for=203.0.113.66, for=198.51.100.7, for=10.0.0.1"], "198.51.100.7"),
            (&["for=203.0.113.66", "for=198.51.100.7", "for=10.0.0.1;host=\"a,b;c\""], "198.51.100.7"),
            (&["for=198.51.100.7;host=\"a\\\",for=203.0.113.66;x=\\\"\""], "198.51.100.7"),
            (&["for=\"[::ffff:198.51.100.7]\""], "198.51.100.7"),
        ] {
            assert_eq!(resolve_forwarded(lines), client, "{lines:?}");
        }
    }

    #[test]
    fn what_names_no_address_in_forwarded_ends_the_walk() {
        for (line, client) in [
            ("", "10.0.0.2"),
            ("for=unknown", "10.0.0.2"),
            ("for=_hidden, for=10.0.0.1", "10.0.0.1"),
            ("for=203.0.113.66, by=10.0.0.1", "10.0.0.2"),
            ("for=203.0.113.66;for=198.51.100.7", "10.0.0.2"),
            ("198.51.100.7", "10.0.0.2"),
            ("for=\"198.51.100.7", "10.0.0.2"),
            ("for=198.51.100.7;secure", "10.0.0.2"),
            ("for=203.0.113.66, , for=10.0.0.1", "10.0.0.1"),
            ("for=\"[2001:db8::7]:_port\"", "10.0.0.2"),
        ] {
            assert_eq!(resolve_forwarded(&[line]), client, "{line:?}");
        }
    }

    #[test]
    fn the_element_that_names_the_client_says_how_it_came() {
        let trusted = std::iter::once("10.0.0.0/8".parse::<IpNet>().unwrap()).map(|n| (n, n)).collect();
        for (line, is_https) in [
            ("for=198.51.100.7;proto=https", Some(true)),
            ("for=198.51.100.7;proto=HTTPS, for=10.0.0.1;proto=http", Some(true)),
            ("for=203.0.113.66;proto=https, for=198.51.100.7;proto=http", Some(false)),
            ("proto=https, for=198.51.100.7", None),
            ("for=_hidden;proto=https", None),
            ("", None),
        ] {
            assert_eq!(forwarded_is_https(&trusted, std::iter::once(line.as_bytes())), is_https, "{line}");
        }
    }

    #[test]
    fn a_quote_that_a_client_left_open_swallows_nothing() {
        for said in ["for=\"", "for=\"[::1]\", host=\"", "\"", "for=\"a\\", "x=\"\\\""] {
            assert_eq!(
                resolve_forwarded(&[&format!("{said}, for=198.51.100.7")]),
                "198.51.100.7",
                "{said:?}"
            );
            let two_hops = format!("{said}, for=198.51.100.7;proto=https, for=\"10.0.0.1:80\"");
            assert_eq!(resolve_forwarded(&[&two_hops]), "198.51.100.7", "{said:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_client_writes_into_forwarded_hides_it(said in "[a-z0-9=;,\"\\\\ \\[\\]:._]{0,40}") {
            proptest::prop_assert_eq!(resolve_forwarded(&[&format!("{said}, for=198.51.100.7")]), "198.51.100.7");
        }
    }

    #[test]
    fn the_walk_is_bounded() {
        let long = ["for=10.0.0.1"; 10_000].join(",");
        assert_eq!(resolve_forwarded(&[&format!("for=198.51.100.7,{long}")]), "10.0.0.1");
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
