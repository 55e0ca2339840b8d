//! How many connections each client has open: exact, and no larger than the connections are many.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use parking_lot::Mutex;

const SHARDS: usize = 16;
/// A shard keeps room for at least this many clients.
const LEAST_CAPACITY: usize = 64;

/// Clients are IPv4 addresses and IPv6 /64s: see `ClientIp::limit_key`.
pub(crate) struct Clients {
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
    /// Seeded at random, so that nobody can choose addresses that share a shard.
    hasher: RandomState,
}

impl Default for Clients {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl Clients {
    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        let hash = self.hasher.hash_one(client);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// Counts one more connection, unless the client has `max` already.
    pub(super) fn take(&self, client: IpAddr, max: u32) -> bool {
        let mut shard = self.shard(client).lock();
        let open = shard.entry(client).or_insert(0);
        let has_room = *open < max;
        if has_room {
            *open += 1;
        } else if *open == 0 {
            shard.remove(&client);
        }
        has_room
    }

    /// One connection fewer.
    pub(super) fn give_back(&self, client: IpAddr) {
        let mut shard = self.shard(client).lock();
        if let Some(open) = shard.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                shard.remove(&client);
            }
        }
        if shard.capacity() > LEAST_CAPACITY && shard.len() < shard.capacity() / 4 {
            shard.shrink_to(LEAST_CAPACITY);
        }
    }

    /// Clients with a connection.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn a_client_gets_as_many_connections_as_it_may_and_one_for_each_that_it_closes() {
        let clients = Clients::default();
        assert!((0..3).all(|_| clients.take(client(1), 3)));
        assert!(!clients.take(client(1), 3) && clients.take(client(2), 3));
        clients.give_back(client(1));
        assert!(clients.take(client(1), 3) && !clients.take(client(1), 3));
        assert!(!clients.take(client(3), 0));
        assert_eq!(clients.len(), 2);
    }

    #[test]
    fn clients_that_are_gone_leave_nothing_behind() {
        let clients = Clients::default();
        for n in 0..50_000 {
            assert!(clients.take(client(n), 1));
        }
        for n in 0..50_000 {
            clients.give_back(client(n));
        }
        assert_eq!(clients.len(), 0);
        let capacity: usize = clients.shards.iter().map(|shard| shard.lock().capacity()).sum();
        assert!(capacity <= SHARDS * LEAST_CAPACITY * 4, "{capacity}");
    }
}
