//! The servers of an upstream: which there are, which may be asked, which one is next.
//! Must not know about requests: what became of them is told to the [`Lease`] and the [`Admission`].

mod breaker;
mod checks;
mod names;
mod queue;
mod server;
mod streak;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pingora::connectors::http::Connector;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::WrappedX509;
use portcullis_config::{Balance, Upstream, UpstreamServer};

use crate::{EdgeError, tls};

use breaker::{Breaker, Outcome, Permit};
use queue::Queue;
use server::{Server, State};
use streak::{Patience, Standing};

pub use breaker::CircuitState;
pub(crate) use server::Lease;

/// How often a choice is made again because another request was faster.
const MAX_RACES: usize = 8;

/// One upstream of the configuration.
pub(crate) struct Pool {
    settings: Upstream,
    /// The certificates to trust instead of the system's.
    authorities: Option<Arc<[WrappedX509]>>,
    servers: ArcSwap<Vec<Arc<Server>>>,
    turn: AtomicUsize,
    queue: Arc<Queue>,
    breaker: Option<Arc<Breaker>>,
}

/// Why no server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    NoneHealthy,
    /// All are full, and so is the queue, or waiting was in vain.
    Busy,
    /// For how much longer.
    CircuitOpen(Duration),
}

/// That a request may be sent to this pool, by its circuit breaker if it has one.
pub(crate) struct Admission(Option<Permit>);

impl Admission {
    /// What counts is the first that is told.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.tell(Outcome::Answered, now);
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.tell(Outcome::Failed, now);
    }

    fn tell(&mut self, outcome: Outcome, now: Instant) {
        if let Some(permit) = &mut self.0 {
            permit.tell(outcome, now);
        }
    }
}

/// A pool at one moment, for the metrics.
#[derive(Clone, Debug)]
pub struct PoolState {
    pub name: Arc<str>,
    /// `None` without a breaker.
    pub circuit: Option<CircuitState>,
    /// Requests that wait for a server to have room.
    pub waiting: usize,
    pub servers: Vec<ServerState>,
}

/// A server at one moment, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct ServerState {
    pub address: SocketAddr,
    /// Whether its checks succeed; true without any.
    pub healthy: bool,
    /// Whether it failed too often in a row and has not answered since.
    pub failing: bool,
    /// Requests that it is serving.
    pub active: usize,
    /// Requests that it gave no proper answer to.
    pub failures: u64,
}

impl ServerState {
    /// By all that is known.
    pub fn answers(&self) -> bool {
        self.healthy && !self.failing
    }
}

/// One look at a healthy server. Others change it at any moment, and a choice that looked twice could take its turn
/// from it and give it to nobody.
#[derive(Clone, Copy)]
struct Look<'a> {
    server: &'a Arc<Server>,
    is_out: bool,
    has_room: bool,
}

impl<'a> Look<'a> {
    fn at(server: &'a Arc<Server>, now: Instant) -> Self {
        Self { server, is_out: server.standing(now) == Standing::Out, has_room: server.has_room() }
    }
}

/// The servers that a choice is made among, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    /// Healthy, not left out, and not the one that has just failed.
    Good,
    /// All healthy ones but that. When every server was left out, that helps nobody: they are asked as if
    /// nothing was known.
    Healthy,
    /// That one too: there is no other.
    Any,
}

