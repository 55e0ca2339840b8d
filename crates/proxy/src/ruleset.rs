//! The configuration as the request path needs it: built once per reload, then read only.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use pingora::http::ResponseHeader;
use portcullis_config::{Config, Hsts, format_duration};
use portcullis_policy::{ClientIpSource, Needs, PrefixSet, Snapshot};

use crate::EdgeError;
use crate::identity::IdentityRules;
use crate::pages::PageTemplate;
use crate::pool::Pool;
use crate::routes::Routes;

/// Immutable; one request uses one of them throughout.
pub(crate) struct Ruleset {
    pub(crate) policy: Snapshot,
    /// Of `policy`.
    pub(crate) needs: Needs,
    /// `None` when there is nothing to learn of anybody.
    pub(crate) identity: Option<IdentityRules>,
    pub(crate) trusted: PrefixSet<IpNet>,
    pub(crate) client_ip: ClientIpSource,
    pub(crate) routes: Routes,
    pub(crate) pools: Vec<Arc<Pool>>,
    pub(crate) pages: PageTemplate,
    pub(crate) forwarded_header: bool,
    /// The port of https, where plain requests are sent.
    pub(crate) redirect_to_https: Option<u16>,
    /// The value of `Strict-Transport-Security`.
    pub(crate) hsts: Option<HeaderValue>,
    pub(crate) bounds: Bounds,
    pub(crate) privacy: Privacy,
}

/// What is said to visitors about the log, and what of theirs is heard; see `[privacy]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Privacy {
    honour_gpc: bool,
    honour_dnt: bool,
    /// The value of `X-Privacy-Notice`.
    notice: Option<HeaderValue>,
    /// Of `Link`, the site's policy (RFC 6903).
    policy: Option<HeaderValue>,
}

impl Privacy {
    fn new(config: &Config) -> Self {
        let privacy = &config.privacy;
        let notice = || {
            let retention = format_duration(config.log.retention);
            let addresses = privacy.anonymise.as_str();
            HeaderValue::from_str(&format!(
                "requests are logged; retention={retention}; anonymise={addresses}"
            ))
        };
        let policy = |url: &String| HeaderValue::from_str(&format!("<{url}>; rel=\"privacy-policy\"")).ok();
        Self {
            honour_gpc: privacy.honour_gpc,
            honour_dnt: privacy.honour_dnt,
            notice: privacy.header.then(notice).and_then(Result::ok),
            policy: privacy.policy_url.as_ref().filter(|_| privacy.header).and_then(policy),
        }
    }

    /// Whether the client says, in a way that is honoured, that it does not want to be tracked.
    pub(crate) fn is_asked_for(&self, headers: &HeaderMap) -> bool {
        let says = |name: &str| headers.get(name).is_some_and(|value| value.as_bytes().trim_ascii() == b"1");
        (self.honour_gpc && says("sec-gpc")) || (self.honour_dnt && says("dnt"))
    }

    /// Adds what visitors are told. Links of the site's own stay.
    pub(crate) fn announce(&self, header: &mut ResponseHeader) -> pingora::Result<()> {
        if let Some(notice) = &self.notice {
            header.insert_header("X-Privacy-Notice", notice)?;
        }
        if let Some(policy) = &self.policy {
            header.append_header("Link", policy)?;
        }
        Ok(())
    }
}

/// What every client is held to; see `[server]` in the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) max_head: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_uri: usize,
    /// Whether `%2f` in a path is forwarded.
    pub(crate) escaped_slashes: bool,
    pub(crate) head_timeout: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) body_timeout: Duration,
    /// Bytes per second; 0 is off.
    pub(crate) min_rate: u64,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_client: Option<u32>,
    pub(crate) max_stalled: usize,
}

impl Ruleset {
    /// Pools of `previous` whose settings are the same go on; others of the same name keep what is known of
    /// their servers.
    pub(crate) fn build(config: &Config, previous: Option<&Self>) -> Result<Self, EdgeError> {
        let named =
            |name: &Arc<str>| previous.and_then(|old| old.pools.iter().find(|pool| pool.name() == *name));
        let pools = config
            .upstreams
            .iter()
            .map(|settings| match named(&settings.name) {
                Some(pool) if pool.has(settings) => Ok(Arc::clone(pool)),
                held => Pool::new(settings.clone(), held.map(Arc::as_ref)).map(Arc::new),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let server = &config.server;
        let policy =
            Snapshot { mode: config.mode, access: config.access.clone(), limits: config.limits.clone() };
        Ok(Self {
            needs: policy.needs(),
            policy,
            identity: IdentityRules::build(&config.identity, previous.and_then(|old| old.identity.as_ref()))?,
            trusted: server.trusted_proxies.iter().map(|&network| (network, network)).collect(),
            client_ip: server.client_ip.clone(),
            routes: Routes::new(&config.routes, &pools, server.max_body),
            pools,
            pages: PageTemplate::new(&config.pages),
            privacy: Privacy::new(config),
            forwarded_header: server.forwarded_header,
            redirect_to_https: server.redirect_to_https,
            hsts: server.hsts.as_ref().and_then(hsts_value),
            bounds: Bounds {
                max_head: server.max_head,
                max_headers: server.max_headers,
                max_uri: server.max_uri,
                escaped_slashes: server.escaped_slashes,
                head_timeout: server.head_timeout,
                keepalive_timeout: server.keepalive_timeout,
                body_timeout: server.body_timeout,
                min_rate: server.min_rate,
                max_connections: server.max_connections,
                max_connections_per_client: server.max_connections_per_client,
                max_stalled: server.max_stalled,
            },
        })
    }
}

impl Ruleset {
    /// Whether any request can be that of a verified user.
    pub(crate) fn knows_users(&self) -> bool {
        self.identity.as_ref().is_some_and(IdentityRules::knows_users)
    }
}

/// As RFC 6797, 6.1 writes it.
fn hsts_value(hsts: &Hsts) -> Option<HeaderValue> {
    let subdomains = if hsts.subdomains { "; includeSubDomains" } else { "" };
    let preload = if hsts.preload { "; preload" } else { "" };
    HeaderValue::from_str(&format!("max-age={}{subdomains}{preload}", hsts.max_age.as_secs())).ok()
}
