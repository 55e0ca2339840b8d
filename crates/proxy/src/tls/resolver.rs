//! Which certificate a client gets: by the name that it asks for. Replaced as a whole while handshakes go on.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::challenges::{ACME_TLS, Challenges};
use super::files::Loaded;

/// Shared by a listener's handshakes.
#[derive(Debug)]
pub(super) struct Resolver {
    names: ArcSwap<Names>,
    challenges: Arc<Challenges>,
}

/// One state of a listener's certificates.
#[derive(Debug)]
pub(super) struct Names {
    /// Lower case; a wildcard is kept under `*.rest`.
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// For all other names.
    default: Option<Arc<CertifiedKey>>,
}

impl Names {
    /// Of several certificates for one name the first wins.
    pub(super) fn new<'a>(certificates: impl Iterator<Item = &'a Loaded>) -> Self {
        let mut names = Self { exact: HashMap::new(), default: None };
        for certificate in certificates {
            for name in &certificate.facts.names {
                names.exact.entry(name.clone()).or_insert_with(|| Arc::clone(&certificate.key));
            }
            names.default.get_or_insert_with(|| Arc::clone(&certificate.key));
        }
        names
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.exact.get(&name).or_else(|| self.exact.get(&wildcard()?))
    }
}

impl Resolver {
    pub(super) fn new(names: Names, challenges: Arc<Challenges>) -> Self {
        Self { names: ArcSwap::from_pointee(names), challenges }
    }

    /// Handshakes that begin from now on see these.
    pub(super) fn replace(&self, names: Names) {
        self.names.store(Arc::new(names));
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Who asks for the proof of a name gets that or nothing (RFC 8737, 3).
        if hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ACME_TLS)) {
            return self.challenges.certificate(hello.server_name()?);
        }
        let names = self.names.load();
        hello.server_name().and_then(|name| names.find(name)).or(names.default.as_ref()).cloned()
    }
}
