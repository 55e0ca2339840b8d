//! `[alerts]`: what people are told of, and by which mail server and webhooks. Must not talk to anybody, nor repeat
//! a secret in a message.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use portcullis_model::{Secret, Severity};
use portcullis_notify::{Address, Settings, Smtp, SmtpTls, Webhook, WebhookKind};
use url::{Host, Url};

use super::fields::{Section, Value, quoted};
use super::{HOUR, SECOND, files, secret};

const MAX_WEBHOOKS: usize = 20;
const MAX_RECEIVERS: usize = 50;
const MAX_HEADERS: usize = 20;
/// The name of the channel that mails go by; no webhook may have it.
const MAIL: &str = "mail";
/// What the gateway itself writes into requests to webhooks.
const OWN_HEADERS: [&str; 5] =
    ["content-type", "content-length", "host", "transfer-encoding", "x-portcullis-signature"];
const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn read(root: &mut Section<'_>) -> Settings {
    let default = Settings::default();
    let mut alerts = root.section("alerts");
    let settings = Settings {
        findings: alerts.read("findings", default.findings, severity),
        auto_blocks: alerts.read("auto_blocks", default.auto_blocks, Value::boolean),
        log_loss: alerts.read("log_loss", default.log_loss, Value::boolean),
        disk_pressure: alerts.read("disk_pressure", default.disk_pressure, Value::boolean),
        feed_failures: alerts.read("feed_failures", default.feed_failures, Value::boolean),
        min_free: alerts.read("min_free", default.min_free, |value| value.size(1 << 20..=1 << 50)),
        gather: alerts.read("gather", default.gather, |value| value.duration(SECOND / 10..=HOUR)),
        max_per_hour: alerts.read("max_per_hour", default.max_per_hour, |value| {
            u32::try_from(value.integer(1..=1_000)?).ok()
        }),
        name: alerts.read("name", default.name, |value| value.label(0..=60)),
        smtp: if alerts.has("smtp") { smtp(alerts.section("smtp")) } else { known(&mut alerts, "smtp") },
        webhooks: webhooks(&mut alerts),
    };
    alerts.finish();
    settings
}

/// A setting that is not there is a known one all the same.
fn known<T>(section: &mut Section<'_>, key: &'static str) -> Option<T> {
    section.get(key);
    None
}

fn severity(value: &Value<'_>) -> Option<Option<Severity>> {
    let choices: Vec<_> = Severity::ALL.into_iter().map(Some).chain([None]).collect();
    value.choice(&choices, |severity| severity.map_or("never", Severity::as_str))
}

/// `None` only together with a reported problem.
fn smtp(mut smtp: Section<'_>) -> Option<Smtp> {
    let host = smtp.required("host", "\"mail.example.com\"", host);
    let tls = smtp.read("tls", SmtpTls::default(), |value| value.choice(&SmtpTls::ALL, SmtpTls::as_str));
    let port = smtp.read("port", tls.default_port(), |value| u16::try_from(value.integer(1..=65_535)?).ok());
    let user = smtp.get("username").and_then(|value| value.label(1..=200));
    let password = smtp.get("password").and_then(|value| secret::line(&value));
    let has_both = (smtp.has("username"), smtp.has("password"));
    let from = smtp.required("from", "\"Gateway <gateway@example.com>\"", address);
    let to = smtp.required("to", "[\"admin@example.com\"]", |value| value.list(MAX_RECEIVERS, address));
    let ca = smtp.get("ca").and_then(|value| optional_certificates(&value)).flatten();
    let timeout = smtp.read("timeout", TIMEOUT, |value| value.duration(SECOND..=120 * SECOND));
    let allow_plaintext = smtp.read("allow_plaintext", false, Value::boolean);
    if matches!(has_both, (true, false) | (false, true)) {
        smtp.report("username and password belong together");
    }
    if to.as_ref().is_some_and(Vec::is_empty) {
        smtp.report("to is empty: nobody would get the mails");
    }
    if let Some(host) =
        host.as_ref().filter(|host| tls.may_be_plain() && !allow_plaintext && !is_loopback(host))
    {
        smtp.report(format!(
            "tls = \"{}\" would send mails and passwords in the clear to {}: use \"starttls\" or \"tls\", or write \
             allow_plaintext = true",
            tls.as_str(),
            quoted(host)
        ));
    }
    smtp.finish();
    Some(Smtp { host: host?, port, tls, login: user.zip(password), from: from?, to: to?, ca, timeout })
}

