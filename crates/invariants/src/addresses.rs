//! Addresses from the wire: whom forwarding headers may name, and which network an address is in.

use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;
use portcullis_model::{ClientIp, network_of};
use portcullis_policy::{ClientIpSource, MAX_HOPS, PrefixSet, client_ip};

/// Trusted proxies: private IPv4, and one IPv6 network. Built once: its tables are large.
static TRUSTED: LazyLock<PrefixSet<IpNet>> = LazyLock::new(|| {
    ["10.0.0.0/8", "2001:db8:ffff::/48"]
        .into_iter()
        .filter_map(|text| text.parse::<IpNet>().ok())
        .map(|network| (network, network))
        .collect()
});

/// The first byte chooses the peer and the kind of header; the rest are the header's lines.
pub fn forwarded(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let is_trusted = |client: ClientIp| TRUSTED.lookup(client.ip()).is_some();
    let peers: [[u8; 4]; 2] = [[10, 0, 0, 2], [203, 0, 113, 9]];
    let peer = ClientIp::new(IpAddr::from(peers[usize::from(choice & 1)]));
    let source = match choice & 2 {
        0 => ClientIpSource::XForwardedFor,
        _ => ClientIpSource::Header("cf-connecting-ip".into()),
    };
    let lines: Vec<&[u8]> = rest.split(|&b| b == b'\n').collect();
    let of = |lines: &[&[u8]]| client_ip(peer, &TRUSTED, &source, lines.iter().copied());
    let client = of(&lines);
    if !is_trusted(peer) {
        assert_eq!(client, peer, "nobody else may name the client");
        return;
    }
    if source != ClientIpSource::XForwardedFor {
        assert!(client == peer || lines.len() == 1);
        return;
    }
    let hops = rest.rsplit(|b| matches!(b, b'\n' | b',')).take(MAX_HOPS);
    assert!(client == peer || hops.into_iter().any(|hop| names(hop, client)), "{client} was not named");
    let further = of(&[&[&b"198.51.100.99"[..]], &lines[..]].concat());
    let is_reached = is_trusted(client) && further.to_string() == "198.51.100.99";
    assert!(
        further == client || is_reached,
        "what stands further left is asked only if all others are trusted"
    );
    let nearer = [&lines[..], &[&b"198.51.100.99"[..]]].concat();
    assert_eq!(of(&nearer).to_string(), "198.51.100.99", "the last hop that is not trusted is the client");
}

/// Whether the text holds the address in some spelling of it.
fn names(hop: &[u8], client: ClientIp) -> bool {
    let Ok(text) = std::str::from_utf8(hop) else { return false };
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let before_port = text.rsplit_once(':').map(|(address, _)| address);
    let spellings = [Some(text), bare, before_port];
    spellings
        .into_iter()
        .flatten()
        .any(|text| text.parse::<IpAddr>().is_ok_and(|ip| ClientIp::new(ip) == client))
}

/// Lines: what names a network goes into the set, and each address is looked up in it.
pub fn cidr(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut networks: Vec<IpNet> = Vec::new();
    for line in text.lines() {
        if let Ok(network) = network_of(line) {
            assert_eq!(network, network.trunc(), "no bits behind the prefix");
            assert_eq!(network_of(&network.to_string()), Ok(network), "what is written is read again");
            networks.push(network);
        }
    }
    let set: PrefixSet<IpNet> = networks.iter().map(|&network| (network, network)).collect();
    let addresses = networks.iter().flat_map(|network| [network.network(), network.broadcast()]);
    for address in addresses.chain(text.lines().filter_map(|line| line.parse().ok())) {
        let longest = networks.iter().filter(|network| network.contains(&address));
        let longest = longest.max_by_key(|network| network.prefix_len());
        assert_eq!(set.lookup(address), longest, "{address}");
    }
}
