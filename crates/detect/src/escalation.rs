//! From many bad IPv6 networks to the wider one that somebody owns as a whole. Must not look at requests, nor
//! at what a prefix is worth to its neighbours other than by how many of them behave.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

/// So many bad /64 make a /56 bad, and so many /56 with a bad /64 make a /48 bad. One attacker shows that
/// many within minutes; neighbours who are bad by chance do not come in such numbers.
pub const MIN_BAD: usize = 8;
/// Of the /64 that came, this share must be bad: 3 of 4. Among the handsets of a carrier, or in a company,
/// the others are visitors.
const BAD_OF: (usize, usize) = (3, 4);

/// A prefix whose /64 are bad together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPrefix {
    /// A /56 or a /48.
    pub network: Ipv6Net,
    /// Bad /64.
    pub bad: usize,
    /// All /64 that came.
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

/// The widest prefixes that are bad, in the order of their addresses. `sites` are the /64 that came, each
/// once, and whether it is bad.
pub fn escalate(sites: impl IntoIterator<Item = (Ipv6Addr, bool)>) -> Vec<BadPrefix> {
    let mut households: BTreeMap<Ipv6Net, Tally> = BTreeMap::new();
    for (site, is_bad) in sites {
        let tally = households.entry(prefix(site, 56)).or_default();
        tally.seen += 1;
        tally.bad += usize::from(is_bad);
    }
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
    let bad = |(network, tally): (Ipv6Net, Tally)| BadPrefix { network, bad: tally.bad, seen: tally.seen };
    let mut found: Vec<BadPrefix> = companies.into_iter().chain(households).map(bad).collect();
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
    fn site(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 0)
    }

    fn found(sites: impl IntoIterator<Item = (Ipv6Addr, bool)>) -> Vec<String> {
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
    fn neighbours_who_behave_keep_their_prefix_open() {
        let bad = || (0..8).map(|n| (site(n), true));
        assert_eq!(found(bad().chain((8..10).map(|n| (site(n), false)))), ["2001:db8:1::/56"]);
        assert!(found(bad().chain((8..11).map(|n| (site(n), false)))).is_empty());
        let handsets = (0..2_000).map(|n| (site(n * 16), n % 100 == 0));
        assert!(found(handsets).is_empty());
    }
}
