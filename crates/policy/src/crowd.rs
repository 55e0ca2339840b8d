//! How many verified users share an address: an estimate over the last hour, by which what is counted per address is
//! raised.
//!
//! Owns what counts as a user. Only what the gateway has verified does, each once in an hour, so that nobody buys a
//! higher limit with things that clients choose. Where there is doubt the estimate is too low, never too high.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use portcullis_model::{ClientIp, Identity};

/// How many times its limits an address is admitted at most, however many users there are.
pub const MAX_TIMES: u32 = 64;
/// Sessions of which nobody has said whose they are count half, and no more than so many: one account can have many.
const MAX_SESSIONS: u32 = 16;
/// Users who are new on an address and are counted in one minute: somebody may be making accounts.
const MAX_NEW_PER_MINUTE: u8 = 16;
/// An address is remembered for one to two of these: half of the hour that is estimated.
const HALF_MS: u64 = 30 * 60 * 1_000;
const MINUTE_MS: u64 = 60 * 1_000;
const SHARDS: usize = 16;
/// Addresses in a shard; more of them get no raise. Together 16,384, of some 100 bytes each.
const MAX_ADDRESSES: usize = 1_024;

/// Safe to share.
pub struct Crowds {
    shards: [Mutex<HashMap<IpAddr, Crowd>>; SHARDS],
    /// Seeded at random, so that nobody can choose names that share a bit.
    hasher: RandomState,
    /// Whether anybody was ever verified: a gateway that knows no users pays for one look at this.
    is_in_use: AtomicBool,
}

/// The identities of an address, each a bit of a linear counter: of this half hour, and of the one before.
#[derive(Clone, Copy, Default)]
struct Crowd {
    half: u64,
    users: [u128; 2],
    sessions: [u128; 2],
    minute: u64,
    new_in_minute: u8,
}

/// The number of distinct values whose bits are set, by the estimate of Whang et al. (1990).
fn distinct(bits: u128) -> u32 {
    let size = f64::from(u128::BITS);
    let free = f64::from(bits.count_zeros().max(1));
    (size * (size / free).ln()).round() as u32
}

impl Crowd {
    fn turn_to(&mut self, half: u64) {
        let keeps = self.half + 1 == half;
        if self.half >= half {
            return;
        }
        for bits in [&mut self.users, &mut self.sessions] {
            bits[1] = if keeps { bits[0] } else { 0 };
            bits[0] = 0;
        }
        self.half = half;
    }

    /// Counts an identity by its bit; true if it is new on the address.
    fn note(&mut self, identity: &Identity, bit: u128, now_ms: u64) -> bool {
        let bits = if identity.user.is_some() { &mut self.users } else { &mut self.sessions };
        let is_new = (bits[0] | bits[1]) & bit == 0;
        if is_new {
            let minute = now_ms / MINUTE_MS;
            if self.minute != minute {
                (self.minute, self.new_in_minute) = (minute, 0);
            }
            if self.new_in_minute >= MAX_NEW_PER_MINUTE {
                return false;
            }
            self.new_in_minute += 1;
        }
        bits[0] |= bit;
        is_new
    }

    fn identities(&self) -> u32 {
        let [users, sessions] = [self.users, self.sessions].map(|[now, before]| distinct(now | before));
        users + sessions.min(MAX_SESSIONS) / 2
    }
}

impl Default for Crowds {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            is_in_use: AtomicBool::new(false),
        }
    }
}

impl Crowds {
    /// Counts a verified identity on the client's address; true if that is one more than before.
    pub fn note(&self, client: ClientIp, identity: &Identity, now_ms: u64) -> bool {
        let (key, half) = (client.limit_key(), now_ms / HALF_MS);
        // A user with several sessions is one.
        let hash = match &identity.user {
            Some(user) => self.hasher.hash_one(user),
            None => self.hasher.hash_one(identity.session),
        };
        let mut shard = self.shard(key).lock();
        if !shard.contains_key(&key) {
            if shard.len() >= MAX_ADDRESSES {
                shard.retain(|_, crowd| crowd.half + 1 >= half);
            }
            if shard.len() >= MAX_ADDRESSES {
                return false;
            }
            self.is_in_use.store(true, Ordering::Relaxed);
        }
        let crowd = shard.entry(key).or_default();
        crowd.turn_to(half);
        crowd.note(identity, 1 << (hash % u64::from(u128::BITS)), now_ms)
    }

