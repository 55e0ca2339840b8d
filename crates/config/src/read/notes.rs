//! What a valid configuration leaves off, or what may surprise: sentences for the start and for `check`.
//! Must not judge: an error belongs to the reader of the setting.

use std::net::IpAddr;

use portcullis_policy::Mode;

use crate::{AcmeChallenge, Config};

/// `::1`
const LOOPBACK: [u16; 8] = [0, 0, 0, 0, 0, 0, 0, 1];

pub(crate) fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |applies: bool, text: &str| {
        if applies {
            notes.push(text.to_owned());
        }
    };
    note(
        config.mode == Mode::DryRun,
        "dry-run: verdicts are recorded, nobody is blocked or limited (mode = \"enforce\" changes that)",
    );
    note(config.server.tls.is_empty(), "no TLS: only plain HTTP is served ([[server.tls]] adds HTTPS)");
    if let Some(acme) = &config.acme {
        let (port, listens) = match acme.challenge {
            AcmeChallenge::Http01 => (80, config.server.listen.iter().any(|listen| listen.port() == 80)),
            AcmeChallenge::TlsAlpn01 => {
                let mut shown = config.server.tls.iter().filter(|tls| !tls.acme.is_empty());
                (443, shown.any(|tls| tls.listen.port() == 443))
            }
        };
        note(
            !listens,
            &format!(
                "nothing listens on port {port}, where the authority asks for proofs ({}): something has to lead it here",
                acme.challenge.as_str()
            ),
        );
    }
    note(config.limits.is_empty(), "no limits: nobody is slowed down ([[limit]] adds one)");
    note(
        config.geo.databases.is_empty(),
        "no geo database: requests are logged without a location (geo.databases names MMDB files)",
    );
    let detection = &config.detection;
    note(
        !detection.enabled,
        "the detector is off: nobody is flagged (detection.enabled = true changes that)",
    );
    note(
        detection.enabled && detection.block_severity.is_none(),
        "the detector flags but never blocks (detection.block_severity = \"high\" changes that)",
    );
    note(config.metrics.is_none(), "metrics and health probes are off (metrics.listen turns them on)");
    note(
        config.metrics.is_some_and(|address| !address.ip().is_loopback()),
        "metrics are readable from other machines (metrics.listen = \"127.0.0.1:9611\" changes that)",
    );
    note(
        config.allows.iter().any(|(network, _)| network.prefix_len() == 0),
        "an [[allow]] covers every address: no block and no limit has an effect there",
    );
    for (network, _) in &config.blocks {
        let inside = config.server.trusted_proxies.iter().find(|proxy| network.contains(*proxy));
        if let Some(proxy) = inside {
            note(
                true,
                &format!(
                    "the [[block]] of {network} contains {proxy} of trusted_proxies: requests for which it names no \
                     client are refused"
                ),
            );
        }
        let is_local =
            network.contains(&IpAddr::from([127, 0, 0, 1])) || network.contains(&IpAddr::from(LOOPBACK));
        note(
            is_local,
            &format!(
                "the [[block]] of {network} meets this machine's own requests, health checks among them"
            ),
        );
    }
    for (n, upstream) in config.upstreams.iter().enumerate() {
        let reached = match config.routes.is_empty() {
            true => n == 0,
            false => config.routes.iter().any(|route| route.upstream == upstream.name),
        };
        note(!reached, &format!("no request goes to upstream {:?}: no [[route]] leads to it", upstream.name));
        note(
            !upstream.tls_verify,
            &format!(
                "the certificates of upstream {:?} are not verified (tls_verify = false)",
                upstream.name
            ),
        );
    }
    note(
        !config.routes.is_empty() && !config.routes.iter().any(|r| r.hosts.is_empty() && r.paths.is_empty()),
        "requests that match no [[route]] get 502 (a [[route]] with only an upstream takes them)",
    );
    notes
}
