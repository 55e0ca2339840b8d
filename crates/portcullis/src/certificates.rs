//! What a person should know about the certificates: those that have expired or soon will, and names that are
//! covered twice. Must not read files itself.

use std::collections::HashMap;
use std::time::Duration;

use portcullis_model::UnixMs;
use portcullis_proxy::{CertificateSource, CertificateStatus};

const DAY: Duration = Duration::from_secs(86_400);
/// A certificate that expires sooner is worth a word.
pub(crate) const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Sentences about certificates that can be used and have something wrong with them.
pub(crate) fn notes(certificates: &[CertificateStatus], now: UnixMs) -> Vec<String> {
    let mut notes = Vec::new();
    let mut covered = HashMap::new();
    for certificate in certificates {
        if certificate.source == CertificateSource::Placeholder {
            let name = acme_name(certificate).unwrap_or_default();
            notes.push(format!(
                "{name} has no certificate of the authority yet; clients get a self-signed one"
            ));
            continue;
        }
        let Some(facts) = &certificate.facts else { continue };
        let file = certificate.path.display();
        let names = facts.names.join(", ");
        if let Some(validity) = validity(facts.not_before, facts.not_after, now) {
            notes.push(format!("the certificate {file} ({names}) {validity}"));
        }
        if facts.names.is_empty() {
            notes.push(format!("the certificate {file} is for no name; browsers will refuse it"));
        }
        for name in &facts.names {
            let first = *covered.entry((certificate.listen, name)).or_insert(&certificate.path);
            if *first != certificate.path {
                notes.push(format!("{name} is in {} and in {file}; the first is used", first.display()));
            }
        }
    }
    notes
}

/// The name that an authority issues this certificate for: its file is called so.
pub(crate) fn acme_name(certificate: &CertificateStatus) -> Option<String> {
    match certificate.source {
        CertificateSource::File => None,
        CertificateSource::Acme | CertificateSource::Placeholder => {
            certificate.path.file_stem().map(|name| name.to_string_lossy().into_owned())
        }
    }
}

/// What is wrong with a certificate's time, if anything.
fn validity(not_before: UnixMs, not_after: UnixMs, now: UnixMs) -> Option<String> {
    let days = |span: Duration| match span.as_secs() / DAY.as_secs() {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    if not_after < now {
        Some(format!("has expired, {} ago; browsers refuse it", days(now.since(not_after))))
    } else if not_before > now {
        Some("is not valid yet; is the clock right?".to_owned())
    } else if not_after.since(now) < SOON && not_after.since(now) * 3 < not_after.since(not_before) {
        Some(format!("expires in {}", days(not_after.since(now))))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_said_only_when_it_matters() {
        let at = |days: u64| UnixMs(0).plus(DAY * u32::try_from(days).unwrap_or(u32::MAX));
        let said = |now| validity(at(100), at(190), now);
        assert_eq!(said(at(150)), None);
        assert_eq!(said(at(180)).as_deref(), Some("expires in 10 days"));
        assert_eq!(said(at(190)).as_deref(), Some("expires in less than a day"));
        assert_eq!(said(at(193)).as_deref(), Some("has expired, 3 days ago; browsers refuse it"));
        assert!(said(at(99)).is_some_and(|text| text.contains("not valid yet")));
        // A certificate of six days is always near its end; only its last third is.
        assert_eq!(validity(at(100), at(106), at(101)), None);
    }
}
