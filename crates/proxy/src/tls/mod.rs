//! TLS: what listeners show to clients and ask of them, and what upstreams are verified against.
//!
//! Owns certificates from their files to the handshake, and their replacement while the gateway serves. Must
//! not know how they come into the files.

mod challenges;
mod clients;
mod files;
mod listener;
mod resolver;
mod slot;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_config::Server;

use crate::EdgeError;
use listener::Active;

pub use challenges::Challenges;
pub(crate) use challenges::is_challenge_path;
pub(crate) use clients::ClientCertificate;
pub use files::CertificateFacts;
pub(crate) use files::authorities;
pub(crate) use listener::Listener;

/// One certificate of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    pub listen: SocketAddr,
    /// The file of its chain.
    pub path: PathBuf,
    pub source: CertificateSource,
    /// Of the certificate that is in use; `None` when there is none.
    pub facts: Option<CertificateFacts>,
    /// Why the newest state of the files is not in use.
    pub problem: Option<String>,
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// The operator's files.
    File,
    /// The gateway got it from an authority.
    Acme,
    /// Signed by the gateway itself, until an authority has issued one.
    Placeholder,
}

impl CertificateSource {
    /// The word that the metrics and the commands use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Acme => "acme",
            Self::Placeholder => "placeholder",
        }
    }
}

/// Every TLS listener, in the order of the configuration.
#[derive(Default)]
pub(crate) struct Tls {
    listeners: Vec<Arc<Listener>>,
    challenges: Arc<Challenges>,
    /// Changed files that could not be used.
    failures: AtomicU64,
}

/// A new configuration that has been read and can be put in force without failing.
pub(crate) struct Prepared(Vec<(Arc<Listener>, Active)>);

impl Tls {
    /// Reads all certificates.
    pub(crate) fn open(server: &Server) -> Result<Self, EdgeError> {
        let challenges = Arc::new(Challenges::default());
        let open = |settings| {
            Active::build(settings, &challenges, None).map(|active| Arc::new(Listener::new(active)))
        };
        let listeners = server.tls.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { listeners, challenges, failures: AtomicU64::new(0) })
    }

    pub(crate) fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    pub(crate) fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// Reads what a new configuration names. It must have the same listeners in the same order.
    pub(crate) fn prepare(&self, server: &Server) -> Result<Prepared, EdgeError> {
        let mut prepared = Vec::new();
        for (listener, settings) in self.listeners.iter().zip(&server.tls) {
            if let Some(active) = listener.prepare(settings, &self.challenges)? {
                prepared.push((Arc::clone(listener), active));
            }
        }
        Ok(Prepared(prepared))
    }

    /// Takes over every certificate whose files have changed; a broken one changes nothing.
    pub(crate) fn refresh(&self) {
        let failed = self.listeners.iter().map(|listener| listener.refresh()).sum();
        self.failures.fetch_add(failed, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> Vec<CertificateStatus> {
        self.listeners.iter().flat_map(|listener| listener.status()).collect()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl Prepared {
    pub(crate) fn put_in_force(self) {
        for (listener, active) in self.0 {
            listener.replace(active);
        }
    }
}

/// What is wrong with the authorities of clients that a configuration names.
pub fn inspect_client_authorities(server: &Server) -> Vec<EdgeError> {
    server.tls.iter().filter_map(|settings| listener::inspect_clients(settings).err()).collect()
}

/// Every certificate that a configuration names, as it is on disk now.
pub fn inspect_certificates(server: &Server) -> Vec<CertificateStatus> {
    server.tls.iter().flat_map(listener::inspect).collect()
}
