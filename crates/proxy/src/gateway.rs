//! Listeners and worker threads: from a configuration to a gateway that serves, and to its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora::apps::{HttpServerApp as _, HttpServerOptions};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use portcullis_config::{Config, Server};
use portcullis_policy::LiveState;
use tokio::runtime::Runtime;
use tokio::sync::watch as channel;

use crate::edge::{Callbacks, Edge};
use crate::guard::{Acceptor, serve, watch};
use crate::hooks::Hooks;
use crate::pool::Pool;
use crate::ruleset::Ruleset;
use crate::tls::{Listener, Tls};
use crate::{Clock, EdgeError};

/// Tries of one request, the first included.
const MAX_TRIES: usize = 2;
/// Idle connections to upstreams that are kept, in all.
const KEPT_UPSTREAM_CONNECTIONS: usize = 1_024;
/// How many times `max_head` the headers of an HTTP/2 request may be before the library refuses them, which
/// leaves no record. It counts 32 bytes more for each header (RFC 9113, 6.5.2).
const H2_HEAD_FACTOR: usize = 2;
/// Streams of one HTTP/2 connection at once. More than clients commonly open, since the library counts a stream
/// for a moment longer than they do, and would refuse the next.
const MAX_STREAMS: u32 = 128;
/// How often the end of a shutdown looks whether all connections are gone.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4_096;
/// Bytes of an answer that the kernel takes before the client's window is open for them, and of each stream that
/// the HTTP/2 library takes before the kernel does. Without a bound the kernel buffers megabytes for each client
/// that does not read, out of a budget that all sockets of the machine share.
const MAX_UNSENT: u32 = 64 << 10;

/// Listening sockets of a predecessor, each with the address that was asked for when it was bound.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// Takes them over as they are.
    pub fn new(sockets: Vec<(SocketAddr, TcpListener)>) -> Self {
        Self(sockets)
    }

    /// The socket that was bound for `address`, each only once. Those of one address (port 0) keep their order.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|(bound_for, _)| *bound_for == address)?;
        Some(self.0.remove(at).1)
    }
}

/// Listening sockets, bound but not served yet: what can fail has failed before anything is started.
pub struct Bound {
    listeners: Vec<(TcpListener, Option<Arc<Listener>>)>,
    /// The addresses, as they were asked for, at which connections begin with a PROXY header.
    proxied: Vec<SocketAddr>,
    tls: Tls,
    /// What the configuration asked for, in the same order.
    asked: Vec<SocketAddr>,
}

impl Bound {
    /// Reads the certificates and binds every listener that is not among the inherited ones.
    ///
    /// # Errors
    /// The first file or address that cannot be used.
    pub fn bind(server: &Server, inherited: &mut Inherited) -> Result<Self, EdgeError> {
        let tls = Tls::open(server)?;
        let mut socket = |address| inherited.take(address).map_or_else(|| bind(address), Ok);
        let mut listeners = Vec::new();
        for &address in &server.listen {
            listeners.push((socket(address)?, None));
        }
        for (settings, listener) in server.tls.iter().zip(tls.listeners()) {
            listeners.push((socket(settings.listen)?, Some(Arc::clone(listener))));
        }
        let asked = server.listen.iter().copied().chain(server.tls.iter().map(|tls| tls.listen)).collect();
        Ok(Self { listeners, proxied: server.proxy_protocol.clone(), tls, asked })
    }

    /// The sockets once more, for a successor, each with the address that the configuration asked for.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn sockets(&self) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
        let pairs = self.asked.iter().zip(&self.listeners);
        pairs.map(|(&address, (listener, _))| Ok((address, listener.try_clone()?))).collect()
    }

    /// The addresses that were bound, ports of 0 resolved, plaintext first; and whether each speaks TLS.
    pub fn addresses(&self) -> Vec<(SocketAddr, bool)> {
        self.listeners
            .iter()
            .filter_map(|(listener, tls)| Some((listener.local_addr().ok()?, tls.is_some())))
            .collect()
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, EdgeError> {
    let socket = || -> io::Result<TcpListener> {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // The accepted sockets inherit it.
        socket.set_tcp_notsent_lowat(MAX_UNSENT)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    socket().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => EdgeError::AddressInUse { address },
        io::ErrorKind::PermissionDenied => EdgeError::AddressDenied { address },
        _ => EdgeError::Listen { address, source },
    })
}

/// A gateway that serves.
pub struct Gateway {
    edge: Arc<Edge>,
    runtime: Runtime,
    shutdown: channel::Sender<bool>,
    proxy: Arc<HttpProxy<Hooks>>,
    connector: Arc<Connector>,
    grace_period: Duration,
    /// Reloads come one after another.
    reload: Mutex<()>,
    /// Those that nothing is accepted on yet.
    listeners: Mutex<Vec<(tokio::net::TcpListener, Acceptor)>>,
}

