//! An immutable set of IPv4 and IPv6 prefixes with longest-prefix look-up.
//!
//! A trie flattened into sorted arrays: prefixes never overlap except by containing each other, so
//! sorted by (start, length) each prefix follows the ones that contain it, and every entry keeps the
//! index of the nearest one that does. The last prefix that starts at or before an address either holds
//! the address or has, among its ancestors, the longest one that does. IPv4 look-ups start from a table
//! over the first 16 bits, which leaves a handful of steps even among a million prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::IpNet;

/// Maps prefixes to values. Built once, by `collect()`; of equal prefixes the last one stays.
#[derive(Clone, Debug)]
pub struct PrefixSet<T> {
    v4: Level<u32, T>,
    v6: Level<u128, T>,
    /// `None` when there are no prefixes of IPv4.
    v4_blocks: Option<Blocks>,
}

#[derive(Clone, Debug)]
struct Level<A, T> {
    starts: Vec<A>,
    lengths: Vec<u8>,
    parents: Vec<u32>,
    values: Vec<T>,
}

/// No ancestor.
const ROOT: u32 = u32::MAX;

trait Bits: Copy + Ord {
    fn shares_prefix(self, other: Self, length: u8) -> bool;
}

impl Bits for u32 {
    fn shares_prefix(self, other: Self, length: u8) -> bool {
        (self ^ other).leading_zeros() >= u32::from(length)
    }
}

impl Bits for u128 {
    fn shares_prefix(self, other: Self, length: u8) -> bool {
        (self ^ other).leading_zeros() >= u32::from(length)
    }
}

impl<A: Bits, T> Level<A, T> {
    fn build(mut prefixes: Vec<(A, u8, T)>) -> Self {
        // A stable sort keeps the order of equal prefixes, so the last one given is the last of its run.
        prefixes.sort_by_key(|&(start, length, _)| (start, length));
        let mut level = Self {
            starts: Vec::with_capacity(prefixes.len()),
            lengths: Vec::with_capacity(prefixes.len()),
            parents: Vec::with_capacity(prefixes.len()),
            values: Vec::with_capacity(prefixes.len()),
        };
        for (start, length, value) in prefixes {
            match (level.starts.last(), level.lengths.last(), level.values.last_mut()) {
                (Some(&s), Some(&l), Some(last)) if s == start && l == length => *last = value,
                _ => {
                    let parent = level.ancestor_of(level.starts.len().checked_sub(1), start);
                    level.starts.push(start);
                    level.lengths.push(length);
                    level.parents.push(parent.map_or(ROOT, |p| p as u32));
                    level.values.push(value);
                }
            }
        }
        level
    }

    fn iter(&self) -> impl Iterator<Item = (A, u8, &T)> {
        let prefixes = self.starts.iter().zip(&self.lengths).zip(&self.values);
        prefixes.map(|((&start, &length), value)| (start, length, value))
    }

    fn ancestor_of(&self, from: Option<usize>, address: A) -> Option<usize> {
        let mut candidate = from;
        while let Some(at) = candidate {
            if self.starts[at].shares_prefix(address, self.lengths[at]) {
                return Some(at);
            }
            candidate = self.parent(at);
        }
        None
    }

    fn parent(&self, at: usize) -> Option<usize> {
        match self.parents[at] {
            ROOT => None,
            parent => Some(parent as usize),
        }
    }

    /// `last` is the index of the last prefix that starts at or before the address, plus one.
    fn find(&self, last: usize, address: A, accept: &mut dyn FnMut(&T) -> bool) -> Option<&T> {
        let mut candidate = self.ancestor_of(last.checked_sub(1), address);
        while let Some(at) = candidate {
            if accept(&self.values[at]) {
                return Some(&self.values[at]);
            }
            candidate = self.parent(at);
        }
        None
    }
}

impl<T> PrefixSet<T> {
    /// The value of the longest prefix that holds the address.
    pub fn lookup(&self, ip: IpAddr) -> Option<&T> {
        self.find(ip, &mut |_| true)
    }

    /// The value of the longest prefix that holds the address and that `accept` takes.
    pub fn find(&self, ip: IpAddr, accept: &mut dyn FnMut(&T) -> bool) -> Option<&T> {
        match ip {
            IpAddr::V4(v4) => {
                let address = v4.to_bits();
                let range = self.v4_blocks.as_ref()?.range(address);
                let last = range.start + self.v4.starts[range].partition_point(|&s| s <= address);
                self.v4.find(last, address, accept)
            }
            IpAddr::V6(v6) => {
                let address = v6.to_bits();
                let last = self.v6.starts.partition_point(|&s| s <= address);
                self.v6.find(last, address, accept)
            }
        }
    }