    /// How many times what one client may do the address may do. Two users are a household; of each one more the
    /// address gets as much again, up to [`MAX_TIMES`].
    pub fn times(&self, client: ClientIp, now_ms: u64) -> u32 {
        if !self.is_in_use.load(Ordering::Relaxed) {
            return 1;
        }
        let key = client.limit_key();
        let Some(mut crowd) = self.shard(key).lock().get(&key).copied() else { return 1 };
        crowd.turn_to(now_ms / HALF_MS);
        crowd.identities().saturating_sub(1).clamp(1, MAX_TIMES)
    }

    fn shard(&self, key: IpAddr) -> &Mutex<HashMap<IpAddr, Crowd>> {
        &self.shards[usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "192.0.2.1";

    fn client(text: &str) -> ClientIp {
        text.parse().unwrap()
    }

    fn user(n: u64) -> Identity {
        Identity { user: Some(format!("user-{n}").into()), roles: Vec::new(), session: Some(n) }
    }

    fn session(n: u64) -> Identity {
        Identity { user: None, roles: Vec::new(), session: Some(n) }
    }

    /// So many identities, ten in each minute.
    fn times_with(count: u64, identity: fn(u64) -> Identity) -> u32 {
        let crowds = Crowds::default();
        for n in 0..count {
            crowds.note(client(ADDRESS), &identity(n), n * 6_000);
        }
        crowds.times(client(ADDRESS), count * 6_000)
    }

    #[test]
    fn an_address_gets_more_with_each_user_up_to_a_cap() {
        assert_eq!([0, 1, 2].map(|count| times_with(count, user)), [1, 1, 1]);
        // Two names may share a bit, and are one then.
        assert!((3..=10).contains(&times_with(10, user)));
        assert!((24..=56).contains(&times_with(40, user)));
        assert_eq!(times_with(200, user), MAX_TIMES);
    }

    #[test]
    fn sessions_without_a_name_count_little() {
        assert_eq!(times_with(3, session), 1);
        assert!((2..=7).contains(&times_with(12, session)));
        assert_eq!(times_with(250, session), 7);
    }

    #[test]
    fn one_user_counts_once_however_many_sessions_and_requests() {
        let crowds = Crowds::default();
        for n in 0..500 {
            let one = Identity { session: Some(n), ..user(1) };
            assert_eq!(crowds.note(client(ADDRESS), &one, n), n == 0);
        }
        assert_eq!(crowds.times(client(ADDRESS), 500), 1);
    }

    #[test]
    fn a_flood_of_new_accounts_counts_no_faster_than_people_come() {
        let crowds = Crowds::default();
        let counted = (0..500).filter(|&n| crowds.note(client(ADDRESS), &user(n), 1_000)).count();
        assert!(counted <= usize::from(MAX_NEW_PER_MINUTE));
        assert!(crowds.times(client(ADDRESS), 1_000) < u32::from(MAX_NEW_PER_MINUTE) * 5 / 4);
    }

    #[test]
    fn users_are_forgotten_within_an_hour_and_belong_to_their_address() {
        let crowds = Crowds::default();
        for n in 0..10 {
            crowds.note(client("2001:db8::1"), &user(n), 0);
        }
        let times = |ip: &str, now_ms| crowds.times(client(ip), now_ms);
        assert!(times("2001:db8::ffff", HALF_MS) > 1, "the same /64");
        assert_eq!((times("2001:db8:0:1::1", 0), times("2001:db8::1", 2 * HALF_MS)), (1, 1));
    }

    #[test]
    fn memory_is_bounded_and_room_is_made_by_those_who_are_gone() {
        let crowds = Crowds::default();
        for n in 0..60_000_u32 {
            crowds.note(ClientIp::new(IpAddr::V4(n.into())), &user(1), 0);
        }
        let held = || crowds.shards.iter().map(|shard| shard.lock().len()).sum::<usize>();
        assert!(held() <= SHARDS * MAX_ADDRESSES);
        assert!(crowds.note(client(ADDRESS), &user(1), 2 * HALF_MS), "all others are gone");
    }
}
