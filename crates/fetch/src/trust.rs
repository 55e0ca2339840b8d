//! Whose certificates are believed: the system's authorities, and a file of the operator's.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts};

use crate::FetchError;
use crate::error::one_line;

/// The certificates of a PEM file. Each must be one that can be an authority's.
pub(crate) fn from_file(path: &Path) -> Result<Vec<Certificate<'static>>, FetchError> {
    let broken = |problem: String| FetchError::Trust { path: path.to_owned(), problem };
    let pem = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
    let mut store = RootCertStore::empty();
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| broken(one_line(&error)))?;
        store.add(certificate.clone()).map_err(|error| broken(one_line(&error)))?;
        found.push(Certificate::from_der(&certificate).to_owned());
    }
    if found.is_empty() {
        return Err(broken("it has no certificate; expected PEM".to_owned()));
    }
    Ok(found)
}

/// The system's authorities and these. A machine without any trusts nobody, which the handshake then says.
pub(crate) fn roots(extra: &[Certificate<'static>]) -> RootCerts {
    let system = rustls_native_certs::load_native_certs().certs;
    let system = system.into_iter().map(|certificate| Certificate::from_der(&certificate).to_owned());
    RootCerts::from(system.chain(extra.iter().cloned()).collect::<Vec<_>>())
}