fn host(value: &Value<'_>) -> Option<String> {
    const WHAT: &str = "the name or the address of a mail server such as \"mail.example.com\"";
    value.parse_with(WHAT, |text| {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(ip.to_string());
        }
        match Host::parse(text) {
            Ok(Host::Domain(name)) => Ok(name),
            Ok(_) | Err(_) => Err(format!("expected {WHAT}, got {}", quoted(text))),
        }
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn address(value: &Value<'_>) -> Option<Address> {
    value.parse_with("a mail address", |text| {
        text.parse::<Address>().map_err(|expected| format!("{expected}, got {}", quoted(text)))
    })
}

/// "" is the system's.
fn optional_certificates(value: &Value<'_>) -> Option<Option<std::path::PathBuf>> {
    match value.text("the path of a PEM file")? {
        "" => Some(None),
        _ => files::certificates(value).map(Some),
    }
}

fn webhooks(alerts: &mut Section<'_>) -> Vec<Webhook> {
    let mut names = HashSet::from([MAIL.to_owned()]);
    alerts
        .sections("webhook", MAX_WEBHOOKS)
        .into_iter()
        .filter_map(|section| webhook(section, &mut names))
        .collect()
}

/// `None` only together with a reported problem.
fn webhook(mut webhook: Section<'_>, names: &mut HashSet<String>) -> Option<Webhook> {
    let name = webhook.required("name", "\"chat\"", |value| {
        let name = value.name()?;
        if !names.insert(name.to_owned()) {
            value.fail(format!("{} is taken; each channel needs a name of its own", quoted(name)));
            return None;
        }
        Some(name.to_owned())
    });
    let kind = webhook
        .read("kind", WebhookKind::default(), |value| value.choice(&WebhookKind::ALL, WebhookKind::as_str));
    let allow_plaintext = webhook.read("allow_plaintext", false, Value::boolean);
    let url = webhook.required("url", "{ env = \"CHAT_WEBHOOK\" }", |value| url(value, allow_plaintext));
    let secret = webhook.get("secret").and_then(|value| secret::line(&value));
    let headers = webhook.read("headers", Vec::new(), |value| value.list(MAX_HEADERS, header));
    let ca = webhook.get("ca").and_then(|value| optional_certificates(&value)).flatten();
    webhook.finish();
    Some(Webhook { name: name?, url: url?, kind, secret, headers, ca })
}

/// Whoever knows the URL may write to the chat: it is read as a secret, and never shown.
fn url(value: &Value<'_>, allow_plaintext: bool) -> Option<Secret> {
    let secret = secret::line(value)?;
    let is_plain = match Url::parse(secret.expose()) {
        Ok(url) if url.scheme() == "https" && url.has_host() => false,
        Ok(url) if url.scheme() == "http" && url.has_host() => {
            let host = url.host_str().unwrap_or_default();
            !is_loopback(host.trim_matches(['[', ']']))
        }
        Ok(_) | Err(_) => {
            value
                .fail("expected a URL such as \"https://chat.example.com/hooks/...\"; what is there is none");
            return None;
        }
    };
    if is_plain && !allow_plaintext {
        value.fail("is http://, so that anybody in between can read it: use https://, or write allow_plaintext = true");
        return None;
    }
    Some(secret)
}

fn header(value: &Value<'_>) -> Option<(String, Secret)> {
    let mut header =
        value.section("a header such as { name = \"Authorization\", value = { env = \"TOKEN\" } }")?;
    let name = header.required("name", "\"Authorization\"", |value| {
        const WHAT: &str = "the name of a header";
        let name = value.text(WHAT)?;
        let is_token = !name.is_empty()
            && name.len() <= 100
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        match () {
            () if !is_token => value.expected(WHAT),
            () if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) => {
                value.expected("a header that the gateway does not write itself")
            }
            () => Some(name.to_owned()),
        }
    });
    let text = header.required("value", "{ env = \"TOKEN\" }", secret::line);
    header.finish();
    Some((name?, text?))
}
