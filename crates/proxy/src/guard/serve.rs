//! Accepts connections and drives each of them to its end.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::{ALPN, IO, Ssl};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use portcullis_model::MalformedKind;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use crate::edge::Edge;
use crate::hooks::Hooks;
use crate::tls::{ClientCertificate, Listener};

use super::Connection;
use super::admit::Open;
use super::first_bytes::told_by;
use super::http2;
use super::proxied::read_header;
use super::socket::Socket;
use super::stream::{Guarded, Next};

/// The pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How much of an answer the kernel takes before any of it can be sent, in bytes: enough to keep a line busy.
const MAX_UNSENT: u32 = 64 << 10;
/// How much of a head that is no request is kept for its record.
const KEPT_BYTES: usize = 1_024;
/// How much of a TLS connection is looked at before the handshake.
const FIRST_BYTES: usize = 64;

/// What a listener's connections need; cheap to clone.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) edge: Arc<Edge>,
    pub(crate) proxy: Arc<HttpProxy<Hooks>>,
    /// `None` is plaintext.
    pub(crate) tls: Option<Arc<Listener>>,
    /// Whether each connection begins with a PROXY header.
    pub(crate) is_proxied: bool,
}

/// Accepts until `shutdown` says so. Connections that are open go on.
pub(crate) async fn serve(listener: TcpListener, acceptor: Acceptor, mut shutdown: ShutdownWatch) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = shutdown.changed() => {
                if changed.is_err() || *shutdown.borrow() {
                    return;
                }
                continue;
            }
        };
        match accepted {
            Ok((socket, peer)) => {
                let open = Open::count(&acceptor.edge);
                let (acceptor, shutdown) = (acceptor.clone(), shutdown.clone());
                tokio::spawn(async move { acceptor.drive(socket, peer, open, shutdown).await });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Acceptor {
    async fn drive(&self, mut socket: TcpStream, peer: SocketAddr, mut open: Open, shutdown: ShutdownWatch) {
        // Fails only on a socket that is closed already, which the first read finds.
        let _ = socket.set_nodelay(true);
        // Where the system has no such bound, the kernel holds more for a client that takes nothing.
        let _ = SockRef::from(&socket).set_tcp_notsent_lowat(MAX_UNSENT);
        let mut connection = self.connection(peer);
        let mut ahead = Vec::new();
        if let Err(reason) = connection.find_room() {
            return connection.shed(&socket, reason);
        }
        if self.is_proxied {
            // Boxed, as is TLS: what a plain connection holds while it waits is small.
            let Some(named) = Box::pin(read_header(&mut socket, peer, &connection)).await else { return };
            connection = self.connection(named.client);
            ahead = named.ahead;
        }
        if let Err(reason) = connection.admit(&mut open) {
            return connection.shed(&socket, reason);
        }
        match &self.tls {
            None => {
                let socket = Socket::new(socket, ahead, Arc::clone(&connection));
                self.requests(socket, &connection, shutdown).await;
            }
            Some(tls) => Box::pin(self.encrypted(socket, ahead, tls, &connection, shutdown)).await,
        }
    }

    fn connection(&self, client: SocketAddr) -> Arc<Connection> {
        Arc::new(Connection::new(Arc::clone(&self.edge), client, self.tls.is_some()))
    }

    async fn encrypted(
        &self,
        socket: TcpStream,
        ahead: Vec<u8>,
        tls: &Listener,
        connection: &Arc<Connection>,
        shutdown: ShutdownWatch,
    ) {
        let mut deadline = Instant::now() + connection.bounds().head_timeout;
        let mut first = [0; FIRST_BYTES];
        let n = match ahead.len().min(FIRST_BYTES) {
            0 => timeout_at(deadline, socket.peek(&mut first)).await,
            n => {
                first[..n].copy_from_slice(&ahead[..n]);
                Ok(Ok(n))
            }
        };
        // A connection without a byte is nobody's fault: browsers open some in advance.
        let Ok(Ok(n @ 1..)) = n else { return };
        let first = &first[..n];
        let socket = Socket::new(socket, ahead, Arc::clone(connection));
        if looks_like_http(first) {
            return Box::pin(self.refuse_plaintext(socket, first, connection)).await;
        }
        if connection.enter().await.is_err() {
            return connection.record_crowded();
        }
        deadline = Instant::now() + connection.bounds().head_timeout;
        // Boxed each: a connection that waits for a seat must not hold room for what comes after.
        let acceptor = tls.acceptor();
        let handshake = Box::pin(acceptor.tls_handshake(socket));
        let Ok(Ok(stream)) = timeout_at(deadline, handshake).await else {
            let kind = MalformedKind::TlsHandshake;
            return connection.record_malformed(kind, None, first, connection.opened);
        };
        if let Some(certificate) = ClientCertificate::of(&stream) {
            let _ = connection.certificate.set(certificate);
        }
        match stream.selected_alpn_proto() {
            Some(ALPN::H2) => Box::pin(http2::serve(stream, connection, &self.proxy, shutdown)).await,
            _ => Box::pin(self.requests(stream, connection, shutdown)).await,
        }
    }

    /// Plain HTTP on a port for TLS: browsers cannot tell people what is wrong, a page can.
    async fn refuse_plaintext(&self, socket: Socket, first: &[u8], connection: &Arc<Connection>) {
        let (id, answer) = connection.plaintext_refusal();
        let guarded = Mutex::new(Guarded::new(socket, Arc::clone(connection)));
        Guarded::close(&guarded, &answer, true).await;
        let answered = Some((id, 400));
        connection.record_malformed(MalformedKind::TlsHandshake, answered, first, connection.opened);
    }

    /// HTTP/1, one request after the other.
    async fn requests<S: IO + 'static>(
        &self,
        stream: S,
        connection: &Arc<Connection>,
        shutdown: ShutdownWatch,
    ) {
        let guarded = Arc::new(Mutex::new(Guarded::new(stream, Arc::clone(connection))));
        loop {
            guarded.lock().expect_head();
            match poll_fn(|cx| guarded.lock().poll_head(cx)).await {
                Next::Closed => return,
                Next::Refused(status, kind) => return refuse(&guarded, connection, status, kind).await,
                Next::Request => {}
            }
            // The hooks answer a newcomer that finds no seat.
            let _ = connection.enter().await;
            let lent = match Guarded::lend(&guarded) {
                Ok(lent) => Box::new(lent),
                Err(error) => return tracing::error!("cannot hand over a request: {error}"),
            };
            let served = connection.requests();
            let reused = self.proxy.process_new_http(ServerSession::new_http1(lent), &shutdown).await;
            if connection.requests() == served {
                let status = guarded.lock().refused();
                let kind = refused_by_pingora(status, guarded.lock().head_bytes());
                return refuse(&guarded, connection, status, kind).await;
            }
            if reused.is_none() {
                return Guarded::close(&guarded, &[], false).await;
            }
        }
    }
}

/// Answers what is no request, leaves a row, and closes.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    guarded: &Mutex<Guarded<S>>,
    connection: &Connection,
    status: u16,
    kind: MalformedKind,
) {
    let (began, bytes) = {
        let guarded = guarded.lock();
        let bytes = guarded.head_bytes();
        (guarded.head_began(), bytes[..bytes.len().min(KEPT_BYTES)].to_vec())
    };
    let (id, answer) = match status {
        0 => (None, Vec::new()),
        status => {
            let (id, answer) = connection.refusal(status, began);
            (Some((id, status)), answer)
        }
    };
    connection.record_malformed(kind, id, &bytes, began);
    if status > 0 {
        Guarded::close(guarded, &answer, true).await;
    }
}

/// What Pingora refuses although the guard let it through.
fn refused_by_pingora(status: u16, head: &[u8]) -> MalformedKind {
    let target = told_by(head).target;
    match status {
        405 => MalformedKind::Method,
        // It wants the authority of an absolute target and Host to be the same to the letter.
        _ if !target.starts_with(b"/") && target != &b"*"[..] => MalformedKind::Host,
        _ => MalformedKind::BadRequest,
    }
}

/// Whether these are the first bytes of a plain HTTP request, and so not of a TLS handshake.
fn looks_like_http(first: &[u8]) -> bool {
    first.iter().take_while(|&&b| b != b' ').all(u8::is_ascii_uppercase)
}
