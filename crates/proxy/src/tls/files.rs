//! Certificates and keys in PEM files: read, checked, and what they say about themselves.
//! Must not remember anything; `listener.rs` keeps what was read.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pingora::utils::tls::{WrappedX509, parse_x509};
use portcullis_config::CertificateFiles;
use portcullis_model::UnixMs;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::EdgeError;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The names that it is for, lower case, in its own order: `example.com`, `*.example.com`, addresses.
    pub names: Vec<String>,
    /// Its issuer's common name, or all of the issuer when there is none.
    pub issuer: String,
    pub not_before: UnixMs,
    pub not_after: UnixMs,
}

impl CertificateFacts {
    pub(super) fn of(chain: &[CertificateDer<'_>], path: &Path) -> Result<Self, EdgeError> {
        let leaf = chain.first().ok_or_else(|| no_certificate(path))?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| unusable(path, &error))?;
        let names = match leaf.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(name).collect(),
            Ok(None) | Err(_) => Vec::new(),
        };
        let issuer = leaf.issuer();
        let common = issuer.iter_common_name().find_map(|name| name.as_str().ok());
        let issuer = common.map_or_else(|| issuer.to_string(), str::to_owned);
        let validity = leaf.validity();
        let at = |seconds: i64| UnixMs(0).plus(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        Ok(Self {
            names,
            issuer,
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some(dns.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|v4| IpAddr::from(v4).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|v6| IpAddr::from(v6).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// A certificate that can be shown to clients.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) facts: CertificateFacts,
}

/// Reads a chain and its key, and checks that they belong together.
pub(super) fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Loaded, EdgeError> {
    let chain = read_certificates(&files.cert)?;
    for certificate in &chain {
        // Found later, it would be blamed on the key.
        X509Certificate::from_der(certificate).map_err(|error| unusable(&files.cert, &error))?;
    }
    let facts = CertificateFacts::of(&chain, &files.cert)?;
    let key = read(&files.key)
        .and_then(|pem| PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(&files.key, &error)))?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => EdgeError::Certificate {
            path: files.key.clone(),
            problem: format!("this key does not belong to the certificate {}", files.cert.display()),
        },
        other => unusable(&files.key, &other),
    })?;
    Ok(Loaded { key: Arc::new(key), facts })
}

/// A certificate that nobody trusts, for the time until there is one.
pub(super) fn placeholder(name: &str, provider: &CryptoProvider) -> Result<Loaded, EdgeError> {
    let failed = |error: &dyn std::fmt::Display| unusable(name, error);
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).map_err(|error| failed(&error))?;
    let chain = vec![pair.cert.der().clone()];
    let facts = CertificateFacts::of(&chain, Path::new(name))?;
    let key = PrivateKeyDer::Pkcs8(pair.signing_key.serialize_der().into());
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| failed(&error))?;
    Ok(Loaded { key: Arc::new(key), facts })
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

/// The certificates of a PEM file; at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EdgeError> {
    let pem = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(path, &error))?;
    if certificates.is_empty() {
        return Err(no_certificate(path));
    }
    Ok(certificates)
}

fn no_certificate(path: &Path) -> EdgeError {
    EdgeError::Certificate {
        path: path.to_owned(),
        problem: "it holds no certificate; expected a PEM file with a CERTIFICATE block".to_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, EdgeError> {
    std::fs::read(path).map_err(|source| EdgeError::Read { path: path.to_owned(), source })
}

pub(super) fn unusable(path: impl Into<PathBuf>, error: &dyn std::fmt::Display) -> EdgeError {
    EdgeError::Certificate { path: path.into(), problem: error.to_string() }
}
