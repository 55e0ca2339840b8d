//! The way to an authority: its server, whom to trust there, and the account.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http_body_util::Limited;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{
    Account, AccountCredentials, BodyWrapper, BytesResponse, Error, ExternalAccountKey, HttpClient,
    NewAccount,
};
use portcullis_config::{Acme, ExternalAccount};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};

use crate::AcmeError;
use crate::folder::{account_file, read, read_json, write_json};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer of an authority, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// An account as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// The account at the authority: the one that is kept, or a new one.
pub(crate) async fn account(settings: &Acme) -> Result<Account, AcmeError> {
    let path = account_file(&settings.folder, &settings.directory);
    let builder = Account::builder_with_http(Box::new(Http::new(settings)?));
    let contact: Vec<String> = settings.contact.iter().map(|address| format!("mailto:{address}")).collect();
    let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
    if let Some(Kept { contact: told, credentials }) = read_json(&path)? {
        let account = builder.from_credentials(credentials).await?;
        if told != contact {
            account.update_contacts(&contacts).await?;
            // The credentials cannot be copied, so they are read once more.
            if let Some(kept) = read_json::<Kept>(&path)? {
                write_json(&path, &Kept { contact, ..kept })?;
            }
        }
        return Ok(account);
    }
    // The configuration does not load with certificates to get and terms that are not accepted.
    let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
    let external = settings.external_account.as_ref().map(external_key).transpose()?;
    let (account, credentials) = builder.create(&new, settings.directory.clone(), external.as_ref()).await?;
    write_json(&path, &Kept { contact, credentials })?;
    tracing::info!("there is an account at {} now, kept in {}", settings.directory, path.display());
    Ok(account)
}

/// Authorities write the key with or without padding, in either alphabet.
fn external_key(account: &ExternalAccount) -> Result<ExternalAccountKey, AcmeError> {
    let path = &account.key_file;
    let text = read(path)?.unwrap_or_default();
    let broken = |problem: &dyn std::fmt::Display| AcmeError::Broken {
        path: path.clone(),
        problem: format!("expected the authority's key in base64: {problem}"),
    };
    let text = std::str::from_utf8(&text).map_err(|error| broken(&error))?.trim();
    let plain = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let key = BASE64_URL_SAFE_NO_PAD.decode(plain).map_err(|error| broken(&error))?;
    if key.is_empty() {
        return Err(broken(&"it is empty"));
    }
    Ok(ExternalAccountKey::new(account.key_id.clone(), &key))
}

/// Puts an account aside that the authority does not know any more.
pub(crate) fn forget_account(settings: &Acme) -> Result<(), AcmeError> {
    let path = account_file(&settings.folder, &settings.directory);
    let aside = path.with_extension("json.unknown");
    std::fs::rename(&path, &aside).map_err(|source| AcmeError::file(&path, source))
}

/// HTTP over TLS with the ring provider, bounded in time and size.
struct Http(Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Http {
    fn new(settings: &Acme) -> Result<Self, AcmeError> {
        let failed = |error: &dyn std::fmt::Display| AcmeError::Trust(error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?;
        let tls = match &settings.directory_ca {
            None => builder.with_native_roots().map_err(|error| failed(&error))?.with_no_client_auth(),
            Some(path) => {
                let pem = read(path)?.unwrap_or_default();
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate = certificate.map_err(|error| failed(&error))?;
                    roots.add(certificate).map_err(|error| failed(&error))?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        };
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.enforce_http(false);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        Ok(Self(Client::builder(TokioExecutor::new()).build(https)))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let answer = self.0.request(request);
        Box::pin(async move {
            match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
                Ok(Ok(answer)) => Ok(BytesResponse::from(answer.map(|body| Limited::new(body, MAX_ANSWER)))),
                Ok(Err(error)) => Err(Error::Other(Box::new(error))),
                Err(_) => Err(Error::Str("the authority's server does not answer")),
            }
        })
    }
}
