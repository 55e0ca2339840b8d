//! Certificates: those that listeners show, and those that upstreams are verified against.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use pingora::utils::tls::{WrappedX509, parse_x509};
use portcullis_config::{CertificateFiles, TlsListener};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::EdgeError;

/// Chooses the certificate by the name that the client asks for.
#[derive(Debug)]
struct BySni {
    /// Lower case; a wildcard is kept under `*.rest`.
    names: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
            self.names.get(&name).or_else(|| self.names.get(&wildcard()?))
        });
        Some(Arc::clone(named.unwrap_or(&self.default)))
    }
}

/// The TLS side of a listener, with its certificates read.
pub(crate) fn server_config(listener: &TlsListener) -> Result<ServerConfig, EdgeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut names = HashMap::new();
    let mut default = None;
    for files in &listener.certificates {
        let key = Arc::new(certified_key(files, &provider)?);
        for name in dns_names(&key) {
            names.entry(name).or_insert_with(|| Arc::clone(&key));
        }
        default.get_or_insert(key);
    }
    let default = default.ok_or_else(|| EdgeError::Certificate {
        path: listener.listen.to_string().into(),
        problem: "a TLS listener needs a certificate".to_owned(),
    })?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .map_err(|error| EdgeError::Certificate {
            path: listener.listen.to_string().into(),
            problem: error.to_string(),
        })?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(BySni { names, default }));
    config.alpn_protocols =
        if listener.http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(config)
}

fn certified_key(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, EdgeError> {
    let chain = read_certificates(&files.cert)?;
    for certificate in &chain {
        // Found later, it would be blamed on the key.
        X509Certificate::from_der(certificate).map_err(|error| unusable(&files.cert, &error))?;
    }
    let key = read(&files.key)
        .and_then(|pem| PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(&files.key, &error)))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => EdgeError::Certificate {
            path: files.key.clone(),
            problem: format!("this key does not belong to the certificate {}", files.cert.display()),
        },
        other => unusable(&files.key, &other),
    })
}

/// The subject's alternative DNS names, lower case.
fn dns_names(key: &CertifiedKey) -> Vec<String> {
    let Some((_, leaf)) = key.cert.first().and_then(|der| X509Certificate::from_der(der).ok()) else {
        return Vec::new();
    };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(dns) => Some(dns.to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

/// The certificates of a PEM file, for upstreams that have their own authority.
pub(crate) fn authorities(path: &Path) -> Result<Arc<[WrappedX509]>, EdgeError> {
    let certificates = read_certificates(path)?;
    for der in &certificates {
        // The conversion below would panic.
        X509Certificate::from_der(der).map_err(|error| unusable(path, &error))?;
    }
    Ok(certificates.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EdgeError> {
    let pem = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(path, &error))?;
    if certificates.is_empty() {
        return Err(EdgeError::Certificate {
            path: path.to_owned(),
            problem: "it holds no certificate; expected a PEM file with a CERTIFICATE block".to_owned(),
        });
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, EdgeError> {
    std::fs::read(path).map_err(|source| EdgeError::Read { path: path.to_owned(), source })
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> EdgeError {
    EdgeError::Certificate { path: path.to_owned(), problem: error.to_string() }
}
