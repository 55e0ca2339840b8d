//! From many bad addresses to the network that somebody owns as a whole. Must not look at requests, nor
//! at what a prefix is worth to its neighbours other than by how many of them behave.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// So many bad /64 make a /56 bad, and so many /56 with a bad /64 make a /48 bad; so many bad IPv4 addresses make a
/// /24 bad. One attacker shows that many within minutes; neighbours who are bad by chance do not come in such numbers.
pub const MIN_BAD: usize = 8;
/// Of the /64 or addresses that came, this share must be bad: 3 of 4. Among the handsets of a carrier, or in a company,
/// the others are visitors.
const BAD_OF: (usize, usize) = (3, 4);

/// A prefix whose /64 or addresses are bad together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPrefix {
    /// A /56 or a /48, of IPv4 a /24.
    pub network: IpNet,
    /// Bad /64 or addresses.
    pub bad: usize,
    /// All that came.
    pub seen: usize,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    bad: usize,
    seen: usize,
    /// Of a /48: its /56 with a bad /64.
    bad_parts: usize,
}

impl Tally {
    fn is_mostly_bad(self) -> bool {
        self.bad * BAD_OF.1 >= self.seen * BAD_OF.0
    }
}

/// The widest prefixes that are bad, in the order of their addresses. `sites` are the IPv4 addresses and the /64 that
/// came, each once, and whether it is bad.
pub fn escalate(sites: impl IntoIterator<Item = (IpAddr, bool)>) -> Vec<BadPrefix> {
    let mut households: BTreeMap<Ipv6Net, Tally> = BTreeMap::new();
    let mut blocks: BTreeMap<Ipv4Net, Tally> = BTreeMap::new();
    for (site, is_bad) in sites {
        let tally = match site {
            IpAddr::V4(v4) => blocks.entry(Ipv4Net::new_assert(v4, 24).trunc()).or_default(),
            IpAddr::V6(v6) => households.entry(prefix(v6, 56)).or_default(),
        };
        tally.seen += 1;
        tally.bad += usize::from(is_bad);
    }
    blocks.retain(|_, tally| tally.bad >= MIN_BAD && tally.is_mostly_bad());
    let mut companies: BTreeMap<Ipv6Net, Tally> = BTreeMap::new();
    for (household, tally) in &households {
        let company = companies.entry(prefix(household.network(), 48)).or_default();
        company.seen += tally.seen;
        company.bad += tally.bad;
        company.bad_parts += usize::from(tally.bad > 0);
    }
    companies.retain(|_, tally| tally.bad_parts >= MIN_BAD && tally.is_mostly_bad());
    households.retain(|network, tally| {
        let is_inside = companies.contains_key(&prefix(network.network(), 48));
        !is_inside && tally.bad >= MIN_BAD && tally.is_mostly_bad()
    });
    let bad = |(network, tally): (IpNet, Tally)| BadPrefix { network, bad: tally.bad, seen: tally.seen };
    let v6 = companies.into_iter().chain(households).map(|(network, tally)| (IpNet::V6(network), tally));
    let v4 = blocks.into_iter().map(|(network, tally)| (IpNet::V4(network), tally));
    let mut found: Vec<BadPrefix> = v4.chain(v6).map(bad).collect();
    found.sort_by_key(|prefix| prefix.network);
    found
}

fn prefix(address: Ipv6Addr, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(address, length).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The /64 number `n` of 2001:db8:1::/48.
    fn site(n: u16) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 0).into()
    }

    fn found(sites: impl IntoIterator<Item = (IpAddr, bool)>) -> Vec<String> {
        escalate(sites).into_iter().map(|prefix| prefix.network.to_string()).collect()
    }

    #[test]
    fn eight_bad_networks_of_a_household_are_the_household() {
        assert_eq!(found((0..8).map(|n| (site(n), true))), ["2001:db8:1::/56"]);
        assert!(found((0..7).map(|n| (site(n), true))).is_empty());
    }

    #[test]
    fn bad_networks_all_over_a_company_are_the_company() {
        assert_eq!(found((0..8).map(|n| (site(n << 8), true))), ["2001:db8:1::/48"]);
        assert!(found((0..7).map(|n| (site(n << 8), true))).is_empty());
        let both = (0..8).map(|n| (site(n << 8), true)).chain((1..9).map(|n| (site(n), true)));
        assert_eq!(found(both), ["2001:db8:1::/48"], "the widest one alone");
    }

    #[test]
    fn a_rented_ipv4_network_is_bad_when_nearly_all_that_came_from_it_are() {
        let rented = |bad: u8, good: u8| {
            (0..bad + good).map(move |n| (IpAddr::from([192, 0, 2, n]), n < bad)).collect::<Vec<_>>()
        };
        assert_eq!(found(rented(8, 2)), ["192.0.2.0/24"]);
        assert!(found(rented(7, 0)).is_empty() && found(rented(8, 3)).is_empty());
        let scattered = (0..20).map(|n| (IpAddr::from([198, 51, n, 1]), true));
        assert!(found(scattered).is_empty());
    }

    #[test]
    fn neighbours_who_behave_keep_their_prefix_open() {
        let bad = || (0..8).map(|n| (site(n), true));
        assert_eq!(found(bad().chain((8..10).map(|n| (site(n), false)))), ["2001:db8:1::/56"]);
        assert!(found(bad().chain((8..11).map(|n| (site(n), false)))).is_empty());
        let handsets = (0..2_000).map(|n| (site(n * 16), n % 100 == 0));
        assert!(found(handsets).is_empty());
    }
}
