//! What a valid configuration leaves off, or what may surprise: sentences for the start and for `check`.
//! Must not judge: an error belongs to the reader of the setting.

use std::net::IpAddr;

use portcullis_policy::{IdentityMatch, Mode, RequestMatch};

use crate::{Acme, AcmeChallenge, Config, FeedSource, KeySetSource};

/// `::1`
const LOOPBACK: [u16; 8] = [0, 0, 0, 0, 0, 0, 0, 1];

/// The sentences that apply, in the order of the file.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn add(&mut self, applies: bool, text: &str) {
        if applies {
            self.0.push(text.to_owned());
        }
    }
}

pub(crate) fn notes(config: &Config) -> Vec<String> {
    let mut notes = Notes::default();
    notes.add(
        config.mode == Mode::DryRun,
        "dry-run: verdicts are recorded, nobody is blocked or limited (mode = \"enforce\" changes that)",
    );
    server(config, &mut notes);
    if let Some(acme) = &config.acme {
        proofs(acme, config, &mut notes);
    }
    notes.add(config.limits.is_empty(), "no limits: nobody is slowed down ([[limit]] adds one)");
    places(config, &mut notes);
    identity(config, &mut notes);
    users(config, &mut notes);
    background(config, &mut notes);
    lists(config, &mut notes);
    feeds(config, &mut notes);
    upstreams(config, &mut notes);
    notes.0
}

fn feeds(config: &Config, notes: &mut Notes) {
    for feed in &config.feeds {
        let is_plain = matches!(&feed.source, FeedSource::Url(url) if url.expose().starts_with("http://"));
        notes.add(
            is_plain,
            &format!(
                "feed {:?} comes over plain http: whoever is on the way can change whom it blocks",
                feed.name
            ),
        );
    }
}

fn identity(config: &Config, notes: &mut Notes) {
    let Some(tokens) = &config.identity.tokens else { return };
    let Some(key_set) = &tokens.key_set else { return };
    if let KeySetSource::Url(url) = &key_set.source {
        notes.add(
            url.starts_with("http:"),
            "the keys of identity.jwt.jwks come over plain HTTP: whoever is on the way can make tokens (https changes \
             that)",
        );
    }
    notes.add(
        tokens.rules.claims.issuers.is_empty(),
        "tokens of any issuer are good that a key of identity.jwt.jwks signed (identity.jwt.issuers names the right ones)",
    );
}

fn server(config: &Config, notes: &mut Notes) {
    let server = &config.server;
    notes.add(server.tls.is_empty(), "no TLS: only plain HTTP is served ([[server.tls]] adds HTTPS)");
    notes.add(
        server.hsts.is_some() && server.tls.is_empty() && server.trusted_proxies.is_empty(),
        "hsts has no effect: it is sent over https only, and nothing here speaks it",
    );
    let one_client = server.max_connections_per_client.map(|max| max as usize);
    if let Some(max) = one_client.filter(|max| *max >= server.max_connections) {
        notes.add(
            true,
            &format!(
                "one client may take every connection there is: max_connections_per_client is {max}, \
                 max_connections {}",
                server.max_connections
            ),
        );
    }
}

/// Whether an authority's questions come in.
fn proofs(acme: &Acme, config: &Config, notes: &mut Notes) {
    let server = &config.server;
    let (port, listens) = match acme.challenge {
        AcmeChallenge::Http01 => (80, server.listen.iter().any(|listen| listen.port() == 80)),
        AcmeChallenge::TlsAlpn01 => {
            let mut shown = server.tls.iter().filter(|tls| !tls.acme.is_empty());
            (443, shown.any(|tls| tls.listen.port() == 443))
        }
    };
    notes.add(
        !listens,
        &format!(
            "nothing listens on port {port}, where the authority asks for proofs ({}): something has to lead it here",
            acme.challenge.as_str()
        ),
    );
}

fn knows_no_places(config: &Config) -> bool {
    config.geo.databases.is_empty() && config.geo.downloads.is_empty() && config.geo.sources.is_empty()
}

/// Rules that ask where a client is.
fn places(config: &Config, notes: &mut Notes) {
    let limits = config.limits.iter().map(|rule| ("limit", &rule.name, &rule.applies_to));
    let access = config.access.iter().map(|rule| ("access", &rule.name, &rule.applies_to));
    let mut asking = limits.chain(access).filter(|(_, _, rule)| rule.needs().place);
    if let Some((kind, name, rule)) = asking.next().filter(|_| knows_no_places(config)) {
        let effect = if rule.unknown_place { "it means clients from anywhere" } else { "it means nobody" };
        notes.add(
            true,
            &format!("{kind}.{name} asks where clients are from, and there is no geo database: {effect}"),
        );
    }
}

