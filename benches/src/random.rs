//! Requests of which nothing comes twice: clients, forwarded lines, paths, queries, hosts and user agents.
//!
//! Owns who sends them: clients that were never seen before, one that asks far too often, and one that comes
//! back now and then. A request is made from its number alone, so every run is the same.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;

use crate::load::{self, ANSWER_TIME};

/// The most requests of one run: the clients are different up to here.
pub const MAX_REQUESTS: u64 = 1 << 30;
/// One request in so many is the abuser's.
pub const ABUSE_EVERY: u64 = 1_000;
/// One in so many is the regular visitor's.
pub const RETURN_EVERY: u64 = 150_000;
pub const ABUSER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
pub const REGULAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Never seen before, never again.
    New(IpAddr),
    Abuser,
    Regular,
}

impl Sender {
    /// Of request `n`.
    pub fn of(n: u64) -> Self {
        if n % ABUSE_EVERY == 1 {
            Self::Abuser
        } else if n % RETURN_EVERY == 2 {
            Self::Regular
        } else {
            Self::New(new_client(n))
        }
    }

    pub fn address(self) -> IpAddr {
        match self {
            Self::New(address) => address,
            Self::Abuser => ABUSER.into(),
            Self::Regular => REGULAR.into(),
        }
    }
}

/// A different client for every number below [`MAX_REQUESTS`]: an IPv4 address from 11.0.0.0 to 74.255.255.255,
/// or an address in an IPv6 /64 of its own.
fn new_client(n: u64) -> IpAddr {
    // An odd factor permutes the numbers of so many bits.
    let shuffled = (n / 2).wrapping_mul(SEED);
    if n.is_multiple_of(2) {
        // Never in the upper half of a /24, where the blocked prefixes of `lists` are.
        let low = u32::try_from(shuffled & (MAX_REQUESTS / 2 - 1)).unwrap_or(0);
        Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + (low >> 7 << 8 | low & 0x7f)).into()
    } else {
        let network = 0x2a00_u128 << 48 | u128::from(shuffled & 0xffff_ffff_ffff);
        Ipv6Addr::from(network << 64 | u128::from(Rng::with_seed(n).u64(..))).into()
    }
}

/// What request `n` says of itself.
#[derive(Clone, Debug)]
pub struct Words {
    pub host: String,
    pub path: String,
    pub query: String,
    pub user_agent: String,
    /// The value of X-Forwarded-For: what the client itself may have sent, then its address as the proxy saw it.
    pub forwarded: String,
}

impl Words {
    pub fn of(n: u64, sender: Sender) -> Self {
        let mut rng = Rng::with_seed(n ^ SEED);
        let mut path = String::new();
        for _ in 0..rng.usize(1..5) {
            path.push('/');
            path.push_str(&word(&mut rng, 12));
        }
        if rng.u8(..) < 64 {
            let _ = write!(path, "%{:02x}{}", rng.u8(b'a'..=b'z'), word(&mut rng, 4));
        }
        let claimed = match rng.u8(..4) {
            0 => format!("{}, ", Ipv4Addr::from(rng.u32(..))),
            1 => format!("{}, ", Ipv6Addr::from(rng.u128(..))),
            2 => format!("{}, unknown, ", word(&mut rng, 20)),
            _ => String::new(),
        };
        Self {
            host: format!("{}.example.com", word(&mut rng, 10)),
            path,
            query: format!("{}={}", word(&mut rng, 5), word(&mut rng, 30)),
            user_agent: format!("{}/{} ({})", word(&mut rng, 9), rng.u16(..), word(&mut rng, 40)),
            forwarded: format!("{claimed}{}", sender.address()),
        }
    }

    fn request(&self) -> String {
        let Self { host, path, query, user_agent, forwarded } = self;
        format!(
            "GET {path}?{query} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {forwarded}\r\nUser-Agent: {user_agent}\r\n\r\n"
        )
    }
}

fn word(rng: &mut Rng, most: usize) -> String {
    let letters = rng.usize(1..=most);
    std::iter::repeat_with(|| rng.lowercase()).take(letters).collect()
}

/// How the requests of one sender were answered.
#[derive(Debug, Default)]
pub struct Tally {
    pub served: AtomicU64,
    pub refused: AtomicU64,
}

impl Tally {
    pub fn count(&self, is_served: bool) {
        let counter = if is_served { &self.served } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// All senders.
#[derive(Debug, Default)]
pub struct Tallies {
    pub new: Tally,
    pub abuser: Tally,
    pub regular: Tally,
    /// Requests without a complete answer.
    pub failed: AtomicU64,
}

impl Tallies {
    pub fn of(&self, sender: Sender) -> &Tally {
        match sender {
            Sender::New(_) => &self.new,
            Sender::Abuser => &self.abuser,
            Sender::Regular => &self.regular,
        }
    }

    /// Requests that came to an end.
    pub fn done(&self) -> u64 {
        let answered = [&self.new, &self.abuser, &self.regular].map(|tally| tally.served() + tally.refused());
        answered.iter().sum::<u64>() + self.failed.load(Ordering::Relaxed)
    }
}

/// Sends `requests` over `connections` from one thread and waits for all answers.
///
/// # Errors
/// When the target is not on loopback, the bounds are not kept, or no thread can be made.
pub fn send(target: SocketAddr, requests: u64, connections: usize, tallies: &Arc<Tallies>) -> io::Result<()> {
    if !target.ip().is_loopback() || requests > MAX_REQUESTS || connections > load::MAX_CONNECTIONS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "loopback only, and within the bounds"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let connections: Vec<_> = (0..connections)
            .map(|_| tokio::spawn(drive(target, requests, Arc::clone(&next), Arc::clone(tallies))))
            .collect();
        for connection in connections {
            connection.await.map_err(io::Error::other)?;
        }
        Ok(())
    })
}

async fn drive(target: SocketAddr, requests: u64, next: Arc<AtomicU64>, tallies: Arc<Tallies>) {
    let mut connection = None;
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= requests {
            return;
        }
        let sender = Sender::of(n);
        let request = Words::of(n, sender).request();
        match tokio::time::timeout(ANSWER_TIME, load::ask(&mut connection, target, &request)).await {
            Ok(Ok(status)) => tallies.of(sender).count(status < 400),
            Ok(Err(_)) | Err(_) => {
                tallies.failed.fetch_add(1, Ordering::Relaxed);
                connection = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_new_client_comes_twice_and_none_is_somebody_else() {
        let mut networks = HashSet::new();
        for n in 0..200_000 {
            let Sender::New(address) = Sender::of(n) else { continue };
            let key = match address {
                IpAddr::V4(address) => u128::from(u32::from(address)),
                IpAddr::V6(address) => u128::from(address) >> 64,
            };
            assert!(networks.insert(key), "{address} comes twice");
            assert!(address != ABUSER && address != REGULAR && !address.is_loopback());
        }
    }

    #[test]
    fn a_request_is_made_from_its_number_alone() {
        let of = |n| Words::of(n, Sender::of(n)).request();
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        assert!(of(1).contains(&ABUSER.to_string()));
    }
}
