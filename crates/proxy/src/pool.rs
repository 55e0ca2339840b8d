//! The servers of an upstream: which there are, which are healthy, which one is next.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::WrappedX509;
use portcullis_config::{Balance, HealthCheck, HostHeader, Upstream, UpstreamServer};

use crate::{EdgeError, tls};

/// How often host names are resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long one round of name resolution may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most addresses that one host name gives.
const MAX_ADDRESSES: usize = 16;

/// One upstream of the configuration.
pub(crate) struct Pool {
    settings: Upstream,
    /// The certificates to trust instead of the system's.
    authorities: Option<Arc<[WrappedX509]>>,
    servers: ArcSwap<Vec<Arc<Server>>>,
    turn: AtomicUsize,
}

/// One address of one server.
pub(crate) struct Server {
    peer: HttpPeer,
    address: SocketAddr,
    /// What the address was looked up for, whatever name its certificate must have.
    host: String,
    weight: usize,
    healthy: AtomicBool,
    /// Checks in a row that spoke against the present state.
    contrary: AtomicUsize,
    active: AtomicUsize,
    /// As in a URL: without the port where that is the scheme's own.
    authority: String,
    host_header: HostHeader,
}

/// A request that is being served counts as one connection of its server until this is dropped.
pub(crate) struct Lease {
    server: Arc<Server>,
}

impl Lease {
    fn new(server: &Arc<Server>) -> Self {
        server.active.fetch_add(1, Ordering::Relaxed);
        Self { server: Arc::clone(server) }
    }

    pub(crate) fn peer(&self) -> HttpPeer {
        self.server.peer.clone()
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
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Servers that are given by address are there at once; names wait for [`Pool::resolve`].
    pub(crate) fn new(settings: Upstream) -> Result<Self, EdgeError> {
        let authorities = match &settings.tls_ca {
            Some(path) => Some(tls::authorities(path)?),
            None => None,
        };
        let pool = Self { settings, authorities, servers: ArcSwap::default(), turn: AtomicUsize::new(0) };
        let literal = pool.settings.servers.iter().filter_map(|server| {
            let ip: IpAddr = server.host.parse().ok()?;
            Some((server.clone(), vec![SocketAddr::new(ip, server.port)]))
        });
        pool.replace(literal.collect());
        Ok(pool)
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.settings.name)
    }

    /// Whether this pool was made from exactly these settings.
    pub(crate) fn has(&self, settings: &Upstream) -> bool {
        self.settings == *settings
    }

    pub(crate) fn len(&self) -> usize {
        self.servers.load().len()
    }

    pub(crate) fn healthy(&self) -> usize {
        self.servers.load().iter().filter(|server| server.is_healthy()).count()
    }

    /// The next server for a client; not the one at `except`, which has just failed, if there is another.
    pub(crate) fn choose(&self, client: IpAddr, except: Option<SocketAddr>) -> Option<Lease> {
        let servers = self.servers.load();
        if let [only] = servers.as_slice() {
            return only.is_healthy().then(|| Lease::new(only));
        }
        let healthy = || servers.iter().filter(|server| server.is_healthy());
        let others = || healthy().filter(|server| Some(server.address) != except);
        let chosen = match self.settings.balance {
            Balance::RoundRobin => self.next_in_turn(others()),
            Balance::LeastConnections => {
                // Compares active / weight without a division.
                others().min_by(|a, b| a.load_ratio(b).cmp(&b.load_ratio(a)))
            }
            Balance::ConsistentHash => {
                others().max_by(|a, b| a.affinity(client).total_cmp(&b.affinity(client)))
            }
        };
        chosen.or_else(|| healthy().next()).map(Lease::new)
    }

