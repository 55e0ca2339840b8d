//! Networks as sorted ranges that do not touch, asked by a binary search.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => holds(&self.v4, address.to_bits()),
            IpAddr::V6(address) => holds(&self.v6, address.to_bits()),
        }
    }
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).is_some_and(|at| ranges[at].1 >= address)
}

fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if *end >= first => *end = (*end).max(last),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}

impl<'a> FromIterator<&'a IpNet> for Ranges {
    fn from_iter<I: IntoIterator<Item = &'a IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { v4: merge(v4), v6: merge(v6) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_what_their_networks_hold(
            networks in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..20),
            asked in any::<u32>(),
        ) {
            let networks: Vec<IpNet> = networks
                .into_iter()
                .map(|(bits, length)| IpNet::new_assert(std::net::Ipv4Addr::from_bits(bits).into(), length).trunc())
                .collect();
            let ranges: Ranges = networks.iter().collect();
            let near = networks.iter().flat_map(|net| [net.addr(), net.broadcast()]);
            for address in near.chain([std::net::Ipv4Addr::from_bits(asked).into()]) {
                let expected = networks.iter().any(|net| net.contains(&address));
                prop_assert_eq!(ranges.contains(address), expected, "{}", address);
            }
        }
    }

    #[test]
    fn families_are_kept_apart() {
        let ranges: Ranges = ["2001:db8::/32".parse().unwrap()].iter().collect();
        assert!(ranges.contains("2001:db8:ffff::1".parse().unwrap()));
        assert!(!ranges.contains("2001:db9::1".parse().unwrap()));
        assert!(!ranges.contains("32.1.13.184".parse().unwrap()));
    }
}
