//! Between the client of certificate authorities and the edge: proofs go there, certificates go by their files.

use std::sync::Arc;

use portcullis_acme::{Acme, Proof, Responder};
use portcullis_proxy::Challenges;

use crate::app::{App, wall_now};

/// Starts the thread that gets and renews certificates.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(app: &App) -> std::io::Result<Acme> {
    let challenges = Arc::clone(app.gateway().edge().challenges());
    let stats = Arc::clone(&app.stats().acme);
    let settings = app.config().acme.clone();
    Acme::start(settings, Arc::new(AtTheEdge(challenges)), stats, Box::new(wall_now), fastrand::u64(..))
}

struct AtTheEdge(Arc<Challenges>);

impl Responder for AtTheEdge {
    fn offer(&self, proof: &Proof) -> Result<(), String> {
        match proof {
            Proof::File { token, content } => {
                self.0.offer_file(token, content.clone());
                Ok(())
            }
            Proof::Certificate { name, certificate, key } => self
                .0
                .offer_certificate(name, certificate.clone(), key.clone())
                .map_err(|error| error.to_string()),
        }
    }

    fn withdraw(&self, proof: &Proof) {
        match proof {
            Proof::File { token, .. } => self.0.withdraw_file(token),
            Proof::Certificate { name, .. } => self.0.withdraw_certificate(name),
        }
    }
}
