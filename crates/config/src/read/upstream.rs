//! `[[upstream]]`, `[upstream.health]` and `[upstream.breaker]`: the servers behind the gateway. Must not connect to them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::load::Overrides;
use crate::{Balance, CircuitBreaker, HealthCheck, HostHeader, Route, Upstream, UpstreamServer};

use super::fields::{Context, Origin, Place, Section, Value, quoted};
use super::files;
use super::{DAY, HOUR, MILLISECOND, SECOND};

const MAX_UPSTREAMS: usize = 1_000;
const MAX_SERVERS: usize = 1_000;
const MAX_WEIGHT: usize = 1_000;
const MAX_STREAK: usize = 100;
const MAX_CONNECTIONS: usize = 1_000_000;
const MAX_MIN_REQUESTS: usize = 1_000_000;
const MAX_QUEUE: usize = 100_000;
const MAX_EXPECT: usize = 100;
const MAX_HEALTH_PATH: usize = 2_048;

const SERVER: &str = "a server such as \"http://127.0.0.1:8000\" or \"https://app.internal\"";

/// What the document says about upstreams.
pub(super) struct Pools {
    /// All names, also those of pools that are wrong otherwise, so that a route to one is no second error.
    pub(super) names: Vec<Arc<str>>,
    upstreams: Vec<Upstream>,
    /// Whether the document has any, right or wrong.
    given: bool,
    root: Place,
}

pub(super) fn read(root: &mut Section<'_>) -> Pools {
    let sections = root.sections("upstream", MAX_UPSTREAMS);
    let mut pools = Pools {
        names: Vec::new(),
        upstreams: Vec::new(),
        given: root.has("upstream"),
        root: root.place.clone(),
    };
    for section in sections {
        let upstream = upstream(section, &mut pools.names);
        pools.upstreams.extend(upstream);
    }
    pools
}

/// The upstreams and routes to use: the document's, unless the command line sends everything to one
/// server. `None` only together with a reported problem.
pub(super) fn redirect(
    mut pools: Pools,
    routes: Vec<Route>,
    context: &Context<'_>,
    overrides: &Overrides,
) -> Option<(Vec<Upstream>, Vec<Route>)> {
    let Some(url) = &overrides.upstream else {
        if !pools.given {
            context.report(
                &pools.root,
                "no upstream: write [[upstream]] with name = \"app\" and servers = [\"http://127.0.0.1:8000\"], \
                 or give --upstream",
            );
        }
        return (!pools.upstreams.is_empty()).then_some((pools.upstreams, routes));
    };
    let place = Place { origin: Origin::Option("--upstream"), key: String::new() };
    let server = server(url).map_err(|message| context.report(&place, message)).ok()?;
    let upstream = match pools.upstreams.is_empty() {
        true => with_defaults("app".into(), vec![server]),
        false => Upstream { servers: vec![server], ..pools.upstreams.swap_remove(0) },
    };
    Some((vec![upstream], Vec::new()))
}

/// An upstream of which only name and servers are given.
fn with_defaults(name: Arc<str>, servers: Vec<UpstreamServer>) -> Upstream {
    Upstream {
        name,
        servers,
        balance: Balance::default(),
        connect_timeout: 5 * SECOND,
        read_timeout: 60 * SECOND,
        write_timeout: 60 * SECOND,
        idle_timeout: 60 * SECOND,
        tls_verify: true,
        tls_name: None,
        tls_ca: None,
        host_header: HostHeader::default(),
        max_fails: 3,
        fail_timeout: 10 * SECOND,
        fail_on_5xx: false,
        max_connections: None,
        queue: 100,
        queue_timeout: SECOND,
        slow_start: Duration::ZERO,
        health: None,
        breaker: None,
    }
}

