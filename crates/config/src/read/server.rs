//! `[server]` and `[[server.tls]]`: listeners, trust, and the limits that every client is held to.
//! Must not open sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_model::network_of;
use portcullis_policy::ClientIpSource;

use crate::load::Overrides;
use crate::units::parse_duration;
use crate::{CertificateFiles, ClientAuth, Hsts, Server, TlsListener, TlsVersion};

use super::acme;
use super::fields::{Context, Origin, Place, Section, Value, quoted};
use super::files;
use super::listeners::{self, Listeners, address};
use super::{DAY, HOUR, MILLISECOND, SECOND};

const MAX_LISTENERS: usize = 64;
const MAX_CERTIFICATES: usize = 1_000;
const MAX_TRUSTED: usize = 10_000;
/// The least `max-age` with which browsers take a host into their lists.
const PRELOAD_AGE: Duration = Duration::from_secs(31_536_000);
const HTTPS_PORT: u16 = 443;
const MAX_THREADS: usize = 1_024;
/// What the HTTP parser can take; see `max_head` and `max_headers`.
const MAX_HEAD_BYTES: u64 = 1_023 << 10;
const MAX_HEADER_LINES: usize = 256;

const MAX_CONNECTIONS: usize = 10_000_000;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

pub(super) fn read(
    root: &mut Section<'_>,
    context: &Context<'_>,
    data: &Path,
    overrides: &Overrides,
    listeners: &mut Listeners,
) -> Server {
    let mut server = root.section("server");
    let listen = server.get("listen");
    let tls: Vec<_> = server
        .sections("tls", MAX_LISTENERS)
        .into_iter()
        .filter_map(|tls| tls_listener(tls, data, listeners))
        .collect();
    let listen = plain_listeners(listen.as_ref(), &tls, context, overrides, listeners);
    let trusted = server.get("trusted_proxies");
    let nobody_trusted = trusted.as_ref().is_none_or(Value::is_empty_list);
    let trusted_proxies =
        trusted.and_then(|value| value.list(MAX_TRUSTED, trusted_proxy)).unwrap_or_default();
    let client_ip = server
        .read("client_ip_header", ClientIpSource::default(), |value| client_ip_header(value, nobody_trusted));
    let max_head = server.read("max_head", 32 << 10, |value| value.size(1 << 10..=MAX_HEAD_BYTES));
    let redirect_to_https = redirect_to_https(&mut server, &tls, nobody_trusted);
    let hsts = hsts(&mut server);
    let proxy_protocol = server.get("proxy_protocol");
    let proxy_protocol = proxy_protocol.map_or_else(Vec::new, |value| {
        proxied(&value, &listen, &tls, !overrides.listen.is_empty(), nobody_trusted)
    });
    let settings = Server {
        listen,
        tls,
        proxy_protocol,
        threads: threads(&mut server),
        trusted_proxies,
        client_ip,
        redirect_to_https,
        hsts,
        forwarded_header: server.read("forwarded_header", false, Value::boolean),
        grace_period: server.read("grace_period", 30 * SECOND, |v| v.duration(Duration::ZERO..=HOUR)),
        drain_timeout: server.read("drain_timeout", 600 * SECOND, |v| v.duration(Duration::ZERO..=DAY)),
        max_body: server.read("max_body", None, |value| value.size(0..=u64::MAX).map(nonzero)),
        max_head: as_usize(max_head),
        max_headers: server.read("max_headers", 100, |value| value.count(1..=MAX_HEADER_LINES)),
        max_uri: as_usize(server.read("max_uri", max_head.min(8 << 10), |value| max_uri(value, max_head))),
        escaped_slashes: server.read("escaped_slashes", false, Value::boolean),
        head_timeout: server.read("head_timeout", 10 * SECOND, |v| v.duration(100 * MILLISECOND..=HOUR)),
        keepalive_timeout: server.read("keepalive_timeout", 75 * SECOND, |v| v.duration(SECOND..=DAY)),
        body_timeout: server.read("body_timeout", 60 * SECOND, |v| v.duration(100 * MILLISECOND..=DAY)),
        min_rate: server.read("min_rate", 240, |value| value.size(0..=1 << 30)),
        max_connections: server.read("max_connections", 8_192, |value| value.count(1..=MAX_CONNECTIONS)),
        max_connections_per_client: server.read("max_connections_per_client", Some(256), |value| {
            value
                .integer(0..=u64::from(u32::MAX))
                .map(|count| u32::try_from(count).ok().filter(|&max| max > 0))
        }),
        max_stalled: server.read("max_stalled", 256, |value| value.count(1..=MAX_CONNECTIONS)),
    };
    server.finish();
    settings
}