impl Gateway {
    /// Starts the worker threads, and makes ready to serve on `bound`. Every request that ends is given to
    /// `callbacks.record`.
    ///
    /// # Errors
    /// When an upstream's certificates cannot be read or no thread can be started.
    pub fn start(
        config: &Config,
        bound: Bound,
        state: Arc<LiveState>,
        clock: Clock,
        callbacks: Callbacks,
    ) -> Result<Self, EdgeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.server.threads)
            .thread_name("portcullis-edge")
            .enable_all()
            .build()
            .map_err(EdgeError::Runtime)?;
        let edge = Arc::new(Edge::new(Ruleset::build(config, None)?, bound.tls, state, clock, callbacks));
        let conf = Arc::new(ServerConf {
            threads: config.server.threads,
            max_retries: MAX_TRIES,
            upstream_keepalive_pool_size: KEPT_UPSTREAM_CONNECTIONS,
            ..ServerConf::default()
        });
        let (shutdown, _) = channel::channel(false);
        let _inside = runtime.enter();
        let connector = Arc::new(Connector::new(Some(ConnectorOptions::from_server_conf(&conf))));
        let mut proxy = http_proxy(&conf, Hooks::new(Arc::clone(&edge)));
        let mut options = HttpServerOptions::default();
        // Not to forward it, but to refuse it in the hooks: Pingora's own refusal leaves no record.
        options.allow_connect_method_proxying = true;
        proxy.server_options = Some(options);
        let mut h2 = default_h2_options();
        // The hooks hold heads to `max_head`, which a reload may change; this is what is not even read.
        let largest = config.server.max_head.saturating_mul(H2_HEAD_FACTOR);
        h2.max_header_list_size(u32::try_from(largest).unwrap_or(u32::MAX));
        h2.max_concurrent_streams(MAX_STREAMS);
        h2.max_send_buffer_size(MAX_UNSENT as usize);
        proxy.h2_options = Some(h2);
        let proxy = Arc::new(proxy);

        runtime.block_on(async {
            for pool in &edge.rules.load().pools {
                pool.resolve().await;
            }
        });
        for pool in &edge.rules.load().pools {
            runtime.spawn(Pool::maintain(Arc::downgrade(pool), Arc::clone(&connector)));
        }
        if edge.max_sockets < config.server.max_connections {
            tracing::warn!(
                "the limit of open files leaves room for {} clients only, fewer than server.max_connections \
                 ({}); raise it with ulimit -n or LimitNOFILE=",
                edge.max_sockets,
                config.server.max_connections
            );
        }
        runtime.spawn(watch(Arc::downgrade(&edge)));
        let mut listeners = Vec::new();
        for (asked, (listener, tls)) in bound.asked.into_iter().zip(bound.listeners) {
            let is_proxied = bound.proxied.contains(&asked);
            let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
            let listener = tokio::net::TcpListener::from_std(listener)
                .map_err(|source| EdgeError::Listen { address, source })?;
            let acceptor = Acceptor { edge: Arc::clone(&edge), proxy: Arc::clone(&proxy), tls, is_proxied };
            listeners.push((listener, acceptor));
        }
        let grace_period = config.server.grace_period;
        let (reload, listeners) = (Mutex::new(()), Mutex::new(listeners));
        Ok(Self { edge, runtime, shutdown, proxy, connector, grace_period, reload, listeners })
    }

    /// Serves from now on.
    pub fn accept(&self) {
        for (listener, acceptor) in self.listeners.lock().drain(..) {
            self.runtime.spawn(serve(listener, acceptor, self.shutdown.subscribe()));
        }
    }

    /// What the connections share.
    pub fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// Puts a new configuration in force, for connections and requests that begin from now on. It must have the
    /// same listeners.
    ///
    /// # Errors
    /// When a certificate cannot be read; the old configuration stays.
    pub fn apply(&self, config: &Config) -> Result<(), EdgeError> {
        let _one = self.reload.lock();
        let old = self.edge.rules.load_full();
        let tls = self.edge.tls.prepare(&config.server)?;
        let new = Ruleset::build(config, Some(&old))?;
        let added: Vec<Weak<Pool>> = new
            .pools
            .iter()
            .filter(|pool| !old.pools.iter().any(|kept| Arc::ptr_eq(kept, pool)))
            .map(Arc::downgrade)
            .collect();
        let mut ending = self.shutdown.subscribe();
        let resolved = self.runtime.block_on(async {
            let resolve = async {
                for pool in added.iter().filter_map(Weak::upgrade) {
                    pool.resolve().await;
                }
            };
            // Names that nobody resolves must not hold up the end of the gateway.
            tokio::select! {
                () = resolve => true,
                _ = ending.wait_for(|is_ending| *is_ending) => false,
            }
        });
        if !resolved {
            return Err(EdgeError::Ending);
        }
        tls.put_in_force();
        self.edge.rules.store(Arc::new(new));
        for pool in added {
            self.runtime.spawn(Pool::maintain(pool, Arc::clone(&self.connector)));
        }
        Ok(())
    }

    /// Takes over the files of certificates that have changed; a broken one changes nothing, and the log says so.
    pub fn refresh_certificates(&self) {
        self.edge.tls.refresh();
    }

    /// Stops accepting, and tells each client with its next answer that its connection is at its end. An
    /// idle connection stays open until then, or until it has been idle for too long: a request that is on
    /// its way must not meet a closed socket.
    pub fn retire(&self) {
        self.shutdown.send_replace(true);
    }

    /// How long open requests may take to finish at the end.
    pub fn grace_period(&self) -> Duration {
        self.grace_period
    }

    /// Stops accepting, closes idle connections, lets open requests finish for `grace`, then ends what is
    /// left.
    pub fn shutdown(self, grace: Duration) {
        self.retire();
        self.edge.watch.close_idle();
        self.runtime.block_on(self.proxy.http_cleanup());
        let deadline = Instant::now() + grace;
        while self.edge.metrics.connections() > 0 && Instant::now() < deadline {
            std::thread::sleep(DRAIN_POLL);
        }
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}
