//! `portcullis check`: every mistake in the configuration at once, or a summary of what would run.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use portcullis_config::{
    Acme, ClientAuth, Config, ConfigErrors, Identity, Loaded, Overrides, Server, TlsListener, TlsVersion,
    Upstream, format_duration, format_size,
};
use portcullis_model::UnixMs;
use portcullis_proxy::{CertificateSource, inspect_certificates, inspect_client_authorities};

use crate::certificates;

use super::context::{Context, Misuse};
use super::output::{GREEN, Screen, YELLOW, count, number};
use super::rule_words::{access_in_words, access_json, limit_in_words, limit_json};
use super::{Format, Outcome};

const EXAMPLES: &str = "\
Examples:
  portcullis check
      ./portcullis.toml
  portcullis check --config /etc/portcullis.toml && systemctl reload portcullis
  portcullis check --upstream http://127.0.0.1:8000
      what \"run\" with the same options would do

Prints mistakes as FILE:LINE:COLUMN: MESSAGE to standard error, all of them, and
ends with exit code 2.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// As for "run"
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    upstream: Option<String>,

    #[command(flatten)]
    format: Format,
}

/// A mistake in a configuration, for `--json`.
#[derive(Serialize)]
struct Mistake<'a> {
    file: &'a str,
    line: Option<usize>,
    column: Option<usize>,
    message: &'a str,
}

impl Check {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let mut overrides = Overrides { upstream: self.upstream, ..Overrides::default() };
        match context.load(&mut overrides) {
            Ok(mut loaded) => {
                loaded.notes.extend(certificate_notes(&loaded.config, context.now)?);
                match self.format.json {
                    true => screen.json(&as_json(&loaded))?,
                    false => summary(&loaded, screen)?,
                }
            }
            Err(errors) => {
                if self.format.json {
                    screen.json(&json!({ "valid": false, "errors": mistakes(&errors) }))?;
                    screen.flush()?;
                }
                return Err(errors.into());
            }
        }
        Ok(Outcome::Done)
    }
}

/// # Errors
/// All certificates that the gateway would not start with.
fn certificate_notes(config: &Config, now: UnixMs) -> anyhow::Result<Vec<String>> {
    let certificates = inspect_certificates(&config.server);
    // What an authority has yet to issue is no mistake.
    let own = certificates.iter().filter(|found| found.source == CertificateSource::File);
    let mut problems: Vec<_> = own.filter_map(|found| found.problem.clone()).collect();
    problems.extend(inspect_client_authorities(&config.server).iter().map(ToString::to_string));
    if !problems.is_empty() {
        return Err(Misuse(problems.join("\n")).into());
    }
    Ok(certificates::notes(&certificates, now))
}

fn mistakes(errors: &ConfigErrors) -> Vec<Mistake<'_>> {
    let mistake = |error: &'_ portcullis_config::ConfigError| -> (Option<usize>, Option<usize>) {
        (error.position.map(|at| at.line), error.position.map(|at| at.column))
    };
    errors
        .errors()
        .iter()
        .map(|error| {
            let (line, column) = mistake(error);
            Mistake { file: &error.file, line, column, message: &error.message }
        })
        .collect()
}

fn as_json(loaded: &Loaded) -> serde_json::Value {
    let Loaded { config, source, notes, stamp: _ } = loaded;
    json!({
        "valid": true,
        "file": source,
        "mode": config.mode.as_str(),
        "data": config.data,
        "listen": config.server.listen,
        "tls": config.server.tls.iter().map(|listener| listener.listen).collect::<Vec<_>>(),
        "acme": config.acme.as_ref().map(|acme| json!({
            "directory": acme.directory,
            "challenge": acme.challenge.as_str(),
            "names": acme.certificates.iter().map(|certificate| &certificate.name).collect::<Vec<_>>(),
        })),
        "upstreams": config.upstreams.iter().map(|upstream| json!({
            "name": &*upstream.name,
            "servers": upstream.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "balance": upstream.balance.as_str(),
        })).collect::<Vec<_>>(),
        "routes": config.routes.len(),
        "limits": config.limits.iter().map(|limit| limit_json(limit)).collect::<Vec<_>>(),
        "access": config.access.iter().map(|rule| access_json(rule)).collect::<Vec<_>>(),
        "blocks": config.blocks.len(),
        "identity": super::identity::settings_as_json(&config.identity),
        "allows": config.allows.len(),
        "trusted_proxies": config.server.trusted_proxies,
        "proxy_protocol": config.server.proxy_protocol,
        "redirect_to_https": config.server.redirect_to_https,
        "max_connections": config.server.max_connections,
        "max_connections_per_client": config.server.max_connections_per_client,
        "max_stalled": config.server.max_stalled,
        "detection": config.detection.enabled,
        "metrics": config.metrics,
        "console": config.console.as_ref().map(|console| console.listen),
        "geo": config.geo.databases,
        "geo_downloads": config.geo.downloads,
        "geo_sources": config.geo.sources.iter().map(|source| source.kind.as_str()).collect::<Vec<_>>(),
        "notes": notes,
    })
}

