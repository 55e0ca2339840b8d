//! A sorted list of address ranges, both families in one: IPv4 is where IPv6 maps it (::ffff:0:0/96).

use std::net::IpAddr;

use ipnet::IpNet;

/// Ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges(Vec<(u128, u128)>);

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn range(network: &IpNet) -> (u128, u128) {
    (bits(network.network()), bits(network.broadcast()))
}

impl Ranges {
    pub(crate) fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut all: Vec<_> = networks.into_iter().map(|network| range(&network)).collect();
        all.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (from, to) in all {
            match merged.last_mut() {
                Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }

    /// Whether they have an address in common.
    pub(crate) fn touches(&self, network: &IpNet) -> bool {
        let (from, to) = range(network);
        let after = self.0.partition_point(|&(start, _)| start <= to);
        after.checked_sub(1).is_some_and(|at| self.0[at].1 >= from)
    }

    /// Whether all of the network is in it.
    pub(crate) fn holds(&self, network: &IpNet) -> bool {
        let (from, to) = range(network);
        let after = self.0.partition_point(|&(start, _)| start <= from);
        after.checked_sub(1).is_some_and(|at| self.0[at].1 >= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network() -> impl Strategy<Value = IpNet> {
        (0_u32..64, 24_u8..=32).prop_map(|(n, length)| {
            IpNet::new_assert(IpAddr::V4((0xC000_0200 + n * 16).into()), length).trunc()
        })
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_look_at_every_network(
            networks in prop::collection::vec(network(), 0..12), probe in network()
        ) {
            let ranges = Ranges::new(networks.clone());
            let touches = networks.iter().any(|n| n.contains(&probe) || probe.contains(n));
            prop_assert_eq!(ranges.touches(&probe), touches);
            let all_in = |ip: IpAddr| networks.iter().any(|n| n.contains(&ip));
            let holds = probe.hosts().chain([probe.network(), probe.broadcast()]).all(all_in);
            prop_assert_eq!(ranges.holds(&probe), holds);
        }
    }
}
