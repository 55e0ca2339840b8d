//! Accepts connections and drives each of them to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{ALPN, IO};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use crate::edge::Edge;
use crate::hooks::Hooks;
use crate::tls::{ClientCertificate, Listener};

use super::Connection;
use super::socket::Socket;
use super::stream::Guarded;

/// The pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener's connections need; cheap to clone.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) edge: Arc<Edge>,
    pub(crate) proxy: Arc<HttpProxy<Hooks>>,
    /// `None` is plaintext.
    pub(crate) tls: Option<Arc<Listener>>,
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
                tokio::spawn(async move {
                    acceptor.drive(socket, peer, shutdown).await;
                    drop(open);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Counts an open connection until it is dropped, by a panic too.
struct Open(Arc<Edge>);

impl Open {
    fn count(edge: &Arc<Edge>) -> Self {
        edge.metrics.connection_opened();
        Self(Arc::clone(edge))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connection_closed();
    }
}

impl Acceptor {
    async fn drive(&self, socket: TcpStream, peer: SocketAddr, shutdown: ShutdownWatch) {
        // Fails only on a socket that is closed already, which the first read finds.
        let _ = socket.set_nodelay(true);
        let connection = Arc::new(Connection::new(Arc::clone(&self.edge), peer, self.tls.is_some()));
        let socket = Socket::new(socket);
        let Some(tls) = &self.tls else {
            return self.requests(socket, connection, shutdown).await;
        };
        let bound = connection.bounds().head_timeout;
        match tokio::time::timeout(bound, tls.acceptor().tls_handshake(socket)).await {
            Ok(Ok(stream)) => {
                if let Some(certificate) = ClientCertificate::of(&stream) {
                    let _ = connection.certificate.set(certificate);
                }
                self.requests(stream, connection, shutdown).await;
            }
            Ok(Err(_)) | Err(_) => connection.record_failed_handshake(),
        }
    }

    async fn requests<S: IO + 'static>(
        &self,
        stream: S,
        connection: Arc<Connection>,
        shutdown: ShutdownWatch,
    ) {
        let is_h2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
        let stream = match Guarded::new(stream, Arc::clone(&connection)) {
            Ok(stream) => Box::new(stream),
            Err(error) => return tracing::error!("cannot guard a connection: {error}"),
        };
        if is_h2 {
            connection.expect_frames();
            self.proxy.process_new(stream, &shutdown).await;
            return;
        }
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(connection.bounds().keepalive_timeout.as_secs().max(1)));
        loop {
            connection.expect_head();
            let before = connection.requests();
            let next = self.proxy.process_new_http(session, &shutdown).await;
            if connection.requests() == before {
                return connection.record_failed_head();
            }
            let Some(reused) = next else { return };
            let (stream, settings) = reused.consume();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }
}