/// Plain listeners: those of the command line, else those of the file, else one, if there is no other.
fn plain_listeners(
    value: Option<&Value<'_>>,
    tls: &[TlsListener],
    context: &Context<'_>,
    overrides: &Overrides,
    listeners: &mut Listeners,
) -> Vec<SocketAddr> {
    // A wrong value in the file is an error also where the command line wins.
    let mut ignored = Listeners::default();
    let from_file = if overrides.listen.is_empty() { &mut *listeners } else { &mut ignored };
    let listen = value.and_then(|value| value.list(MAX_LISTENERS, |item| from_file.read(item)));
    if !overrides.listen.is_empty() {
        let place = Place { origin: Origin::Option("--listen"), key: String::new() };
        return overrides
            .listen
            .iter()
            .filter_map(|text| address(text).map_err(|message| context.report(&place, message)).ok())
            .inspect(|&address| listeners.add(address, place.clone()))
            .collect();
    }
    match (value, listen) {
        (None, _) if tls.is_empty() => {
            let place = Place { origin: Origin::File, key: "server.listen".to_owned() };
            listeners.add(DEFAULT_LISTEN, place);
            vec![DEFAULT_LISTEN]
        }
        (Some(value), Some(listen)) => {
            if value.is_empty_list() && tls.is_empty() {
                value.fail("there is nothing to listen on; name an address here or write a [[server.tls]]");
            }
            listen
        }
        (None | Some(_), _) => Vec::new(),
    }
}

/// The listeners whose connections begin with a PROXY header.
fn proxied(
    value: &Value<'_>,
    listen: &[SocketAddr],
    tls: &[TlsListener],
    is_overridden: bool,
    nobody_trusted: bool,
) -> Vec<SocketAddr> {
    let is_listener =
        |address: &SocketAddr| listen.contains(address) || tls.iter().any(|tls| tls.listen == *address);
    let addresses = value.list(MAX_LISTENERS, |item| {
        let found = item.parse_with(listeners::WHAT, address)?;
        if !is_overridden && !is_listener(&found) {
            item.fail("nothing listens there; write the address as in server.listen or a [[server.tls]]");
            return None;
        }
        Some(found)
    });
    let addresses = addresses.unwrap_or_default();
    if nobody_trusted && !addresses.is_empty() {
        value.fail(
            "only server.trusted_proxies may send a PROXY header, and none is given; name your proxies",
        );
    }
    addresses.into_iter().filter(is_listener).collect()
}

fn tls_listener(mut tls: Section<'_>, data: &Path, listeners: &mut Listeners) -> Option<TlsListener> {
    let listen = tls.required("listen", "\"0.0.0.0:8443\"", |value| listeners.read(value));
    let http2 = tls.read("http2", true, Value::boolean);
    let example = "[{ cert = \"cert.pem\", key = \"key.pem\" }]";
    let wants_acme = tls.get("acme").is_some_and(|names| !names.is_empty_list());
    let acme = acme::certificates(&mut tls, data);
    let certificates = match tls.has("certificates") || !wants_acme {
        true => tls.required("certificates", example, |value| {
            if value.is_empty_list() && !wants_acme {
                value.fail(format!("expected at least one, for example {example}"));
            }
            value.list(MAX_CERTIFICATES, certificate)
        }),
        false => Some(Vec::new()),
    };
    let min_version = tls.read("min_version", TlsVersion::default(), |value| {
        value.choice(&TlsVersion::ALL, TlsVersion::as_str)
    });
    let client_auth = client_auth(&mut tls);
    tls.finish();
    Some(TlsListener { listen: listen?, http2, certificates: certificates?, acme, min_version, client_auth })
}

fn client_auth(tls: &mut Section<'_>) -> Option<ClientAuth> {
    const MODES: [(&str, bool); 2] = [("required", true), ("optional", false)];
    let ca = tls.get("client_ca");
    let authorities = ca.as_ref().and_then(files::certificates);
    let mode = tls.get("client_auth");
    if ca.is_none() {
        if let Some(mode) = &mode {
            mode.fail("needs client_ca, a PEM file of the authorities whose clients are let in");
        }
        return None;
    }
    let (_, required) =
        mode.map_or(Some(MODES[0]), |value| value.choice(&MODES, |(word, _)| word)).unwrap_or(MODES[0]);
    authorities.map(|authorities| ClientAuth { authorities, required })
}

