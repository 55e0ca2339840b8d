//! The addresses that clients come from and those that are blocked, the same in every run.
//!
//! Owns their numbers and ranges. No client is ever inside of a blocked network, yet both are spread over
//! the same space, so that a look-up for a client cannot end early in an empty region.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net};

/// The client addresses of the load.
pub const CLIENTS: usize = 50_000;
/// The network whose clients are refused: RFC 2544 keeps it for benchmarks.
pub const REFUSED: &str = "198.18.0.0/15";

const SEED: u64 = 20_261_120;
/// Clients have a last octet below this, blocked networks start at it.
const HALF: u8 = 128;

/// `count` admitted clients.
pub fn clients(count: usize) -> Vec<Ipv4Addr> {
    let mut rng = Rng::with_seed(SEED);
    let address = || Ipv4Addr::new(rng.u8(11..=126), rng.u8(..), rng.u8(..), rng.u8(1..HALF));
    std::iter::repeat_with(address).take(count).collect()
}

/// `count` clients inside of [`REFUSED`].
pub fn refused_clients(count: usize) -> Vec<Ipv4Addr> {
    let mut rng = Rng::with_seed(SEED);
    let address = || Ipv4Addr::new(198, rng.u8(18..=19), rng.u8(..), rng.u8(1..=254));
    std::iter::repeat_with(address).take(count).collect()
}

/// `count` different prefixes of 25 to 28 bits.
pub fn prefixes(count: usize) -> Vec<IpNet> {
    let mut rng = Rng::with_seed(SEED + 1);
    distinct(count, || {
        let address = Ipv4Addr::new(rng.u8(11..=126), rng.u8(..), rng.u8(..), rng.u8(HALF..));
        let length = rng.u8(25..=28);
        IpNet::V4(Ipv4Net::new_assert(address, length).trunc())
    })
}

/// `count` different single addresses.
pub fn addresses(count: usize) -> Vec<IpNet> {
    let mut rng = Rng::with_seed(SEED + 2);
    distinct(count, || {
        IpNet::from(IpAddr::V4(Ipv4Addr::new(rng.u8(11..=126), rng.u8(..), rng.u8(..), rng.u8(HALF..))))
    })
}

fn distinct(count: usize, mut next: impl FnMut() -> IpNet) -> Vec<IpNet> {
    let mut seen = HashSet::with_capacity(count);
    while seen.len() < count {
        seen.insert(next());
    }
    let mut list: Vec<IpNet> = seen.into_iter().collect();
    // A hash set's order differs from run to run.
    list.sort_unstable();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_is_inside_of_a_blocked_network_unless_it_is_meant_to_be() {
        let blocked: HashSet<IpNet> = prefixes(20_000).into_iter().chain(addresses(20_000)).collect();
        let is_blocked = |client: Ipv4Addr| {
            (25..=32).any(|length| blocked.contains(&IpNet::V4(Ipv4Net::new_assert(client, length).trunc())))
        };
        assert!(!clients(CLIENTS).into_iter().any(is_blocked));
        let refused: IpNet = REFUSED.parse().unwrap();
        assert!(refused_clients(1_000).into_iter().all(|client| refused.contains(&IpAddr::V4(client))));
    }

    #[test]
    fn lists_are_the_same_in_every_run() {
        assert_eq!(prefixes(1_000), prefixes(1_000));
        assert_eq!(clients(1_000), clients(1_000));
        assert_eq!(addresses(1_000).len(), 1_000);
    }
}