    fn next_in_turn<'a>(
        &self,
        servers: impl Iterator<Item = &'a Arc<Server>> + Clone,
    ) -> Option<&'a Arc<Server>> {
        let total: usize = servers.clone().map(|server| server.weight).sum();
        let mut turn = self.turn.fetch_add(1, Ordering::Relaxed) % total.max(1);
        for server in servers {
            if turn < server.weight {
                return Some(server);
            }
            turn -= server.weight;
        }
        None
    }

    /// Looks up the names of the servers. What cannot be resolved keeps its last addresses.
    pub(crate) async fn resolve(&self) {
        if self.settings.servers.iter().all(|server| server.host.parse::<IpAddr>().is_ok()) {
            return;
        }
        let mut found = Vec::new();
        for server in &self.settings.servers {
            let lookup = tokio::net::lookup_host((server.host.as_str(), server.port));
            match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
                Ok(Ok(addresses)) => found.push((server.clone(), addresses.take(MAX_ADDRESSES).collect())),
                Ok(Err(error)) => self.unresolved(server, &error.to_string(), &mut found),
                Err(_) => self.unresolved(server, "no answer in time", &mut found),
            }
        }
        self.replace(found);
    }

    fn unresolved(
        &self,
        server: &UpstreamServer,
        why: &str,
        found: &mut Vec<(UpstreamServer, Vec<SocketAddr>)>,
    ) {
        tracing::warn!("upstream {}: cannot resolve {}: {why}", self.settings.name, server.host);
        let known: Vec<SocketAddr> = self
            .servers
            .load()
            .iter()
            .filter(|held| held.host == server.host && held.address.port() == server.port)
            .map(|held| held.address)
            .collect();
        found.push((server.clone(), known));
    }

    /// Servers that stay keep their health and their counts.
    fn replace(&self, resolved: Vec<(UpstreamServer, Vec<SocketAddr>)>) {
        let old: BTreeMap<SocketAddr, Arc<Server>> =
            self.servers.load().iter().map(|server| (server.address, Arc::clone(server))).collect();
        let mut servers: Vec<Arc<Server>> = Vec::new();
        for (settings, addresses) in resolved {
            for address in addresses {
                if servers.iter().any(|server| server.address == address) {
                    continue;
                }
                let held = old
                    .get(&address)
                    .filter(|held| held.weight == settings.weight && held.host == settings.host);
                servers.push(match held {
                    Some(server) => Arc::clone(server),
                    None => Arc::new(self.server(&settings, address)),
                });
            }
        }
        servers.sort_by_key(|server| server.address);
        self.servers.store(Arc::new(servers));
    }

    fn server(&self, settings: &UpstreamServer, address: SocketAddr) -> Server {
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
            peer,
            address,
            host: settings.host.clone(),
            weight: settings.weight,
            healthy: AtomicBool::new(true),
            contrary: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            authority: authority(settings),
            host_header: upstream.host_header,
        }
    }

    /// Resolves names and checks health until nobody holds the pool any more.
    pub(crate) async fn maintain(pool: Weak<Self>, connector: Arc<Connector>) {
        let interval = match pool.upgrade() {
            Some(pool) => pool.settings.health.as_ref().map_or(RESOLVE_INTERVAL, |health| health.interval),
            None => return,
        };
        let mut since_resolved = Duration::ZERO;
        loop {
            if let Some(pool) = pool.upgrade()
                && let Some(health) = &pool.settings.health
            {
                pool.check_all(health, &connector).await;
            }
            tokio::time::sleep(interval).await;
            let Some(pool) = pool.upgrade() else { return };
            since_resolved += interval;
            if since_resolved >= RESOLVE_INTERVAL {
                since_resolved = Duration::ZERO;
                pool.resolve().await;
            }
        }
    }

    async fn check_all(&self, health: &HealthCheck, connector: &Connector) {
        let servers = self.servers.load_full();
        for server in servers.iter() {
            let result = match tokio::time::timeout(health.timeout, server.check(health, connector)).await {
                Ok(Ok(status)) if health.expects(status) => Ok(()),
                Ok(Ok(status)) => Err(format!("it answered {} with status {status}", health.path)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {:?}", health.timeout)),
            };
            self.judge(server, health, result);
        }
    }

    fn judge(&self, server: &Server, health: &HealthCheck, result: Result<(), String>) {
        let is_good = result.is_ok();
        if is_good == server.is_healthy() {
            server.contrary.store(0, Ordering::Relaxed);
            return;
        }
        let needed = if is_good { health.healthy_after } else { health.unhealthy_after };
        if server.contrary.fetch_add(1, Ordering::Relaxed) + 1 < needed {
            return;
        }
        server.contrary.store(0, Ordering::Relaxed);
        server.healthy.store(is_good, Ordering::Relaxed);
        let (name, address) = (&self.settings.name, server.address);
        match result {
            Ok(()) => tracing::info!("upstream {name}: {address} is healthy again"),
            Err(why) => tracing::warn!("upstream {name}: {address} is unhealthy: {why}"),
        }
    }
}

fn authority(server: &UpstreamServer) -> String {
    let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
    match (server.tls, server.port) {
        (false, 80) | (true, 443) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

impl Server {
    /// The status that a health check is answered with.
    async fn check(&self, health: &HealthCheck, connector: &Connector) -> pingora::Result<u16> {
        let mut peer = self.peer.clone();
        // A kept connection would hide that no new one can be made.
        peer.options.idle_timeout = Some(Duration::ZERO);
        let (mut session, _) = connector.get_http_session(&peer).await?;
        let mut request = RequestHeader::build("GET", health.path.as_bytes(), Some(2))?;
        request.insert_header(http::header::HOST, &self.authority)?;
        request.insert_header(http::header::USER_AGENT, "portcullis-health-check")?;
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        Ok(session.response_header().map_or(0, |answer| answer.status.as_u16()))
    }

    fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// `self.active / self.weight` as a multiple of `1 / (self.weight * other.weight)`.
    fn load_ratio(&self, other: &Self) -> usize {
        self.active.load(Ordering::Relaxed) * other.weight
    }

    /// Weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): the server with the largest
    /// `-weight / ln(hash)` has the client, and a server that leaves moves only its own clients.
    fn affinity(&self, client: IpAddr) -> f64 {
        let mut hasher = DefaultHasher::new();
        (client, self.address).hash(&mut hasher);
        // 53 bits fill a double's mantissa; the half keeps the logarithm away from 0 and 1.
        let unit = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -(self.weight as f64) / unit.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_resolved_keeps_its_addresses_whatever_its_certificate_is_named() {
        let span = Duration::from_secs(1);
        let server = UpstreamServer { host: "app.invalid".to_owned(), port: 443, tls: true, weight: 1 };
        let pool = Pool::new(Upstream {
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
            health: None,
        })
        .unwrap();
        let address: SocketAddr = "192.0.2.1:443".parse().unwrap();
        pool.replace(vec![(server.clone(), vec![address])]);
        let mut found = Vec::new();
        pool.unresolved(&server, "no answer in time", &mut found);
        assert_eq!(found, [(server, vec![address])]);
    }
}