pub(super) fn certificate(value: &Value<'_>) -> Option<CertificateFiles> {
    let mut pair = value.section("{ cert = \"cert.pem\", key = \"key.pem\" }")?;
    let cert = pair.required("cert", "\"cert.pem\"", files::certificates);
    let key = pair.required("key", "\"key.pem\"", files::private_key);
    pair.finish();
    Some(CertificateFiles { cert: cert?, key: key? })
}

/// The port of https, if plain requests are sent there.
fn redirect_to_https(server: &mut Section<'_>, tls: &[TlsListener], nobody_trusted: bool) -> Option<u16> {
    let is_served = !tls.is_empty() || !nobody_trusted;
    let redirects = server.read("redirect_to_https", false, |value| {
        let wanted = value.boolean()?;
        if wanted && !is_served {
            value.fail(
                "there is no https: add a [[server.tls]], or name in server.trusted_proxies what speaks it",
            );
        }
        Some(wanted)
    });
    let default = tls.first().map_or(HTTPS_PORT, |tls| tls.listen.port());
    let port = server
        .read("https_port", default, |value| u16::try_from(value.integer(1..=u64::from(u16::MAX))?).ok());
    redirects.then_some(port)
}

fn hsts(server: &mut Section<'_>) -> Option<Hsts> {
    const WHAT: &str = "a duration such as \"365d\", or \"off\"";
    let max_age = server.read("hsts", None, |value| match value.text(WHAT)? {
        "off" => Some(None),
        text if parse_duration(text).is_none() => value.expected(WHAT),
        _ => value.duration(Duration::ZERO..=3_650 * DAY).map(Some),
    });
    let subdomains = server.read("hsts_subdomains", false, Value::boolean);
    let preload = server.read("hsts_preload", false, |value| {
        let wanted = value.boolean()?;
        if wanted && !(subdomains && max_age.is_some_and(|age| age >= PRELOAD_AGE)) {
            value.fail("needs hsts = \"365d\" or longer, and hsts_subdomains = true");
        }
        Some(wanted)
    });
    max_age.map(|max_age| Hsts { max_age, subdomains, preload })
}

fn trusted_proxy(value: &Value<'_>) -> Option<IpNet> {
    let network = value.parse_with("an address or a prefix such as \"10.0.0.0/8\"", network_of)?;
    if network.prefix_len() == 0 {
        value.fail(
            "every client could choose its own address if all were trusted; name the addresses of your proxies",
        );
        return None;
    }
    Some(network)
}

fn client_ip_header(value: &Value<'_>, nobody_trusted: bool) -> Option<ClientIpSource> {
    const WHAT: &str = "the name of a header such as \"x-forwarded-for\" or \"cf-connecting-ip\"";
    let name = value.parse_with(WHAT, |text| {
        let valid = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if valid {
            Ok(text.to_ascii_lowercase())
        } else {
            Err(format!("expected {WHAT}, got {}", quoted(text)))
        }
    })?;
    match name.as_str() {
        "x-forwarded-for" => Some(ClientIpSource::XForwardedFor),
        _ if nobody_trusted => {
            value.fail(
                "the header is read from server.trusted_proxies alone, and none is given; name your proxies",
            );
            None
        }
        "forwarded" => Some(ClientIpSource::Forwarded),
        _ => Some(ClientIpSource::Header(name.into())),
    }
}

fn threads(server: &mut Section<'_>) -> usize {
    match server.read("threads", 0, |value| value.count(0..=MAX_THREADS)) {
        0 => thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_THREADS),
        given => given,
    }
}

fn max_uri(value: &Value<'_>, max_head: u64) -> Option<u64> {
    let bytes = value.size(64..=MAX_HEAD_BYTES)?;
    if bytes > max_head {
        value.fail("is larger than server.max_head, which contains it");
        return None;
    }
    Some(bytes)
}

fn as_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// 0 means that there is no limit.
fn nonzero(bytes: u64) -> Option<u64> {
    (bytes > 0).then_some(bytes)
}
