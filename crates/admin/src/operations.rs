//! The operations listener: its thread, its connections and their bounds.
//!
//! Owns the socket and the runtime that serves it, apart from the proxy's, so that an overloaded proxy
//! can still be asked how it is. Must not know the routes.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::AdminError;
use crate::routes::{Probes, router};

/// Connections that are served at once; more wait in the backlog of the socket.
pub const MAX_CONNECTIONS: u32 = 32;

/// Largest request head in bytes; hyper does not allow less than 8 KiB.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// From accepting a connection to the last byte of its answer. Each connection serves one request,
/// so this bounds slow heads, idle clients and slow readers alike.
pub const CONNECTION_TIME: Duration = Duration::from_secs(5);

/// How long answers under way may take after `shutdown`.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Rest after a failed `accept`, which usually means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const NAME: &str = "operations listener";

/// A running listener. Dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct Operations {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Operations {
    /// Binds `listen` and serves it on a thread of its own, which a later fork of the process would
    /// lose. Port 0 picks a free port.
    ///
    /// # Errors
    /// The address cannot be bound, or the thread cannot be started. Afterwards nothing fails here:
    /// requests that are malformed or too slow only lose their connection.
    pub fn start(listen: SocketAddr, probes: Probes) -> Result<Self, AdminError> {
        Self::start_on(Self::bind(listen)?, probes)
    }

    /// Binds `listen` and leaves it for [`Operations::start_on`].
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(listen: SocketAddr) -> Result<StdTcpListener, AdminError> {
        StdTcpListener::bind(listen).map_err(|source| AdminError::from_bind(NAME, listen, source))
    }

    /// As [`Operations::start`], on a socket that listens already.
    ///
    /// # Errors
    /// The socket is none that listens, or the thread cannot be started.
    pub fn start_on(listener: StdTcpListener, probes: Probes) -> Result<Self, AdminError> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = listener
            .set_nonblocking(true)
            .and_then(|()| listener.local_addr())
            .map_err(|source| AdminError::Bind { listener: NAME, address: unknown, source })?;
        let failed = |source| AdminError::Start { listener: NAME, address, source };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(failed)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("portcullis-operations".to_owned())
            .spawn(move || runtime.block_on(serve(listener, router(probes), stopped)))
            .map_err(failed)?;
        Ok(Self { address, stop, thread })
    }

    /// The address that is really listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the socket, lets answers under way finish for a second, and waits for the thread.
    pub fn shutdown(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!(address = %self.address, "the thread of the operations listener had panicked");
        }
    }
}

async fn serve(listener: TcpListener, router: Router, stopped: oneshot::Receiver<()>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    tokio::select! {
        () = accept_all(listener, router, &permits) => {}
        // Sent or dropped, both mean stop.
        _ = stopped => {}
    }
    // All permits are back when no connection is open; after the grace the runtime drops the rest.
    let _finished = timeout(SHUTDOWN_GRACE, permits.acquire_many(MAX_CONNECTIONS)).await;
}

/// Ends only by being dropped, or if the semaphore were closed, which nobody does.
async fn accept_all(listener: TcpListener, router: Router, permits: &Arc<Semaphore>) {
    let mut failing = false;
    while let Ok(permit) = Arc::clone(permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                tokio::spawn(serve_connection(stream, router.clone(), permit));
            }
            Err(error) => {
                report_accept_failure(&error, &mut failing);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Logs the first failure of a streak.
fn report_accept_failure(error: &io::Error, failing: &mut bool) {
    if !std::mem::replace(failing, true) {
        tracing::warn!(%error, "the operations listener cannot accept connections; it keeps trying");
    }
}

async fn serve_connection(stream: TcpStream, router: Router, permit: OwnedSemaphorePermit) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A broken or slow connection is the client's affair; there is nobody to tell.
    let _outcome = timeout(CONNECTION_TIME, connection).await;
    drop(permit);
}