fn summary(loaded: &Loaded, screen: &mut Screen) -> anyhow::Result<()> {
    let Loaded { config, source, notes, stamp: _ } = loaded;
    let what = match source {
        Some(file) => format!("{} is valid.", file.display()),
        None => "There is no file; these are the defaults.".to_owned(),
    };
    screen.spans(&[(GREEN, "ok "), (super::output::PLAIN, &what)])?;
    screen.blank()?;
    screen.field("mode", config.mode.as_str())?;
    listeners(config, screen)?;
    if let Some(acme) = &config.acme {
        screen.field("acme", &acme_in_words(acme))?;
    }
    let proxies = &config.server.trusted_proxies;
    if !proxies.is_empty() {
        screen.field("trusts", &format!("{} to say who the client is", list(proxies)))?;
    }
    for (n, upstream) in config.upstreams.iter().enumerate() {
        screen.field(if n == 0 { "upstreams" } else { "" }, &upstream_in_words(upstream))?;
    }
    routes(config, screen)?;
    screen.field("bounds", &bounds_in_words(&config.server))?;
    access(config, screen)?;
    if !config.identity.is_off() {
        screen.field("identity", &identity_in_words(&config.identity))?;
    }
    limits(config, screen)?;
    let blocks = count(config.blocks.len() as u64, "block");
    let allows = count(config.allows.len() as u64, "allow");
    screen.field("lists", &format!("{blocks} and {allows} in the file, besides those of the database"))?;
    background(config, screen)?;
    screen.field("data", &config.data.display().to_string())?;
    if !notes.is_empty() {
        screen.blank()?;
    }
    for (n, note) in notes.iter().enumerate() {
        screen.styled_field(if n == 0 { "mind" } else { "" }, YELLOW, note)?;
    }
    Ok(())
}

fn listeners(config: &Config, screen: &mut Screen) -> anyhow::Result<()> {
    let server = &config.server;
    let mut label = "listens";
    for address in &server.listen {
        let text = format!("{address} (HTTP{})", after_a_proxy(server, address));
        screen.field(std::mem::take(&mut label), &text)?;
    }
    for listener in &server.tls {
        let text =
            format!("{} ({}{})", listener.listen, tls(listener), after_a_proxy(server, &listener.listen));
        screen.field(std::mem::take(&mut label), &text)?;
    }
    if let Some(port) = server.redirect_to_https {
        screen.field("redirects", &format!("plain requests to https, port {port}"))?;
    }
    if let Some(hsts) = &server.hsts {
        screen.field("hsts", &format_duration(hsts.max_age))?;
    }
    Ok(())
}

fn tls(listener: &TlsListener) -> String {
    let number = listener.certificates.len() + listener.acme.len();
    let mut text = format!("HTTPS, {}", count(number as u64, "certificate"));
    if listener.http2 {
        text.push_str(", HTTP/2");
    }
    match listener.min_version {
        TlsVersion::V1_2 => {}
        TlsVersion::V1_3 => text.push_str(", TLS 1.3 only"),
    }
    match &listener.client_auth {
        None => {}
        Some(ClientAuth { required: true, .. }) => text.push_str(", clients need a certificate"),
        Some(ClientAuth { required: false, .. }) => text.push_str(", clients may show a certificate"),
    }
    text
}

fn after_a_proxy(server: &Server, address: &SocketAddr) -> &'static str {
    if server.proxy_protocol.contains(address) { ", after a PROXY header" } else { "" }
}

/// What every client is held to.
fn bounds_in_words(server: &Server) -> String {
    let connections = count(server.max_connections as u64, "connection");
    let one_client = server
        .max_connections_per_client
        .map_or_else(|| "any number".to_owned(), |max| number(u64::from(max)));
    let rate = match server.min_rate {
        0 => "as slow as they like".to_owned(),
        rate => format!("at {} a second or more", format_size(rate)),
    };
    let largest =
        server.max_body.map_or_else(|| "of any size".to_owned(), |max| format!("up to {}", format_size(max)));
    format!(
        "{connections}, {one_client} of one client; heads within {}, bodies {largest} and {rate}",
        format_duration(server.head_timeout)
    )
}

/// The names that an authority issues certificates for.
fn acme_in_words(acme: &Acme) -> String {
    let names: Vec<_> = acme.certificates.iter().map(|certificate| certificate.name.as_str()).collect();
    format!("{} by {} from {}", names.join(", "), acme.challenge.as_str(), acme.directory)
}