/// Rules that ask who a client is.
fn users(config: &Config, notes: &mut Notes) {
    if config.identity.tokens.is_some() || config.identity.sessions.is_some() {
        return;
    }
    let limits = config.limits.iter().map(|rule| ("limit", &rule.name, &rule.applies_to));
    let access = config.access.iter().map(|rule| ("access", &rule.name, &rule.applies_to));
    let asks = |rule: &RequestMatch| rule.identities.iter().any(|who| *who != IdentityMatch::Anonymous);
    if let Some((kind, name, _)) = limits.chain(access).find(|(_, _, rule)| asks(rule)) {
        notes.add(
            true,
            &format!(
                "{kind}.{name} means users, and everybody is anonymous: [identity] says how the gateway knows them"
            ),
        );
    }
}

fn background(config: &Config, notes: &mut Notes) {
    notes.add(
        knows_no_places(config),
        "no geo database: requests are logged without a location (geo.databases names MMDB files)",
    );
    geo(config, notes);
    let detection = &config.detection;
    notes.add(
        !detection.enabled,
        "the detector is off: nobody is flagged (detection.enabled = true changes that)",
    );
    notes.add(
        detection.enabled && !detection.actions.blocks(),
        "the detector flags but never blocks (detection.block_severity = \"high\" changes that)",
    );
    notes.add(config.metrics.is_none(), "metrics and health probes are off (metrics.listen turns them on)");
    notes.add(config.console.is_none(), "the console is off (console.listen turns it on)");
    notes.add(
        config.metrics.is_some_and(|address| !address.ip().is_loopback()),
        "metrics are readable from other machines (metrics.listen = \"127.0.0.1:9611\" changes that)",
    );
}

fn lists(config: &Config, notes: &mut Notes) {
    notes.add(
        config.allows.iter().any(|(network, _)| network.prefix_len() == 0),
        "an [[allow]] covers every address: no block and no limit has an effect there",
    );
    for (network, _) in &config.blocks {
        let inside = config.server.trusted_proxies.iter().find(|proxy| network.contains(*proxy));
        if let Some(proxy) = inside {
            notes.add(
                true,
                &format!(
                    "the [[block]] of {network} contains {proxy} of trusted_proxies: requests for which it names no \
                     client are refused"
                ),
            );
        }
        let is_local =
            network.contains(&IpAddr::from([127, 0, 0, 1])) || network.contains(&IpAddr::from(LOOPBACK));
        notes.add(
            is_local,
            &format!(
                "the [[block]] of {network} meets this machine's own requests, health checks among them"
            ),
        );
    }
}

fn upstreams(config: &Config, notes: &mut Notes) {
    for (n, upstream) in config.upstreams.iter().enumerate() {
        let reached = match config.routes.is_empty() {
            true => n == 0,
            false => config.routes.iter().any(|route| route.upstream == upstream.name),
        };
        notes.add(
            !reached,
            &format!("no request goes to upstream {:?}: no [[route]] leads to it", upstream.name),
        );
        notes.add(
            !upstream.tls_verify,
            &format!(
                "the certificates of upstream {:?} are not verified (tls_verify = false)",
                upstream.name
            ),
        );
    }
    notes.add(
        !config.routes.is_empty() && !config.routes.iter().any(|r| r.hosts.is_empty() && r.paths.is_empty()),
        "requests that match no [[route]] get 502 (a [[route]] with only an upstream takes them)",
    );
}

fn geo(config: &Config, notes: &mut Notes) {
    let wanted: Vec<_> = config.geo.wanted.iter().map(|field| field.as_str()).collect();
    let wanted = wanted.join(" or ");
    for source in &config.geo.sources {
        notes.0.push(format!(
            "the address of a client whose {wanted} no file knows is sent to {}, a third party (geo.source)",
            source.kind.as_str()
        ));
    }
    for download in &config.geo_downloads {
        let is_open = download.url.expose().starts_with("http://") && download.sha256.is_none();
        if is_open {
            notes.0.push(format!(
                "{} comes over http and has no sha256: whoever is on the way can change it (geo.download)",
                download.file.display()
            ));
        }
    }
}
