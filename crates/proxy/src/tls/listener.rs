//! The TLS side of one listener: its certificates, kept in step with their files, and its handshake settings.
//! What cannot be used never takes the place of what can.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::listeners::tls::Acceptor;
use portcullis_config::{FileStamp, TlsListener, TlsVersion};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

use super::CertificateStatus;
use super::challenges::{ACME_TLS, Challenges};
use super::clients::verifier;
use super::files::unusable;
use super::resolver::{Names, Resolver};
use super::slot::{Origin, Slot};
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
    /// Of the file of the clients' authorities.
    clients_seen: Option<FileStamp>,
}

impl Active {
    /// Reads what `settings` name. Certificates that `previous` has already are taken from there.
    pub(super) fn build(
        settings: &TlsListener,
        challenges: &Arc<Challenges>,
        previous: Option<&Self>,
    ) -> Result<Self, EdgeError> {
        let provider = provider();
        let kept =
            |origin: &Origin| previous.and_then(|old| old.slots.iter().find(|slot| slot.origin == *origin));
        let slots = Origin::all(settings)
            .map(|origin| match kept(&origin) {
                Some(slot) => Ok(slot.clone()),
                None => Slot::open(origin, &provider),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let resolver = Arc::new(Resolver::new(names(&slots), Arc::clone(challenges)));
        let clients_seen = look_at_clients(settings);
        let config = Arc::new(server_config(settings, &resolver, provider)?);
        Ok(Self { settings: settings.clone(), slots, resolver, config, clients_seen })
    }
}

fn look_at_clients(settings: &TlsListener) -> Option<FileStamp> {
    FileStamp::of(&settings.client_auth.as_ref()?.authorities)
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
    let versions: &[_] = match settings.min_version {
        TlsVersion::V1_2 => &[&TLS12, &TLS13],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| unusable(place, &error))?;
    let builder = match &settings.client_auth {
        None => builder.with_no_client_auth(),
        Some(auth) => builder.with_client_cert_verifier(verifier(auth, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::<Resolver>::clone(resolver));
    let mut offer = |is_offered: bool, protocol: &[u8]| {
        if is_offered {
            config.alpn_protocols.push(protocol.to_vec());
        }
    };
    offer(settings.http2, b"h2");
    offer(true, b"http/1.1");
    offer(!settings.acme.is_empty(), ACME_TLS);
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
    pub(super) fn prepare(
        &self,
        settings: &TlsListener,
        challenges: &Arc<Challenges>,
    ) -> Result<Option<Active>, EdgeError> {
        let active = self.active.lock();
        if active.settings == *settings {
            return Ok(None);
        }
        Active::build(settings, challenges, Some(&active)).map(Some)
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
            let cert = slot.shown();
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
        failed + self.refresh_clients(&mut active, provider)
    }

    /// Takes over the file of the clients' authorities if it has changed; returns 1 if it could not be used.
    fn refresh_clients(&self, active: &mut Active, provider: Arc<CryptoProvider>) -> u64 {
        let now = look_at_clients(&active.settings);
        if now == active.clients_seen {
            return 0;
        }
        active.clients_seen = now;
        // A new configuration has no sessions to resume, so no client of the old authorities comes back.
        match server_config(&active.settings, &active.resolver, provider) {
            Ok(config) => {
                active.config = Arc::new(config);
                self.acceptor.store(Arc::new(acceptor(active)));
                tracing::info!("the clients' authorities of {} have changed", active.settings.listen);
                0
            }
            Err(error) => {
                tracing::warn!("{error}; the clients' authorities of before stay in force");
                1
            }
        }
    }

    pub(super) fn status(&self) -> Vec<CertificateStatus> {
        let active = self.active.lock();
        let status = |slot: &Slot| slot.status(&active.settings);
        active.slots.iter().map(status).collect()
    }
}

/// The state of what `settings` name, read for somebody who asks and not for a handshake.
pub(super) fn inspect(settings: &TlsListener) -> Vec<CertificateStatus> {
    let provider = provider();
    Origin::all(settings).map(|origin| Slot::inspect(settings, &origin, &provider)).collect()
}

/// Whether the file of the clients' authorities can be used.
pub(super) fn inspect_clients(settings: &TlsListener) -> Result<(), EdgeError> {
    settings.client_auth.as_ref().map_or(Ok(()), |auth| verifier(auth, provider()).map(drop))
}
