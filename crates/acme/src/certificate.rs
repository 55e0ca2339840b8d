//! What this crate needs to know of a certificate: how long it holds, and that it is the one that was ordered.

use portcullis_model::UnixMs;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: UnixMs,
    pub(crate) not_after: UnixMs,
}

impl Validity {
    /// Of the first certificate of a PEM text, which must be for `name`.
    pub(crate) fn of(pem: &[u8], name: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
        let (_, leaf) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let is_name = |found: &GeneralName<'_>| match found {
            GeneralName::DNSName(dns) => dns.eq_ignore_ascii_case(name),
            _ => false,
        };
        match leaf.subject_alternative_name() {
            Ok(Some(names)) if names.value.general_names.iter().any(is_name) => {}
            Ok(_) | Err(_) => return Err(format!("it is not for {name}")),
        }
        let at = |seconds: i64| UnixMs(0).plus(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let validity = leaf.validity();
        Ok(Self {
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        })
    }
}