    /// All prefixes with their values, IPv4 first, each family in the order of its addresses.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &T)> {
        let v4 =
            self.v4.iter().map(|(start, length, value)| (Ipv4Addr::from_bits(start).into(), length, value));
        let v6 =
            self.v6.iter().map(|(start, length, value)| (Ipv6Addr::from_bits(start).into(), length, value));
        v4.chain(v6)
            .map(|(address, length, value): (IpAddr, u8, &T)| (IpNet::new_assert(address, length), value))
    }

    /// How many prefixes it has.
    pub fn len(&self) -> usize {
        self.v4.starts.len() + self.v6.starts.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for PrefixSet<T> {
    fn default() -> Self {
        std::iter::empty().collect()
    }
}

impl<T> FromIterator<(IpNet, T)> for PrefixSet<T> {
    fn from_iter<I: IntoIterator<Item = (IpNet, T)>>(prefixes: I) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (network, value) in prefixes {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.prefix_len(), value)),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.prefix_len(), value)),
            }
        }
        let v4 = Level::build(v4);
        let v4_blocks = (!v4.starts.is_empty()).then(|| Blocks::of(&v4.starts));
        Self { v4, v6: Level::build(v6), v4_blocks }
    }
}

/// A table over the first 16 bits of IPv4 addresses, 256 KiB: how many of sorted starts are below the end of each
/// 16-bit block. It saves most steps of a binary search.
#[derive(Clone, Debug)]
pub(crate) struct Blocks(Box<[u32]>);

impl Blocks {
    pub(crate) fn of(starts: &[u32]) -> Self {
        let mut counts = vec![0_u32; 1 << 16];
        for &start in starts {
            counts[(start >> 16) as usize] += 1;
        }
        let mut total = 0;
        for count in &mut counts {
            total += *count;
            *count = total;
        }
        Self(counts.into())
    }

    /// The indexes of the starts in the block of `address`.
    pub(crate) fn range(&self, address: u32) -> Range<usize> {
        let block = (address >> 16) as usize;
        let from = block.checked_sub(1).map_or(0, |before| self.0[before] as usize);
        from..self.0[block] as usize
    }

    /// Bytes on the heap.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(networks: &[&str]) -> PrefixSet<String> {
        networks.iter().map(|n| (n.parse::<IpNet>().unwrap(), (*n).to_owned())).collect()
    }

    #[test]
    fn the_longest_prefix_wins_and_a_rejected_one_falls_back_to_its_parent() {
        let set = set(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "2001:db8::/32"]);
        let find = |ip: &str| set.lookup(ip.parse().unwrap()).map(String::as_str);
        assert_eq!(find("10.1.2.3"), Some("10.1.2.3/32"));
        assert_eq!(find("10.1.2.4"), Some("10.1.0.0/16"));
        assert_eq!(find("10.9.9.9"), Some("10.0.0.0/8"));
        assert_eq!(find("11.0.0.0"), None);
        assert_eq!(find("2001:db8::1"), Some("2001:db8::/32"));
        assert_eq!(find("fe80::1"), Some("::/0"));
        let not_host = set.find("10.1.2.3".parse().unwrap(), &mut |v| !v.ends_with("/32"));
        assert_eq!(not_host.map(String::as_str), Some("10.1.0.0/16"));
    }

    #[test]
    fn an_empty_set_holds_nothing() {
        let empty = PrefixSet::<()>::default();
        assert!(empty.is_empty());
        assert!(empty.lookup("192.0.2.1".parse().unwrap()).is_none());
        assert!(empty.lookup("::1".parse().unwrap()).is_none());
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // Few distinct bits, so that prefixes nest and addresses hit.
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
        fn look_ups_agree_with_a_linear_scan(networks in prop::collection::vec(network(), 0..60), probe in network()) {
            let set: PrefixSet<IpNet> = networks.iter().map(|&n| (n, n)).collect();
            let naive = networks.iter().filter(|n| n.contains(&probe.addr())).max_by_key(|n| n.prefix_len());
            prop_assert_eq!(set.lookup(probe.addr()), naive);
            prop_assert!(set.iter().all(|(network, value)| network == *value && networks.contains(value)));
            prop_assert_eq!(set.iter().count(), set.len());
        }
    }
}
