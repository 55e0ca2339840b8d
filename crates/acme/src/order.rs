//! One order: from a name to a certificate, with the proofs that the authority asks for in between.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use portcullis_config::AcmeChallenge;
use rcgen::{CertificateParams, CustomExtension, KeyPair};

use crate::certificate::Validity;
use crate::error::one_line;
use crate::{AcmeError, Proof, Responder};

/// How long an authority may take to verify a name, and then to issue the certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(60));

/// A new certificate.
pub(crate) struct Issued {
    /// The chain and its key, PEM.
    pub(crate) pem: String,
    pub(crate) validity: Validity,
}

/// Orders a certificate for one name.
pub(crate) async fn order(
    account: &Account,
    name: &str,
    challenge: AcmeChallenge,
    responder: &dyn Responder,
) -> Result<Issued, AcmeError> {
    let identifiers = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let proofs = prove(&mut order, name, challenge, responder).await?;
    let ready = order.poll_ready(&PATIENCE).await;
    drop(proofs);
    match ready {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
        Ok(OrderStatus::Invalid | OrderStatus::Pending | OrderStatus::Processing) => {
            return Err(AcmeError::NotVerified(why_invalid(&mut order).await));
        }
        Err(error) => return Err(not_ready(error)),
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    let validity = Validity::of(chain.as_bytes(), name).map_err(AcmeError::Unusable)?;
    Ok(Issued { pem: format!("{}\n{key}", chain.trim_end()), validity })
}

/// Shows every proof that is asked for, and tells the authority to look. Names that it has verified before need
/// none.
async fn prove<'r>(
    order: &mut Order,
    name: &str,
    challenge: AcmeChallenge,
    responder: &'r dyn Responder,
) -> Result<Vec<Shown<'r>>, AcmeError> {
    let kind = match challenge {
        AcmeChallenge::Http01 => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut asked =
            authorization.challenge(kind.clone()).ok_or(AcmeError::NotOffered(challenge.as_str()))?;
        let proof = match challenge {
            AcmeChallenge::Http01 => Proof::File {
                token: asked.token.clone(),
                content: asked.key_authorization().as_str().to_owned(),
            },
            AcmeChallenge::TlsAlpn01 => handshake_proof(&asked, name)?,
        };
        shown.push(Shown::new(responder, proof)?);
        asked.set_ready().await?;
    }
    Ok(shown)
}

/// The certificate that the handshake shows (RFC 8737, 3).
fn handshake_proof(asked: &ChallengeHandle<'_>, name: &str) -> Result<Proof, AcmeError> {
    let failed = |error: rcgen::Error| AcmeError::NotShown(error.to_string());
    let digest = asked.key_authorization().digest();
    let mut params = CertificateParams::new([name.to_owned()]).map_err(failed)?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest.as_ref()));
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Proof::Certificate {
        name: name.to_owned(),
        certificate: certificate.der().to_vec(),
        key: key.serialize_der(),
    })
}

/// A proof that is shown until this is dropped, however the order ends.
struct Shown<'r> {
    responder: &'r dyn Responder,
    proof: Proof,
}

impl<'r> Shown<'r> {
    fn new(responder: &'r dyn Responder, proof: Proof) -> Result<Self, AcmeError> {
        responder.offer(&proof).map_err(AcmeError::NotShown)?;
        Ok(Self { responder, proof })
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.responder.withdraw(&self.proof);
    }
}

fn not_ready(error: instant_acme::Error) -> AcmeError {
    /// What is wrong with the name or the way to it, not with the request (RFC 8555, 6.7).
    const ABOUT_THE_NAME: [&str; 6] =
        ["caa", "connection", "dns", "incorrectResponse", "tls", "unauthorized"];
    match error {
        instant_acme::Error::Timeout(_) => AcmeError::Timeout,
        instant_acme::Error::Api(problem) => {
            let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or_default();
            match &problem.detail {
                Some(detail) if ABOUT_THE_NAME.contains(&kind) => AcmeError::NotVerified(one_line(detail)),
                Some(_) | None => instant_acme::Error::Api(problem).into(),
            }
        }
        other => other.into(),
    }
}

/// What the authority found wrong with a proof.
async fn why_invalid(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return one_line(problem.detail.as_deref().unwrap_or("it does not say why"));
        }
    }
    "it does not say why".to_owned()
}
