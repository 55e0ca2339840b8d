//! The console: pages for people and the JSON API, on a listener and threads of their own.
//!
//! Owns everything between that listener's socket and the answers. What only the running gateway knows is asked
//! through [`Running`]; must not know how it knows.

mod access;
mod actions;
mod api;
mod assets;
mod charts;
mod connections;
mod csv;
mod data_export;
mod error;
mod forms;
mod guard;
mod layout;
mod map;
mod notices;
mod pages;
mod routes;
pub mod running;
mod shared;
mod streams;
mod visitor;
mod words;

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_config::{Config, Console as Settings};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;

pub use access::{
    LINK_LASTS, MAX_TOKEN_LASTS, MIN_PASSWORD_CHARS, PasswordProblem, check_name, check_password, digest_of,
    hash_password, new_api_token, new_token,
};
pub use api::openapi_json;
pub use running::{Chores, Clients, Figures, Knowledge, Limits, LiveSettings, Running, Stories};

use crate::AdminError;
use shared::Shared;

/// Threads that read databases for pages; more requests wait.
const MAX_READERS: usize = 4;
/// How long answers under way may take after `shutdown`.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
const NAME: &str = "console";

/// What the console works on.
pub struct Parts {
    pub settings: Settings,
    /// The data folder, whose databases it reads.
    pub data: PathBuf,
    /// As it is after every reload.
    pub config: Arc<ArcSwap<Config>>,
    pub running: Arc<dyn Running>,
}

/// A running console. Dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct Console {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Console {
    /// Binds the console's address and leaves it for [`Console::start_on`].
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(listen: SocketAddr) -> Result<StdTcpListener, AdminError> {
        StdTcpListener::bind(listen).map_err(|source| AdminError::from_bind(NAME, listen, source))
    }

    /// Serves on a socket that listens already, on threads of its own.
    ///
    /// # Errors
    /// The socket is none that listens, the certificate cannot be used, or the threads cannot be started.
    pub fn start_on(listener: StdTcpListener, parts: Parts) -> Result<Self, AdminError> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = listener
            .set_nonblocking(true)
            .and_then(|()| listener.local_addr())
            .map_err(|source| AdminError::Bind { listener: NAME, address: unknown, source })?;
        let failed = |source| AdminError::Start { listener: NAME, address, source };
        let tls = parts.settings.certificate.as_ref().map(connections::tls).transpose()?;
        // Pages take what the proxy leaves.
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(MAX_READERS + access::MAX_LOOKUPS + access::MAX_HASHERS)
            .thread_name("portcullis-console")
            .on_thread_start(be_nice)
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(failed)?
        };
        let shared = Arc::new(Shared::new(parts, address));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("portcullis-console".to_owned())
            .spawn(move || {
                runtime.block_on(connections::serve(listener, tls, routes::router(shared), stopped));
                runtime.shutdown_timeout(SHUTDOWN_GRACE);
            })
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
            tracing::error!(address = %self.address, "the thread of the console had panicked");
        }
    }
}

/// On Linux niceness belongs to the thread; elsewhere this would slow the whole process, so it is left.
#[cfg(target_os = "linux")]
fn be_nice() {
    const NICENESS: i32 = 19;
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
        tracing::debug!(%error, "the console's threads run with the priority of the others");
    }
}

#[cfg(not(target_os = "linux"))]
fn be_nice() {}
