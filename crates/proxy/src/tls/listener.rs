//! The TLS side of one listener: its certificates, kept in step with their files, and its handshake settings.
//! What cannot be used never takes the place of what can.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::listeners::tls::Acceptor;
use portcullis_config::{CertificateFiles, FileStamp, TlsListener};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;

use super::CertificateStatus;
use super::files::{Loaded, load, unusable};
use super::resolver::{Names, Resolver};
use crate::EdgeError;

/// Lives as long as the listener; what is in it changes.
pub(crate) struct Listener {
    acceptor: ArcSwap<Acceptor>,
    active: Mutex<Active>,
}

/// What is in force.
#[derive(Clone)]
pub(super) struct Active {
    settings: TlsListener,
    slots: Vec<Slot>,
    resolver: Arc<Resolver>,
    config: Arc<ServerConfig>,
}

/// The place of one certificate.
#[derive(Clone)]
struct Slot {
    files: CertificateFiles,
    /// Of the files when they were last looked into, with success or not.
    seen: Seen,
    loaded: Loaded,
    /// Why the newest state of the files is not the one in use.
    problem: Option<String>,
}

type Seen = [Option<FileStamp>; 2];

/// Taken before the files are read, so that a change in between is seen later.
fn look(files: &CertificateFiles) -> Seen {
    [FileStamp::of(&files.cert), FileStamp::of(&files.key)]
}

impl Slot {
    fn open(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, EdgeError> {
        let seen = look(files);
        let loaded = load(files, provider)?;
        Ok(Self { files: files.clone(), seen, loaded, problem: None })
    }

    /// Takes over files that have changed. `None` when they have not.
    fn refresh(&mut self, provider: &CryptoProvider) -> Option<Result<(), EdgeError>> {
        let now = look(&self.files);
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(match load(&self.files, provider) {
            Ok(loaded) => {
                self.loaded = loaded;
                self.problem = None;
                Ok(())
            }
            Err(error) => {
                self.problem = Some(error.to_string());
                Err(error)
            }
        })
    }
}

impl Active {
    /// Reads what `settings` name. Certificates that `previous` has already are taken from there.
    pub(super) fn build(settings: &TlsListener, previous: Option<&Self>) -> Result<Self, EdgeError> {
        let provider = provider();
        let kept = |files: &CertificateFiles| {
            previous.and_then(|old| old.slots.iter().find(|slot| slot.files == *files))
        };
        let slots = settings
            .certificates
            .iter()
            .map(|files| kept(files).cloned().map_or_else(|| Slot::open(files, &provider), Ok))
            .collect::<Result<Vec<_>, _>>()?;
        let resolver = Arc::new(Resolver::new(names(&slots)));
        let config = Arc::new(server_config(settings, &resolver, provider)?);
        Ok(Self { settings: settings.clone(), slots, resolver, config })
    }
}

fn names(slots: &[Slot]) -> Names {
    Names::new(slots.iter().map(|slot| &slot.loaded))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_config(
    settings: &TlsListener,
    resolver: &Arc<Resolver>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, EdgeError> {
    let place = settings.listen.to_string();
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .map_err(|error| unusable(place, &error))?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::<Resolver>::clone(resolver));
    config.alpn_protocols =
        if settings.http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(config)
}

fn acceptor(active: &Active) -> Acceptor {
    Acceptor::from_server_config(Arc::clone(&active.config))
}

impl Listener {
    pub(super) fn new(active: Active) -> Self {
        Self { acceptor: ArcSwap::from_pointee(acceptor(&active)), active: Mutex::new(active) }
    }

    /// For the next handshake.
    pub(crate) fn acceptor(&self) -> Arc<Acceptor> {
        self.acceptor.load_full()
    }

    /// What a reload would put in force, for [`Self::replace`]; `None` when nothing would change.
    pub(super) fn prepare(&self, settings: &TlsListener) -> Result<Option<Active>, EdgeError> {
        let active = self.active.lock();
        if active.settings == *settings {
            return Ok(None);
        }
        Active::build(settings, Some(&active)).map(Some)
    }

    /// Handshakes that begin from now on are held to `new`. Open connections stay.
    pub(super) fn replace(&self, new: Active) {
        let mut active = self.active.lock();
        self.acceptor.store(Arc::new(acceptor(&new)));
        *active = new;
    }

    /// Takes over certificate files that have changed; returns how many could not be used.
    pub(super) fn refresh(&self) -> u64 {
        let mut active = self.active.lock();
        let provider = provider();
        let (mut taken, mut failed) = (false, 0);
        for slot in &mut active.slots {
            let cert = slot.files.cert.display().to_string();
            match slot.refresh(&provider) {
                None => {}
                Some(Ok(())) => {
                    taken = true;
                    tracing::info!("the certificate {cert} has changed; new connections get the new one");
                }
                Some(Err(error)) => {
                    failed += 1;
                    tracing::warn!("{error}; the last good certificate of {cert} stays in use");
                }
            }
        }
        if taken {
            active.resolver.replace(names(&active.slots));
        }
        failed
    }

    pub(super) fn status(&self) -> Vec<CertificateStatus> {
        let active = self.active.lock();
        let status = |slot: &Slot| CertificateStatus {
            listen: active.settings.listen,
            path: slot.files.cert.clone(),
            facts: Some(slot.loaded.facts.clone()),
            problem: slot.problem.clone(),
        };
        active.slots.iter().map(status).collect()
    }
}

/// The state of what `settings` name, read for somebody who asks and not for a handshake.
pub(super) fn inspect(settings: &TlsListener) -> Vec<CertificateStatus> {
    let provider = provider();
    let status = |files: &CertificateFiles| {
        let loaded = load(files, &provider);
        CertificateStatus {
            listen: settings.listen,
            path: files.cert.clone(),
            problem: loaded.as_ref().err().map(ToString::to_string),
            facts: loaded.ok().map(|loaded| loaded.facts),
        }
    };
    settings.certificates.iter().map(status).collect()
}
