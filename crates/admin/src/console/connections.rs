//! The console's connections: accepting, TLS, and their bounds in number, size and time.
//! Must not know the routes.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use portcullis_config::CertificateFiles;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::visitor::Peer;
use crate::AdminError;

/// Connections that are served at once; more wait in the backlog of the socket.
const MAX_CONNECTIONS: usize = 128;
/// Largest request head in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// For the TLS handshake, and for each request's head, the wait for it included.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Of a whole connection, however slowly its client reads. What streams begins anew by itself.
const CONNECTION_TIME: Duration = Duration::from_secs(3_600);
/// How long answers under way may take after `shutdown`.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// Rest after a failed `accept`, which usually means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The certificate as files have it.
pub(super) fn tls(files: &CertificateFiles) -> Result<TlsAcceptor, AdminError> {
    let wrong = |file: &std::path::Path, why: String| AdminError::Certificate { file: file.to_owned(), why };
    let read = |file: &std::path::Path| fs::read(file).map_err(|error| wrong(file, error.to_string()));
    let chain = read(&files.cert)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&files.cert, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| wrong(&files.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, key))
        .map_err(|error| wrong(&files.cert, error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    stopped: oneshot::Receiver<()>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::select! {
        () = accept_all(listener, tls, router, &permits) => {}
        // Sent or dropped, both mean stop.
        _ = stopped => {}
    }
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _finished = timeout(SHUTDOWN_GRACE, permits.acquire_many(all)).await;
}

/// Ends only by being dropped, or if the semaphore were closed, which nobody does.
async fn accept_all(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    permits: &Arc<Semaphore>,
) {
    let mut failing = false;
    while let Ok(permit) = Arc::clone(permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                failing = false;
                let router = router.clone().layer(Extension(Peer(peer)));
                tokio::spawn(timeout(CONNECTION_TIME, serve_connection(stream, tls.clone(), router, permit)));
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the console cannot accept connections; it keeps trying");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    permit: OwnedSemaphorePermit,
) {
    match tls {
        None => serve_http(stream, router).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(HEAD_TIME, tls.accept(stream)).await {
                serve_http(stream, router).await;
            }
        }
    }
    drop(permit);
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A broken or slow connection is the client's affair; there is nobody to tell.
    let _outcome = connection.await;
}