fn upstream(mut section: Section<'_>, names: &mut Vec<Arc<str>>) -> Option<Upstream> {
    let name = section.required("name", "\"app\"", |value| unique_name(value, names));
    if let Some(name) = &name {
        section.rename(format!("upstream.{name}"));
    }
    let servers = section.required("servers", "[\"http://127.0.0.1:8000\"]", servers);
    let any_tls = servers.as_ref().is_none_or(|servers| servers.iter().any(|server| server.tls));
    let default = with_defaults("".into(), Vec::new());
    let timeout = |value: &Value<'_>| value.duration(10 * MILLISECOND..=DAY);
    let (tls_verify, tls_name, tls_ca) = tls(&mut section, any_tls);
    let upstream = Upstream {
        balance: section
            .read("balance", default.balance, |value| value.choice(&Balance::ALL, Balance::as_str)),
        connect_timeout: section.read("connect_timeout", default.connect_timeout, timeout),
        read_timeout: section.read("read_timeout", default.read_timeout, timeout),
        write_timeout: section.read("write_timeout", default.write_timeout, timeout),
        idle_timeout: section.read("idle_timeout", default.idle_timeout, timeout),
        tls_verify,
        tls_name,
        tls_ca,
        host_header: section.read("host_header", default.host_header, |value| {
            value.choice(&HostHeader::ALL, HostHeader::as_str)
        }),
        max_fails: section.read("max_fails", default.max_fails, |value| value.count(0..=MAX_STREAK)),
        fail_timeout: section
            .read("fail_timeout", default.fail_timeout, |value| value.duration(100 * MILLISECOND..=HOUR)),
        fail_on_5xx: section.read("fail_on_5xx", default.fail_on_5xx, Value::boolean),
        max_connections: section.read("max_connections", default.max_connections, |value| {
            value.count(0..=MAX_CONNECTIONS).map(|most| (most > 0).then_some(most))
        }),
        queue: section.read("queue", default.queue, |value| value.count(0..=MAX_QUEUE)),
        queue_timeout: section
            .read("queue_timeout", default.queue_timeout, |value| value.duration(10 * MILLISECOND..=HOUR)),
        slow_start: section
            .read("slow_start", default.slow_start, |value| value.duration(Duration::ZERO..=HOUR)),
        breaker: section.read("breaker", None, |value| {
            value.section("a table [upstream.breaker]").map(|breaker| Some(circuit_breaker(breaker)))
        }),
        health: section.read("health", None, |value| {
            value.section("a table [upstream.health]").map(|health| Some(health_check(health)))
        }),
        name: name.clone().unwrap_or_default(),
        servers: servers.unwrap_or_default(),
    };
    section.finish();
    (name.is_some() && !upstream.servers.is_empty()).then_some(upstream)
}

fn unique_name(value: &Value<'_>, names: &mut Vec<Arc<str>>) -> Option<Arc<str>> {
    let name: Arc<str> = value.name()?.into();
    if names.contains(&name) {
        value.fail(format!("another upstream is named {name:?} already"));
    } else {
        names.push(name.clone());
    }
    Some(name)
}

fn servers(value: &Value<'_>) -> Option<Vec<UpstreamServer>> {
    if value.is_empty_list() {
        value.fail("expected at least one server, for example [\"http://127.0.0.1:8000\"]");
    }
    let mut seen = HashSet::new();
    value.list(MAX_SERVERS, |item| {
        let server = weighted_server(item)?;
        if !seen.insert((server.host.clone(), server.port)) {
            item.fail(format!("{server} is in the list twice; give it a weight instead"));
        }
        Some(server)
    })
}

fn weighted_server(value: &Value<'_>) -> Option<UpstreamServer> {
    if !value.is_table() {
        return value.parse_with(SERVER, server);
    }
    let mut table = value.section(SERVER)?;
    let server = table.required("url", "\"http://127.0.0.1:8000\"", |url| url.parse_with(SERVER, server));
    let weight = table.read("weight", 1, |weight| weight.count(1..=MAX_WEIGHT));
    table.finish();
    Some(UpstreamServer { weight, ..server? })
}

/// Reads `http://host:port`, `https://host` or `host:port`.
fn server(text: &str) -> Result<UpstreamServer, String> {
    let expected = || format!("expected {SERVER}, without a path, got {}", quoted(text));
    let lower = text.to_ascii_lowercase();
    let (tls, rest, default_port) = match lower.split_once("://") {
        Some(("http", rest)) => (false, rest, Some(80)),
        Some(("https", rest)) => (true, rest, Some(443)),
        Some(_) => return Err(expected()),
        None => (false, lower.as_str(), None),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or_else(expected)?;
            address.parse::<Ipv6Addr>().map_err(|_| expected())?;
            (address, after)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            if !is_host(host) {
                return Err(expected());
            }
            (host, port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        None => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|&port| port > 0)
        }
        Some(_) => None,
    };
    Ok(UpstreamServer { host: host.to_owned(), port: port.ok_or_else(expected)?, tls, weight: 1 })
}

/// A DNS name or an IPv4 address. Names that end in a number are addresses (WHATWG URL, "host parsing"),
/// so that `127.0.0.300` is a mistake and not a name.
fn is_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let numeric_end = name
        .rsplit('.')
        .next()
        .is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()));
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    match numeric_end {
        true => host.parse::<Ipv4Addr>().is_ok(),
        false => name.len() <= 253 && name.split('.').all(is_label),
    }
}

fn tls(section: &mut Section<'_>, any_tls: bool) -> (bool, Option<String>, Option<PathBuf>) {
    let without_effect = |value: &Value<'_>| {
        if !any_tls {
            value.fail("has no effect: no server of this upstream is an https:// one");
        }
    };
    let tls_verify = section.read("tls_verify", true, |value| {
        let verify = value.boolean()?;
        if !verify {
            without_effect(value);
        }
        Some(verify)
    });
    let tls_name = section.read("tls_name", None, |value| match value.text("a host name in quotes")? {
        "" => None,
        name if is_host(name) && name.parse::<IpAddr>().is_err() => {
            without_effect(value);
            Some(Some(name.to_ascii_lowercase()))
        }
        other => {
            value.fail(format!("expected a host name such as \"app.internal\", got {}", quoted(other)));
            None
        }
    });
    let tls_ca = section.read("tls_ca", None, |value| {
        if value.text("a path in quotes")?.is_empty() {
            return None;
        }
        without_effect(value);
        if !tls_verify {
            value.fail("contradicts tls_verify = false; leave one of them out");
        }
        files::certificates(value).map(Some)
    });
    (tls_verify, tls_name, tls_ca)
}

