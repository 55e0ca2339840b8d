//! The place of one certificate: where its files are, what was last read from them, and whether they changed.

use portcullis_config::{AcmeCertificate, CertificateFiles, FileStamp, TlsListener};
use rustls::crypto::CryptoProvider;

use super::files::{Loaded, load, placeholder};
use super::{CertificateSource, CertificateStatus};
use crate::EdgeError;

/// Where a certificate is to come from.
#[derive(Clone, PartialEq)]
pub(super) enum Origin {
    File(CertificateFiles),
    Acme(AcmeCertificate),
}

impl Origin {
    /// The operator's own come first, so that they win where two have the same name.
    pub(super) fn all(settings: &TlsListener) -> impl Iterator<Item = Self> {
        let files = settings.certificates.iter().cloned().map(Self::File);
        files.chain(settings.acme.iter().cloned().map(Self::Acme))
    }

    fn files(&self) -> CertificateFiles {
        match self {
            Self::File(files) => files.clone(),
            Self::Acme(AcmeCertificate { file, .. }) => {
                CertificateFiles { cert: file.clone(), key: file.clone() }
            }
        }
    }
}

/// One certificate, with what was last read.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) origin: Origin,
    /// Of the files when they were last looked into, with success or not.
    seen: Seen,
    pub(super) loaded: Loaded,
    is_placeholder: bool,
    /// Why the newest state of the files is not the one in use.
    problem: Option<String>,
}

type Seen = [Option<FileStamp>; 2];

/// Taken before the files are read, so that a change in between is seen later.
fn look(files: &CertificateFiles) -> Seen {
    [FileStamp::of(&files.cert), FileStamp::of(&files.key)]
}

impl Slot {
    /// # Errors
    /// When the operator's files cannot be used. What an authority has yet to issue has a placeholder.
    pub(super) fn open(origin: Origin, provider: &CryptoProvider) -> Result<Self, EdgeError> {
        let files = origin.files();
        let seen = look(&files);
        let loaded = load(&files, provider);
        let (loaded, problem) = match (&origin, loaded) {
            (_, Ok(loaded)) => (loaded, None),
            (Origin::File(_), Err(error)) => return Err(error),
            (Origin::Acme(AcmeCertificate { name, .. }), Err(error)) => {
                tracing::warn!(
                    "there is no certificate for {name} yet: clients get a self-signed one until the authority has \
                     issued it"
                );
                let problem = match seen {
                    [None, _] => "none has been issued yet".to_owned(),
                    [Some(_), _] => error.to_string(),
                };
                (placeholder(name, provider)?, Some(problem))
            }
        };
        Ok(Self { origin, seen, is_placeholder: problem.is_some(), loaded, problem })
    }

    /// Takes over files that have changed. `None` when they have not.
    pub(super) fn refresh(&mut self, provider: &CryptoProvider) -> Option<Result<(), EdgeError>> {
        let files = self.origin.files();
        let now = look(&files);
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(match load(&files, provider) {
            Ok(loaded) => {
                self.loaded = loaded;
                (self.problem, self.is_placeholder) = (None, false);
                Ok(())
            }
            Err(error) => {
                self.problem = Some(error.to_string());
                Err(error)
            }
        })
    }

    /// The state of `origin`, read for somebody who asks and not for a handshake.
    pub(super) fn inspect(
        settings: &TlsListener,
        origin: &Origin,
        provider: &CryptoProvider,
    ) -> CertificateStatus {
        let files = origin.files();
        let loaded = load(&files, provider);
        let source = match (origin, &loaded) {
            (Origin::File(_), _) => CertificateSource::File,
            (Origin::Acme(_), Err(_)) if !files.cert.exists() => CertificateSource::Placeholder,
            (Origin::Acme(_), _) => CertificateSource::Acme,
        };
        CertificateStatus {
            listen: settings.listen,
            path: files.cert,
            source,
            problem: loaded.as_ref().err().map(ToString::to_string),
            facts: loaded.ok().map(|loaded| loaded.facts),
        }
    }

    pub(super) fn status(&self, settings: &TlsListener) -> CertificateStatus {
        let source = match (&self.origin, self.is_placeholder) {
            (Origin::File(_), _) => CertificateSource::File,
            (Origin::Acme(_), false) => CertificateSource::Acme,
            (Origin::Acme(_), true) => CertificateSource::Placeholder,
        };
        CertificateStatus {
            listen: settings.listen,
            path: self.origin.files().cert,
            source,
            facts: Some(self.loaded.facts.clone()),
            problem: self.problem.clone(),
        }
    }

    /// The file of its chain, for messages.
    pub(super) fn shown(&self) -> String {
        self.origin.files().cert.display().to_string()
    }
}
