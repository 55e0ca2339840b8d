//! A real HTTP/1.1 server for the gateway to stand in front of. It notes every request that reaches it.
//!
//! Owns its listener, its thread and its notes; what it answers is in `upstream_answers.rs`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::upstream_answers::answer;

/// Requests that are noted at most; later ones are only counted.
const MAX_SEEN: usize = 50_000;
const MAX_EVENTS: usize = 64;
/// More than the gateway lets through with its own added.
const MAX_HEADERS: usize = 300;

/// A request as it reached the upstream.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// Connections are numbered from 1.
    pub connection: usize,
}

impl Seen {
    /// All values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &**value).collect()
    }

    /// The value of a header that came exactly once.
    pub fn header(&self, name: &str) -> &str {
        match *self.all(name) {
            [value] => value,
            ref other => panic!("expected {name} once, got {other:?}"),
        }
    }
}

/// What the upstream's answers may look at and what they leave behind.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) healthy: AtomicBool,
    /// What `/events` sends.
    pub(crate) events: broadcast::Sender<String>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

/// The running server; ends when it is dropped.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    pub fn start() -> Self {
        Self::named("app")
    }

    /// The name is in every answer's `X-Upstream`.
    pub fn named(name: &str) -> Self {
        Self::run(name, TcpListener::bind("127.0.0.1:0").unwrap(), None)
    }

    /// On an address where another one was before.
    pub fn at(name: &str, address: SocketAddr) -> Self {
        Self::run(name, TcpListener::bind(address).unwrap(), None)
    }

    pub fn tls(name: &str, config: Arc<ServerConfig>) -> Self {
        Self::run(name, TcpListener::bind("127.0.0.1:0").unwrap(), Some(config))
    }

    fn run(name: &str, listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            healthy: AtomicBool::new(true),
            events: broadcast::channel(MAX_EVENTS).0,
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, tls.map(TlsAcceptor::from), state) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime closes the connections.
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that have come.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections that were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The requests, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest request.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("no request has reached the upstream")
    }

    /// What `/healthz` says from now on.
    pub fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Ordering::SeqCst);
    }

    /// Sends an event on every open `/events`. Returns on how many.
    pub fn send_event(&self, text: &str) -> usize {
        self.shared.events.send(text.to_owned()).unwrap_or(0)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was printed by the panic hook.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match tls {
                None => serve(socket, number, shared).await,
                Some(tls) => {
                    // A handshake that fails is the test's business.
                    if let Ok(stream) = tls.accept(socket).await {
                        serve(stream, number, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, connection: usize, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        shared.note(&request, connection);
        let shared = Arc::clone(&shared);
        async move { answer(request, &shared).await }
    });
    // Connections that a test breaks end with an error here.
    let _ = hyper::server::conn::http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

impl Shared {
    fn note(&self, request: &hyper::Request<Incoming>, connection: usize) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < MAX_SEEN {
            seen.push(Seen {
                method: request.method().to_string(),
                target: request.uri().to_string(),
                headers: header_list(request.headers()),
                connection,
            });
        }
    }
}

pub(crate) fn header_list(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// An address of this machine that refuses every connection for as long as this is held.
pub struct Refusing {
    socket: Socket,
}

impl Refusing {
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Bound but not listening: nobody else can get the port.
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Self { socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }
}

impl Default for Refusing {
    fn default() -> Self {
        Self::new()
    }
}

/// An address of this machine where connections are neither accepted nor refused.
pub struct Silent {
    listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    pub fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // Once the queue of connections that wait to be accepted is full, the kernel answers nothing more.
        let patience = std::time::Duration::from_millis(200);
        let waiting = std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok()).collect();
        Self { listener, _waiting: waiting }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}

impl Default for Silent {
    fn default() -> Self {
        Self::new()
    }
}
