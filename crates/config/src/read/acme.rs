//! `[acme]`, and the names in `[[server.tls]]` that the gateway gets certificates for by itself.
//! Must not talk to anybody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::{Acme, AcmeCertificate, AcmeChallenge, ExternalAccount, Server, TlsListener};

use super::fields::{Section, Value, quoted};
use super::{DAY, SECOND, files};

/// Names in all: an authority allows so many certificates a week.
const MAX_NAMES: usize = 100;
const MAX_CONTACTS: usize = 10;
const MAX_RETRY: Duration = DAY;

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Below the data folder.
const FOLDER: &str = "acme";
const CERTIFICATES: &str = "certificates";

/// The names of a listener.
pub(super) fn certificates(tls: &mut Section<'_>, data: &Path) -> Vec<AcmeCertificate> {
    let folder = data.join(FOLDER).join(CERTIFICATES);
    let names = tls.get("acme").and_then(|value| value.list(MAX_NAMES, dns_name)).unwrap_or_default();
    let certificate = |name: String| AcmeCertificate { file: folder.join(format!("{name}.pem")), name };
    names.into_iter().map(certificate).collect()
}

pub(super) fn read(root: &mut Section<'_>, data: &Path, server: &Server) -> Option<Acme> {
    let certificates = distinct(&server.tls);
    let mut acme = root.section("acme");
    let directory = acme.read("directory", LETS_ENCRYPT.to_owned(), directory);
    let contact = acme.read("contact", Vec::new(), |value| value.list(MAX_CONTACTS, mail_address));
    let accepted = acme.read("accept_terms", false, Value::boolean);
    let challenge = acme.read("challenge", AcmeChallenge::default(), |value| {
        value.choice(&AcmeChallenge::ALL, AcmeChallenge::as_str)
    });
    let directory_ca = acme.read("directory_ca", None, optional_certificates);
    let external_account = external_account(&mut acme);
    let retry = acme.read("retry", 300 * SECOND, |value| value.duration(SECOND..=MAX_RETRY));
    if !certificates.is_empty() {
        if !accepted {
            acme.report(format!(
                "the terms of the authority at {directory} have to be accepted before it issues certificates: read \
                 them there and write accept_terms = true"
            ));
        }
        if certificates.len() > MAX_NAMES {
            acme.report(format!("at most {MAX_NAMES} names are possible, got {}", certificates.len()));
        }
        check_reachable(&acme, challenge, server);
    }
    acme.finish();
    let folder = data.join(FOLDER);
    let settings =
        Acme { directory, contact, challenge, directory_ca, external_account, retry, folder, certificates };
    (!settings.certificates.is_empty()).then_some(settings)
}

/// A name that several listeners show is one certificate.
fn distinct(tls: &[TlsListener]) -> Vec<AcmeCertificate> {
    let all = tls.iter().flat_map(|tls| &tls.acme);
    let by_name: BTreeMap<_, _> = all.map(|certificate| (&certificate.name, certificate)).collect();
    by_name.into_values().cloned().collect()
}

/// Whether there is a listener at which the authority can be answered.
fn check_reachable(acme: &Section<'_>, challenge: AcmeChallenge, server: &Server) {
    match challenge {
        AcmeChallenge::Http01 if server.listen.is_empty() => acme.report(
            "challenge \"http-01\" is answered by plain HTTP: add a server.listen that port 80 of the names leads to, \
             or choose challenge = \"tls-alpn-01\"",
        ),
        AcmeChallenge::Http01 => {}
        AcmeChallenge::TlsAlpn01 => {
            let asks = |tls: &TlsListener| tls.client_auth.as_ref().is_some_and(|auth| auth.required);
            if server.tls.iter().any(|tls| !tls.acme.is_empty() && asks(tls)) {
                acme.report(
                    "challenge \"tls-alpn-01\" does not go with client_auth = \"required\": the authority has no \
                     certificate to show; choose challenge = \"http-01\"",
                );
            }
        }
    }
}

fn directory(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "the https URL of an ACME directory such as \"https://acme.example/directory\"";
    value.parse_with(WHAT, |text| match Url::parse(text) {
        Ok(url) if url.scheme() == "https" && url.has_host() => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(format!("expected {WHAT}, got {}", quoted(text))),
    })
}

fn mail_address(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "a mail address such as \"admin@example.com\"";
    value.parse_with(WHAT, |text| {
        let address = text.strip_prefix("mailto:").unwrap_or(text);
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '?' | '<' | '>');
        match address.split_once('@') {
            Some((user, host)) if !user.is_empty() && !host.is_empty() && address.chars().all(is_plain) => {
                Ok(address.to_owned())
            }
            _ => Err(format!("expected {WHAT}, got {}", quoted(text))),
        }
    })
}

/// Both settings or none of them.
fn external_account(acme: &mut Section<'_>) -> Option<ExternalAccount> {
    let key_id = acme.read("eab_key_id", String::new(), |value| value.label(0..=200));
    let key_file = acme.read("eab_key_file", None, |value| match value.text("the path of a file")? {
        "" => Some(None),
        _ => files::readable(value).map(Some),
    });
    match (key_id.is_empty(), key_file) {
        (true, None) => None,
        (false, Some(key_file)) => Some(ExternalAccount { key_id, key_file }),
        (true, Some(_)) | (false, None) => {
            acme.report("eab_key_id and eab_key_file belong together; the authority gives you both");
            None
        }
    }
}

/// "" is the system's.
fn optional_certificates(value: &Value<'_>) -> Option<Option<PathBuf>> {
    match value.text("the path of a PEM file")? {
        "" => Some(None),
        _ => files::certificates(value).map(Some),
    }
}

/// A name that an authority can verify, lower case.
fn dns_name(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "a DNS name such as \"www.example.com\"";
    value.parse_with(WHAT, |text| {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        if name.starts_with("*.") {
            return Err(format!(
                "{} cannot be had by http-01 or tls-alpn-01: name each host, or use a certificate from files",
                quoted(text)
            ));
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let is_address = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        let valid = name.len() <= 253 && name.contains('.') && !is_address && name.split('.').all(is_label);
        if valid { Ok(name) } else { Err(format!("expected {WHAT}, got {}", quoted(text))) }
    })
}