fn health_check(mut health: Section<'_>) -> HealthCheck {
    let interval = health.read("interval", 10 * SECOND, |value| value.duration(100 * MILLISECOND..=DAY));
    let check = HealthCheck {
        path: health.read("path", "/".to_owned(), health_path),
        interval,
        timeout: health.read("timeout", interval.min(2 * SECOND), |value| health_timeout(value, interval)),
        healthy_after: health.read("healthy_after", 1, |value| value.count(1..=MAX_STREAK)),
        unhealthy_after: health.read("unhealthy_after", 3, |value| value.count(1..=MAX_STREAK)),
        expect: health.read("expect", vec![200..=399], statuses),
    };
    health.finish();
    check
}

fn circuit_breaker(mut breaker: Section<'_>) -> CircuitBreaker {
    let settings = CircuitBreaker {
        error_share: breaker.read("error_share", 0.5, |value| match value.share()? {
            0.0 => value.expected("a share above 0.0, at most 1.0"),
            share => Some(share),
        }),
        min_requests: breaker.read("min_requests", 20, |value| value.count(1..=MAX_MIN_REQUESTS)),
        window: breaker.read("window", 10 * SECOND, |value| value.duration(SECOND..=HOUR)),
        open_for: breaker.read("open_for", 10 * SECOND, |value| value.duration(100 * MILLISECOND..=HOUR)),
        probes: breaker.read("probes", 3, |value| value.count(1..=MAX_STREAK)),
    };
    breaker.finish();
    settings
}

fn health_path(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "a path such as \"/health\"";
    let path = value.text(WHAT)?;
    let valid = path.starts_with('/')
        && path.len() <= MAX_HEALTH_PATH
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !valid {
        value.fail(format!("expected {WHAT}, got {}", quoted(path)));
        return None;
    }
    Some(path.to_owned())
}

fn health_timeout(value: &Value<'_>, interval: Duration) -> Option<Duration> {
    let timeout = value.duration(10 * MILLISECOND..=HOUR)?;
    if timeout > interval {
        value.fail("is longer than the interval, so that checks would overlap");
        return None;
    }
    Some(timeout)
}

/// Statuses (`204`), classes (`"2xx"`) and ranges (`"200-204"`), made ascending and joined.
/// One status or more, each as a number, a class or a range.
pub(super) fn statuses(value: &Value<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    if value.is_empty_list() {
        value.fail("expected at least one status, for example [200] or [\"2xx\", \"3xx\"]");
    }
    let mut ranges = value.list(MAX_EXPECT, |item| match item.is_text() {
        true => item.parse_with("a status", status_range),
        false => item
            .integer(100..=599)
            .and_then(|status| u16::try_from(status).ok())
            .map(|status| status..=status),
    })?;
    ranges.sort_by_key(|range| *range.start());
    let mut joined: Vec<RangeInclusive<u16>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if *range.start() <= last.end() + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => joined.push(range),
        }
    }
    Some(joined)
}

fn status_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let range = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(class), _) => status(&format!("{class}00")).map(|first| first..=first + 99),
        (None, Some((first, last))) => status(first).zip(status(last)).map(|(first, last)| first..=last),
        (None, None) => status(text).map(|one| one..=one),
    };
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| format!("expected a status such as 200, \"2xx\" or \"200-299\", got {}", quoted(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_people_write_them() {
        for (text, printed) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("HTTPS://App.Internal", "https://app.internal:443"),
            ("http://web_1/", "http://web_1:80"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("[2001:db8::1]:80", "http://[2001:db8::1]:80"),
            ("localhost:1", "http://localhost:1"),
        ] {
            assert_eq!(server(text).unwrap().to_string(), printed);
        }
        for bad in [
            "",
            "http://",
            "example.com",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:",
            "http://a/b",
            "http://a?b",
            "http://user@a",
            "ftp://a",
            "http://::1:80",
            "http://[::1",
            "http://[::1]x",
            "http://127.0.0.300:80",
            "http://1.2.3",
            "http://a b",
            "http://*.a",
            "http://a..b",
        ] {
            assert!(server(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn statuses_are_single_classes_or_ranges() {
        assert_eq!(status_range("2xx"), Ok(200..=299));
        assert_eq!(status_range("200-204"), Ok(200..=204));
        assert_eq!(status_range("404"), Ok(404..=404));
        for bad in ["", "xx", "6xx", "99", "600", "204-200", "2x", "200-", "-200"] {
            assert!(status_range(bad).is_err(), "{bad:?} must be refused");
        }
    }
}
