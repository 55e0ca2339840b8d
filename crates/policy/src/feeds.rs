//! Lists of addresses that others publish, in force as they are: compact, never changed, swapped as a whole.
//!
//! A list is two sorted arrays of ranges per family, without overlaps: 8 bytes for a range of IPv4, 32 of
//! IPv6. Must not know where a list comes from.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;

use crate::Mode;
use crate::prefixes::Blocks;

/// The most lists of a configuration: each costs every request a look-up.
pub const MAX_FEEDS: usize = 32;

/// Lists with more ranges than this get a table over the first 16 bits of IPv4.
const TABLE_FROM: usize = 4_096;

/// One list in force.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Unique.
    pub name: Arc<str>,
    pub mode: Mode,
    pub addresses: Arc<AddressRanges>,
}

/// All lists in force, in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Feeds(Vec<Arc<Feed>>);

impl Feeds {
    /// Takes the first [`MAX_FEEDS`].
    pub fn new(feeds: impl IntoIterator<Item = Arc<Feed>>) -> Self {
        Self(feeds.into_iter().take(MAX_FEEDS).collect())
    }

    /// The first list that has the address; one in dry-run only if no enforced one has it.
    pub fn find(&self, ip: IpAddr) -> Option<&Feed> {
        let mut in_dry_run = None;
        for feed in self.0.iter().filter(|feed| feed.addresses.contains(ip)) {
            match feed.mode {
                Mode::Enforce => return Some(feed),
                Mode::DryRun => in_dry_run = in_dry_run.or(Some(&**feed)),
            }
        }
        in_dry_run
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.0.iter()
    }
}

/// An immutable set of addresses, built by `collect()` from networks in any order.
#[derive(Clone, Debug, Default)]
pub struct AddressRanges {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// `None` when there are few ranges of IPv4.
    v4_blocks: Option<Blocks>,
}

/// Sorted, neither touching nor overlapping; `ends` are inclusive.
#[derive(Clone, Debug, Default)]
struct Ranges<A> {
    starts: Vec<A>,
    ends: Vec<A>,
}

impl<A: Copy + Ord> Ranges<A> {
    /// `next` is the address after another one, the last one's is itself.
    fn build(mut all: Vec<(A, A)>, next: impl Fn(A) -> A) -> Self {
        all.sort_unstable();
        let mut ranges = Self { starts: Vec::with_capacity(all.len()), ends: Vec::with_capacity(all.len()) };
        for (start, end) in all {
            match ranges.ends.last_mut() {
                Some(last) if start <= next(*last) => *last = end.max(*last),
                _ => {
                    ranges.starts.push(start);
                    ranges.ends.push(end);
                }
            }
        }
        ranges.starts.shrink_to_fit();
        ranges.ends.shrink_to_fit();
        ranges
    }

    /// The last range that starts at or before the address is one of `among`, or just before them.
    fn contains(&self, address: A, among: Range<usize>) -> bool {
        let after = among.start + self.starts[among].partition_point(|&start| start <= address);
        after.checked_sub(1).is_some_and(|at| address <= self.ends[at])
    }
}

impl AddressRanges {
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => {
                let address = v4.to_bits();
                let range = match &self.v4_blocks {
                    None => 0..self.v4.starts.len(),
                    Some(blocks) => blocks.range(address),
                };
                self.v4.contains(address, range)
            }
            IpAddr::V6(v6) => self.v6.contains(v6.to_bits(), 0..self.v6.starts.len()),
        }
    }

    /// How many ranges it has: networks that touch are one.
    pub fn len(&self) -> usize {
        self.v4.starts.len() + self.v6.starts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        let table = self.v4_blocks.as_ref().map_or(0, Blocks::memory);
        self.v4.starts.len() * 8 + self.v6.starts.len() * 32 + table
    }
}

impl FromIterator<IpNet> for AddressRanges {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        let v4 = Ranges::build(v4, |address: u32| address.saturating_add(1));
        let v6 = Ranges::build(v6, |address: u128| address.saturating_add(1));
        let v4_blocks = (v4.starts.len() >= TABLE_FROM).then(|| Blocks::of(&v4.starts));
        Self { v4, v6, v4_blocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(name: &str, mode: Mode, networks: &[&str]) -> Arc<Feed> {
        let addresses: AddressRanges = networks.iter().map(|text| text.parse::<IpNet>().unwrap()).collect();
        Arc::new(Feed { name: name.into(), mode, addresses: Arc::new(addresses) })
    }

    #[test]
    fn an_enforced_list_speaks_before_one_in_dry_run() {
        let feeds = Feeds::new([
            feed("shadow", Mode::DryRun, &["192.0.2.0/24", "2001:db8::/32"]),
            feed("real", Mode::Enforce, &["192.0.2.128/25"]),
        ]);
        let find = |ip: &str| feeds.find(ip.parse().unwrap()).map(|feed| &*feed.name);
        assert_eq!(find("192.0.2.200"), Some("real"));
        assert_eq!(find("192.0.2.1"), Some("shadow"));
        assert_eq!(find("2001:db8::1"), Some("shadow"));
        assert_eq!(find("192.0.3.1"), None);
        assert_eq!(find("2001:db9::"), None);
    }

    #[test]
    fn both_ends_of_the_address_space_are_addresses_like_others() {
        let all: AddressRanges = ["0.0.0.0/0", "::/0"].iter().map(|n| n.parse::<IpNet>().unwrap()).collect();
        assert_eq!(all.len(), 2);
        for ip in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert!(all.contains(ip.parse().unwrap()), "{ip}");
            assert!(!AddressRanges::default().contains(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_long_list_answers_as_a_short_one_does() {
        let networks: Vec<IpNet> = (0..20_000_u32)
            .map(|n| IpNet::new_assert(IpAddr::V4((n * 211_003).into()), 28 + (n % 5) as u8).trunc())
            .collect();
        let long: AddressRanges = networks.iter().copied().collect();
        assert!(long.v4_blocks.is_some());
        for network in networks.iter().step_by(97) {
            for ip in [network.network(), network.broadcast()] {
                assert!(long.contains(ip), "{ip}");
            }
            let IpAddr::V4(end) = network.broadcast() else { unreachable!("all are IPv4") };
            let after = IpAddr::V4(end.to_bits().wrapping_add(1).into());
            assert_eq!(long.contains(after), networks.iter().any(|n| n.contains(&after)), "{after}");
        }
    }

    fn network() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (0_u32..64, 0_u8..=32).prop_map(|(a, len)| {
                let bits = (a & 7) << 29 | (a >> 3) << 13;
                IpNet::new(IpAddr::V4(bits.into()), len).unwrap().trunc()
            }),
            (0_u128..64, 0_u8..=128).prop_map(|(a, len)| {
                let bits = (a & 7) << 125 | (a >> 3) << 60;
                IpNet::new(IpAddr::V6(bits.into()), len).unwrap().trunc()
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_set_agrees_with_a_linear_scan(networks in prop::collection::vec(network(), 0..60), probe in network()) {
            let set: AddressRanges = networks.iter().copied().collect();
            for ip in [probe.network(), probe.broadcast()] {
                prop_assert_eq!(set.contains(ip), networks.iter().any(|network| network.contains(&ip)));
            }
            prop_assert!(set.len() <= networks.len());
        }
    }
}
