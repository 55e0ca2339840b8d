//! One address of one server of a pool: what is known of it, and the requests that it is serving.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;
use portcullis_config::HostHeader;

use super::queue::Queue;
use super::streak::{Patience, Standing, Streak};

/// How much a near server may send ahead of a client that is not known to take what it asks for, in bytes; the kernel
/// doubles it. Pingora holds up to ten pieces of an answer, each as large as what the socket had to give, so this makes
/// them small. Large answers cost more CPU time for each byte with it.
const RESTRAINED_BUFFER: usize = 8 << 10;
/// Tells connections with the small buffer from the others to the same server.
const RESTRAINED_GROUP: u64 = 1 << 63;

/// Made anew when the settings change or a name is resolved; the state goes on.
pub(super) struct Server {
    pub(super) pool: Arc<str>,
    pub(super) peer: HttpPeer,
    pub(super) address: SocketAddr,
    /// What the address was looked up for, whatever name its certificate must have.
    pub(super) host: String,
    pub(super) weight: usize,
    /// As in a URL: without the port where that is the scheme's own.
    pub(super) authority: String,
    pub(super) host_header: HostHeader,
    pub(super) patience: Patience,
    pub(super) max_connections: Option<usize>,
    pub(super) slow_start: Duration,
    pub(super) state: Arc<State>,
}

/// What is known of an address. Relaxed throughout: each number stands for itself.
pub(super) struct State {
    /// What the active checks say.
    pub(super) healthy: AtomicBool,
    /// Checks in a row that spoke against that.
    pub(super) contrary: AtomicUsize,
    pub(super) active: AtomicUsize,
    /// Since the address is known.
    pub(super) failures: AtomicU64,
    /// Whether there is anything to read in `care`, so that servers that are well cost no lock.
    needs_care: AtomicBool,
    care: Mutex<Care>,
}

struct Care {
    streak: Streak,
    /// When it came back or joined, while it starts slowly.
    started: Option<Instant>,
}

impl State {
    /// `started` is for a server that joins others that are serving already.
    pub(super) fn new(now: Instant, started: Option<Instant>) -> Self {
        Self {
            healthy: AtomicBool::new(true),
            contrary: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            needs_care: AtomicBool::new(started.is_some()),
            care: Mutex::new(Care { streak: Streak::new(now), started }),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Begins the slow start.
    pub(super) fn came_back(&self, now: Instant) {
        self.care.lock().started = Some(now);
        self.needs_care.store(true, Ordering::Relaxed);
    }
}

impl Server {
    pub(super) fn standing(&self, now: Instant) -> Standing {
        match self.state.needs_care.load(Ordering::Relaxed) && self.patience.max_fails > 0 {
            true => self.state.care.lock().streak.standing(now),
            false => Standing::Good,
        }
    }

    /// Which part of its share it is to get, from 0 to 1.
    pub(super) fn part(&self, now: Instant) -> f64 {
        if self.slow_start.is_zero() || !self.state.needs_care.load(Ordering::Relaxed) {
            return 1.0;
        }
        let Some(started) = self.state.care.lock().started else { return 1.0 };
        let passed = now.saturating_duration_since(started);
        (passed.as_secs_f64() / self.slow_start.as_secs_f64()).min(1.0)
    }

    pub(super) fn has_room(&self) -> bool {
        self.max_connections.is_none_or(|most| self.state.active.load(Ordering::Relaxed) < most)
    }

    /// `self.active / self.weight` as a multiple of `1 / (self.weight * other.weight)`.
    pub(super) fn load_ratio(&self, other: &Self) -> usize {
        self.state.active.load(Ordering::Relaxed) * other.weight
    }

    /// Weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): the server with the largest
    /// `-weight / ln(hash)` has the client, and a server that leaves moves only its own clients.
    pub(super) fn affinity(&self, client: IpAddr) -> f64 {
        -(self.weight as f64) / self.unit(client).ln()
    }

    /// A number between 0 and 1, always the same for a client and this server.
    pub(super) fn unit(&self, client: IpAddr) -> f64 {
        let mut hasher = DefaultHasher::new();
        (client, self.address).hash(&mut hasher);
        // 53 bits fill a double's mantissa; the half keeps logarithms away from 0 and 1.
        ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn answered(&self, now: Instant) {
        if !self.state.needs_care.load(Ordering::Relaxed) {
            return;
        }
        let mut care = self.state.care.lock();
        let came_back = care.streak.answered(now);
        if came_back {
            care.started = Some(now);
        }
        let is_starting =
            care.started.is_some_and(|started| now.saturating_duration_since(started) < self.slow_start);
        if !is_starting {
            care.started = None;
            self.state.needs_care.store(false, Ordering::Relaxed);
        }
        drop(care);
        if came_back {
            tracing::info!("upstream {}: {} answers again", self.pool, self.address);
        }
    }

    fn failed(&self, now: Instant) {
        self.state.failures.fetch_add(1, Ordering::Relaxed);
        let mut care = self.state.care.lock();
        self.state.needs_care.store(true, Ordering::Relaxed);
        let is_out = care.streak.failed(now, self.patience);
        drop(care);
        if is_out {
            let Patience { max_fails, fail_timeout } = self.patience;
            tracing::warn!(
                "upstream {}: {} failed {max_fails} times in a row; left out for {fail_timeout:?} while another is there",
                self.pool,
                self.address
            );
        }
    }
}

/// A request that is being served counts as one connection of its server until this is dropped.
pub(crate) struct Lease {
    server: Arc<Server>,
    /// Whom to tell that there is room again.
    queue: Option<Arc<Queue>>,
}

impl Lease {
    /// `None` when others were faster and there is no room.
    pub(super) fn take(server: &Arc<Server>, queue: &Arc<Queue>, now: Instant) -> Option<Self> {
        let most = server.max_connections.unwrap_or(usize::MAX);
        let active = &server.state.active;
        active
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |active| {
                (active < most).then_some(active + 1)
            })
            .ok()?;
        let queue = server.max_connections.map(|_| Arc::clone(queue));
        if server.standing(now) == Standing::Due {
            server.state.care.lock().streak.claim(now, server.patience);
        }
        Some(Self { server: Arc::clone(server), queue })
    }

    pub(crate) fn peer(&self) -> HttpPeer {
        self.server.peer.clone()
    }

    /// The same with little read ahead, if the server is near: over a long way a small buffer would be a slow
    /// connection.
    pub(crate) fn restrained_peer(&self) -> HttpPeer {
        let mut peer = self.peer();
        if is_near(self.server.address.ip()) {
            peer.options.tcp_recv_buf = Some(RESTRAINED_BUFFER);
            peer.group_key ^= RESTRAINED_GROUP;
        }
        peer
    }

    /// What `Host` becomes: where the upstream wants its own, or the client sent none.
    pub(crate) fn host_header(&self, has_host: bool) -> Option<&str> {
        match self.server.host_header {
            HostHeader::Preserve if has_host => None,
            HostHeader::Preserve | HostHeader::Upstream => Some(&self.server.authority),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The server has begun a proper answer.
    pub(crate) fn answered(&self, now: Instant) {
        self.server.answered(now);
    }

    /// The server gave no proper answer.
    pub(crate) fn failed(&self, now: Instant) {
        self.server.failed(now);
    }
}

/// On this machine or in a private network.
fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.state.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(queue) = &self.queue {
            queue.freed();
        }
    }
}