/// By what requests are known.
fn identity_in_words(identity: &Identity) -> String {
    let mut by = Vec::new();
    if let Some(sessions) = &identity.sessions {
        by.push(format!("sessions with the cookie {:?}", sessions.cookie));
    }
    if let Some(tokens) = &identity.tokens {
        let own = tokens.rules.keys.len();
        by.push(match (own, &tokens.key_set) {
            (0, _) => "tokens with the keys of an issuer".to_owned(),
            (_, Some(_)) => format!("tokens with {} and those of an issuer", count(own as u64, "key")),
            (_, None) => format!("tokens with {}", count(own as u64, "key")),
        });
    }
    if by.is_empty() { "nobody is known; logins are recognised".to_owned() } else { by.join(", ") }
}

fn upstream_in_words(upstream: &Upstream) -> String {
    let mut text = format!("{}: {}", upstream.name, list(&upstream.servers));
    if upstream.servers.len() > 1 {
        let _ = write!(text, ", {}", upstream.balance.as_str());
    }
    if let Some(health) = &upstream.health {
        let _ = write!(text, ", checked at {} every {}", health.path, format_duration(health.interval));
    }
    if let Some(max) = upstream.max_connections {
        let _ = write!(text, ", {max} requests at once");
    }
    if let Some(breaker) = &upstream.breaker {
        let _ = write!(text, ", left alone for {} when most fail", format_duration(breaker.open_for));
    }
    text
}

fn routes(config: &Config, screen: &mut Screen) -> anyhow::Result<()> {
    for (n, route) in config.routes.iter().enumerate() {
        let hosts: Vec<_> = route.hosts.iter().map(|host| host.as_str()).collect();
        let paths: Vec<_> = route.paths.iter().map(|path| path.as_str()).collect();
        let what = match (hosts.is_empty(), paths.is_empty()) {
            (true, true) => "everything else".to_owned(),
            (true, false) => paths.join(", "),
            (false, true) => hosts.join(", "),
            (false, false) => format!("{} under {}", paths.join(", "), hosts.join(", ")),
        };
        screen.field(if n == 0 { "routes" } else { "" }, &format!("{what} -> {}", route.upstream))?;
    }
    Ok(())
}

fn limits(config: &Config, screen: &mut Screen) -> anyhow::Result<()> {
    if config.limits.is_empty() {
        screen.field("limits", "none")?;
    }
    for (n, limit) in config.limits.iter().enumerate() {
        screen.field(if n == 0 { "limits" } else { "" }, &limit_in_words(limit))?;
    }
    Ok(())
}

fn access(config: &Config, screen: &mut Screen) -> anyhow::Result<()> {
    for (n, rule) in config.access.iter().enumerate() {
        screen.field(if n == 0 { "access" } else { "" }, &access_in_words(rule))?;
    }
    Ok(())
}

/// `for 1h, 4h, 1d, 7d`: each further block of a repeat offender is longer.
fn block_steps(steps: &[Option<Duration>]) -> String {
    let step = |step: &Option<Duration>| step.map_or_else(|| "forever".to_owned(), format_duration);
    let steps: Vec<String> = steps.iter().map(step).collect();
    match steps.join(", ").as_str() {
        "forever" => "forever".to_owned(),
        steps => format!("for {steps}"),
    }
}

fn background(config: &Config, screen: &mut Screen) -> anyhow::Result<()> {
    let detection = &config.detection;
    let detector = match (detection.enabled, detection.block_severity) {
        (false, _) => "off".to_owned(),
        (true, None) => {
            let action = if detection.actions.blocks() {
                "blocks as [detection.actions] says"
            } else {
                "blocks nobody"
            };
            format!("every {}, {action}", format_duration(detection.interval))
        }
        (true, Some(severity)) => format!(
            "every {} over the last {}, blocks from severity {severity} on {}",
            format_duration(detection.interval),
            format_duration(detection.window),
            block_steps(&detection.block_for)
        ),
    };
    screen.field("detector", &detector)?;
    let files = config.geo.databases.iter().chain(&config.geo.downloads);
    let mut geo: Vec<_> = files.map(|file| file.display().to_string()).collect();
    geo.extend(config.geo.sources.iter().map(|source| format!("then {}", source.kind.as_str())));
    screen.field(
        "geo",
        &if geo.is_empty() { "off: no location in the log".to_owned() } else { geo.join(", ") },
    )?;
    screen.field(
        "log",
        &format!(
            "every request, for {} and at most {}",
            format_duration(config.log.retention),
            format_size(config.log.max_bytes)
        ),
    )?;
    let metrics = config.metrics.map_or("off".to_owned(), |address| format!("http://{address}/metrics"));
    screen.field("metrics", &metrics)?;
    screen.field(
        "console",
        &config
            .console
            .as_ref()
            .map_or("off".to_owned(), |console| format!("{}/", console.base_url(console.listen))),
    )?;
    Ok(())
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