impl Pool {
    /// Servers that are given by address are there at once; names wait for [`Pool::resolve`]. What is known of
    /// the servers of `previous`, a pool of the same name, goes on.
    pub(crate) fn new(settings: Upstream, previous: Option<&Self>) -> Result<Self, EdgeError> {
        let authorities = match &settings.tls_ca {
            Some(path) => Some(tls::authorities(path)?),
            None => None,
        };
        let breaker = settings.breaker.as_ref().map(|breaker| {
            let held = previous.and_then(|pool| pool.breaker.as_ref());
            match held.filter(|held| held.settings() == breaker) {
                Some(held) => Arc::clone(held),
                None => Arc::new(Breaker::new(Arc::clone(&settings.name), breaker.clone(), Instant::now())),
            }
        });
        let servers = previous.map(|pool| pool.servers.load_full()).unwrap_or_default();
        let pool = Self {
            settings,
            authorities,
            servers: ArcSwap::new(servers),
            turn: AtomicUsize::new(0),
            queue: previous.map(|pool| Arc::clone(&pool.queue)).unwrap_or_default(),
            breaker,
        };
        let known = pool.settings.servers.iter().map(|server| match server.host.parse() {
            Ok(ip) => (server.clone(), vec![SocketAddr::new(ip, server.port)]),
            Err(_) => (server.clone(), pool.known_addresses(server)),
        });
        pool.replace(known.collect());
        Ok(pool)
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.settings.name)
    }

    /// Whether this pool was made from exactly these settings.
    pub(crate) fn has(&self, settings: &Upstream) -> bool {
        self.settings == *settings
    }

    /// Whether answers with this status are failures.
    pub(crate) fn is_failure(&self, status: u16) -> bool {
        self.settings.fail_on_5xx && status >= 500
    }

    /// Whether there is a server besides the one at `address` that may work.
    pub(crate) fn has_other(&self, address: SocketAddr) -> bool {
        self.servers.load().iter().any(|server| server.address != address && server.state.is_healthy())
    }

    pub(crate) fn state(&self, now: Instant) -> PoolState {
        let servers = self.servers.load();
        let servers = servers.iter().map(|server| ServerState {
            address: server.address,
            healthy: server.state.is_healthy(),
            failing: server.standing(now) != Standing::Good,
            active: server.state.active.load(Ordering::Relaxed),
            failures: server.state.failures.load(Ordering::Relaxed),
        });
        PoolState {
            name: self.name(),
            circuit: self.breaker.as_ref().map(|breaker| breaker.state(now)),
            waiting: self.queue.len(),
            servers: servers.collect(),
        }
    }

    /// Asks the circuit breaker.
    pub(crate) fn admit(&self, now: Instant) -> Result<Admission, Unavailable> {
        match &self.breaker {
            None => Ok(Admission(None)),
            Some(breaker) => match breaker.enter(now) {
                Ok(permit) => Ok(Admission(Some(permit))),
                Err(left) => Err(Unavailable::CircuitOpen(left)),
            },
        }
    }

    /// The next server for a client, not the one at `except`, which has just failed, if there is another.
    /// Waits in the queue while all are full.
    pub(crate) async fn server(
        &self,
        client: IpAddr,
        except: Option<SocketAddr>,
    ) -> Result<Lease, Unavailable> {
        let chosen = self.choose(client, except, Instant::now());
        if !matches!(chosen, Err(Unavailable::Busy)) {
            return chosen;
        }
        let place = self.queue.enter(self.settings.queue).ok_or(Unavailable::Busy)?;
        let deadline = Instant::now() + self.settings.queue_timeout;
        while place.wait(deadline).await {
            let chosen = self.choose(client, except, Instant::now());
            if !matches!(chosen, Err(Unavailable::Busy)) {
                return chosen;
            }
        }
        Err(Unavailable::Busy)
    }

    fn choose(&self, client: IpAddr, except: Option<SocketAddr>, now: Instant) -> Result<Lease, Unavailable> {
        let servers = self.servers.load();
        for _ in 0..MAX_RACES {
            let Some(server) = self.best(&servers, client, except, now) else { break };
            if let Some(lease) = Lease::take(server, &self.queue, now) {
                return Ok(lease);
            }
        }
        match servers.iter().any(|server| server.state.is_healthy()) {
            true => Err(Unavailable::Busy),
            false => Err(Unavailable::NoneHealthy),
        }
    }

    /// The balance's choice in the best tier in which a server has room.
    fn best<'a>(
        &self,
        servers: &'a [Arc<Server>],
        client: IpAddr,
        except: Option<SocketAddr>,
        now: Instant,
    ) -> Option<&'a Arc<Server>> {
        if let [only] = servers {
            return (only.state.is_healthy() && only.has_room()).then_some(only);
        }
        let healthy = servers.iter().filter(|server| server.state.is_healthy());
        let looks: Vec<Look<'_>> = healthy.map(|server| Look::at(server, now)).collect();
        let of = |tier: Tier| {
            looks.iter().filter(move |look| match tier {
                Tier::Good => Some(look.server.address) != except && !look.is_out,
                Tier::Healthy => Some(look.server.address) != except,
                Tier::Any => true,
            })
        };
        for tier in [Tier::Good, Tier::Healthy, Tier::Any] {
            let with_room = of(tier).filter(|look| look.has_room).map(|look| look.server);
            let chosen = self.balanced(with_room, client, now);
            if chosen.is_some() {
                return chosen;
            }
            // Good servers that are full are waited for: those that are left out are no place to turn to.
            if of(tier).next().is_some() && except.is_none() {
                return None;
            }
        }
        None
    }

    /// The choice by the balance. A server that is starting slowly passes on what is more than its part.
    fn balanced<'a>(
        &self,
        servers: impl Iterator<Item = &'a Arc<Server>> + Clone,
        client: IpAddr,
        now: Instant,
    ) -> Option<&'a Arc<Server>> {
        let chosen = self.by_balance(servers.clone(), client)?;
        let part = chosen.part(now);
        if part >= 1.0 {
            return Some(chosen);
        }
        let lot = match self.settings.balance {
            // The clients move to it one after another, and each only once.
            Balance::ConsistentHash => chosen.unit(client),
            Balance::RoundRobin | Balance::LeastConnections => fastrand::f64(),
        };
        if lot < part {
            return Some(chosen);
        }
        let others = servers.filter(|server| server.address != chosen.address);
        self.by_balance(others, client).or(Some(chosen))
    }

    fn by_balance<'a>(
        &self,
        servers: impl Iterator<Item = &'a Arc<Server>> + Clone,
        client: IpAddr,
    ) -> Option<&'a Arc<Server>> {
        match self.settings.balance {
            Balance::RoundRobin => self.next_in_turn(servers),
            Balance::LeastConnections => {
                // Compares active / weight without a division.
                servers.min_by(|a, b| a.load_ratio(b).cmp(&b.load_ratio(a)))
            }
            Balance::ConsistentHash => {
                servers.max_by(|a, b| a.affinity(client).total_cmp(&b.affinity(client)))
            }
        }
    }

    fn next_in_turn<'a>(
        &self,
        servers: impl Iterator<Item = &'a Arc<Server>> + Clone,
    ) -> Option<&'a Arc<Server>> {
        let total: usize = servers.clone().map(|server| server.weight).sum();
        // Nobody's turn must not use up a turn.
        if total == 0 {
            return None;
        }
        let mut turn = self.turn.fetch_add(1, Ordering::Relaxed) % total;
        for server in servers {
            if turn < server.weight {
                return Some(server);
            }
            turn -= server.weight;
        }
        None
    }

    /// The addresses that a name had when it was last resolved.
    fn known_addresses(&self, server: &UpstreamServer) -> Vec<SocketAddr> {
        let servers = self.servers.load();
        let held =
            servers.iter().filter(|held| held.host == server.host && held.address.port() == server.port);
        held.map(|held| held.address).collect()
    }

    /// Servers that stay keep what is known of them.
    fn replace(&self, resolved: Vec<(UpstreamServer, Vec<SocketAddr>)>) {
        let now = Instant::now();
        let held = self.servers.load();
        let old: BTreeMap<SocketAddr, &Arc<Server>> =
            held.iter().map(|server| (server.address, server)).collect();
        let mut servers: Vec<Arc<Server>> = Vec::new();
        for (settings, addresses) in resolved {
            for address in addresses {
                if servers.iter().any(|server| server.address == address) {
                    continue;
                }
                let state = match old.get(&address).filter(|held| held.host == settings.host) {
                    Some(held) => Arc::clone(&held.state),
                    // The first ones start at once: there is nobody to leave the work to.
                    None => Arc::new(State::new(now, (!old.is_empty()).then_some(now))),
                };
                if self.settings.health.is_none() {
                    // Nobody would ever check it again.
                    state.healthy.store(true, Ordering::Relaxed);
                }
                servers.push(Arc::new(self.make_server(&settings, address, state)));
            }
        }
        servers.sort_by_key(|server| server.address);
        self.servers.store(Arc::new(servers));
    }

    fn make_server(&self, settings: &UpstreamServer, address: SocketAddr, state: Arc<State>) -> Server {
        let upstream = &self.settings;
        // Pingora does not verify a certificate when there is no name, so there always is one.
        let sni = upstream.tls_name.clone().unwrap_or_else(|| settings.host.clone());
        let mut peer = HttpPeer::new(address, settings.tls, sni);
        let options = &mut peer.options;
        options.connection_timeout = Some(upstream.connect_timeout);
        options.total_connection_timeout = Some(upstream.connect_timeout);
        options.read_timeout = Some(upstream.read_timeout);
        options.write_timeout = Some(upstream.write_timeout);
        options.idle_timeout = Some(upstream.idle_timeout);
        options.verify_cert = upstream.tls_verify;
        options.verify_hostname = upstream.tls_verify;
        options.ca = self.authorities.clone();
        // Pingora does not look at the authorities when it reuses a connection: pools must not share any.
        let mut hasher = DefaultHasher::new();
        (&upstream.name, &upstream.tls_ca).hash(&mut hasher);
        peer.group_key = hasher.finish();
        Server {
            pool: Arc::clone(&upstream.name),
            peer,
            address,
            host: settings.host.clone(),
            weight: settings.weight,
            authority: authority(settings),
            host_header: upstream.host_header,
            patience: Patience { max_fails: upstream.max_fails, fail_timeout: upstream.fail_timeout },
            max_connections: upstream.max_connections,
            slow_start: upstream.slow_start,
            state,
        }
    }

    /// Resolves names and checks health until nobody holds the pool any more.
    pub(crate) async fn maintain(pool: Weak<Self>, connector: Arc<Connector>) {
        tokio::join!(Self::keep_resolving(pool.clone()), Self::keep_checking(pool, connector));
    }
}

