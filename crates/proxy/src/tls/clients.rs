//! Certificates of clients (mTLS): who may come, and what the site is told about them.
//! A client that the handshake let in has proved what is written here; nothing else is ever written.

use std::fmt::Write as _;
use std::sync::Arc;

use http::HeaderValue;
use pingora::protocols::Ssl;
use portcullis_config::ClientAuth;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::{read_certificates, unusable};
use crate::EdgeError;

/// The longest subject that is handed on, in bytes.
const MAX_SUBJECT: usize = 1_024;

pub(super) fn verifier(
    auth: &ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, EdgeError> {
    let mut roots = RootCertStore::empty();
    for authority in read_certificates(&auth.authorities)? {
        roots.add(authority).map_err(|error| unusable(&auth.authorities, &error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| unusable(&auth.authorities, &error))
}

/// What the site is told of a client's certificate, which the handshake has verified.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// The subject as RFC 4514 writes it, the most specific part first; other bytes than printable ASCII as `\\XX`.
    /// `None` when it is longer than any that is in use.
    pub(crate) subject: Option<HeaderValue>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub(crate) fingerprint: HeaderValue,
}

impl ClientCertificate {
    /// Of a connection whose handshake is done; `None` when the client showed none.
    pub(crate) fn of(stream: &impl Ssl) -> Option<Self> {
        let der = stream.get_ssl()?.peer_certificate_der()?;
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let digest = stream.get_ssl_digest()?;
        let mut fingerprint = String::with_capacity(2 * digest.cert_digest.len());
        for byte in &digest.cert_digest {
            // Writing into a String cannot fail.
            let _ = write!(fingerprint, "{byte:02x}");
        }
        Some(Self {
            subject: Some(subject(&certificate))
                .filter(|subject| subject.len() <= MAX_SUBJECT)
                .and_then(|subject| HeaderValue::from_str(&subject).ok()),
            fingerprint: HeaderValue::from_str(&fingerprint).ok()?,
        })
    }
}

/// Escaped so that no value can look like another attribute.
fn subject(certificate: &X509Certificate<'_>) -> String {
    let mut text = String::new();
    let attributes: Vec<_> = certificate.subject().iter_attributes().collect();
    for attribute in attributes.into_iter().rev() {
        let name =
            x509_parser::objects::oid2abbrev(attribute.attr_type(), x509_parser::objects::oid_registry());
        let oid = attribute.attr_type().to_id_string();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name.unwrap_or(&oid));
        text.push('=');
        escape(attribute.as_slice(), &mut text);
    }
    text
}

/// The value of an attribute (RFC 4514, 2.4).
fn escape(value: &[u8], out: &mut String) {
    for (n, &byte) in value.iter().enumerate() {
        let is_edge = n == 0 || n + 1 == value.len();
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' ' | b'#' if is_edge => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..0x7f => out.push(char::from(byte)),
            // Writing into a String cannot fail.
            _ => drop(write!(out, "\\{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_look_like_another_attribute() {
        let escaped = |value: &[u8]| {
            let mut text = String::new();
            escape(value, &mut text);
            text
        };
        assert_eq!(escaped(b"alice"), "alice");
        assert_eq!(escaped(b"alice,CN=admin"), "alice\\,CN\\=admin");
        assert_eq!(escaped(b" #a b "), "\\ #a b\\ ");
        assert_eq!(escaped("J\u{f6}rg\r\n".as_bytes()), "J\\C3\\B6rg\\0D\\0A");
    }
}