fn authority(server: &UpstreamServer) -> String {
    let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
    match (server.tls, server.port) {
        (false, 80) | (true, 443) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;
    use portcullis_config::HostHeader;

    fn settings(server: &UpstreamServer) -> Upstream {
        let span = Duration::from_secs(1);
        Upstream {
            name: "app".into(),
            servers: vec![server.clone()],
            balance: Balance::RoundRobin,
            connect_timeout: span,
            read_timeout: span,
            write_timeout: span,
            idle_timeout: span,
            tls_verify: true,
            tls_name: Some("site.example".to_owned()),
            tls_ca: None,
            host_header: HostHeader::Preserve,
            max_fails: 1,
            fail_timeout: span,
            fail_on_5xx: false,
            max_connections: None,
            queue: 0,
            queue_timeout: span,
            slow_start: span,
            health: None,
            breaker: None,
        }
    }

    #[test]
    fn a_name_that_cannot_be_resolved_keeps_its_addresses_whatever_its_certificate_is_named() {
        let server = UpstreamServer { host: "app.invalid".to_owned(), port: 443, tls: true, weight: 1 };
        let pool = Pool::new(settings(&server), None).unwrap();
        assert_eq!(pool.known_addresses(&server), []);
        let address: SocketAddr = "192.0.2.1:443".parse().unwrap();
        pool.replace(vec![(server.clone(), vec![address])]);
        assert_eq!(pool.known_addresses(&server), [address]);
        // Other settings, too.
        let changed = Upstream { max_fails: 2, ..settings(&server) };
        let pool = Pool::new(changed, Some(&pool)).unwrap();
        assert_eq!(pool.known_addresses(&server), [address]);
    }

    #[test]
    fn a_server_that_comes_and_goes_while_others_choose_fills_no_pool() {
        let server = UpstreamServer { host: "app.invalid".to_owned(), port: 80, tls: false, weight: 1 };
        let pool = Pool::new(Upstream { slow_start: Duration::ZERO, ..settings(&server) }, None).unwrap();
        let addresses = ["192.0.2.1:80", "192.0.2.2:80"].map(|text| text.parse().unwrap());
        pool.replace(vec![(server, addresses.to_vec())]);
        let servers = pool.servers.load_full();
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let lease = Lease::take(&servers[1], &pool.queue, Instant::now()).unwrap();
                while !is_done.load(Ordering::Relaxed) {
                    lease.failed(Instant::now());
                    lease.answered(Instant::now());
                }
            });
            let client = IpAddr::from([198, 51, 100, 1]);
            let chosen = (0..100_000).map(|_| pool.choose(client, None, Instant::now()).map(drop));
            let refused = chosen.filter(Result::is_err).count();
            is_done.store(true, Ordering::Relaxed);
            assert_eq!(refused, 0, "there was room all the time");
        });
    }

    #[test]
    fn a_server_that_joins_starts_slowly_and_the_first_ones_do_not() {
        let server = UpstreamServer { host: "app.invalid".to_owned(), port: 80, tls: false, weight: 1 };
        let pool = Pool::new(settings(&server), None).unwrap();
        let [first, second] = ["192.0.2.1:80", "192.0.2.2:80"].map(|text| text.parse().unwrap());
        let began = Instant::now();
        pool.replace(vec![(server.clone(), vec![first])]);
        pool.replace(vec![(server.clone(), vec![first, second])]);
        let joined = Instant::now();
        let part = |n: usize, now: Instant| pool.servers.load()[n].part(now);
        assert!(part(0, began) >= 1.0);
        assert!(part(1, began) <= 0.0);
        let half = part(1, joined + Duration::from_millis(500));
        assert!((0.5..1.0).contains(&half) || joined - began >= Duration::from_millis(500), "{half}");
        assert!(part(1, joined + Duration::from_secs(1)) >= 1.0);
    }
}
