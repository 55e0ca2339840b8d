//! `[console]`: where people look at the gateway, and how they may reach it. Must not open sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::{Console, ConsoleUrl};

use super::fields::{Origin, Place, Section, quoted};
use super::listeners::Listeners;
use super::server::certificate;
use super::{DAY, HOUR, MINUTE};

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9612);
const MAX_NAME: usize = 253;

/// `None` is off.
pub(super) fn read(root: &mut Section<'_>, listeners: &mut Listeners) -> Option<Console> {
    let mut console = root.section("console");
    let value = console.get("listen");
    let listen = match &value {
        None => {
            let place = Place { origin: Origin::File, key: "console.listen".to_owned() };
            listeners.add(DEFAULT, place);
            Some(DEFAULT)
        }
        Some(value) => match value.text("ADDRESS:PORT such as \"127.0.0.1:9612\", or \"off\"") {
            None | Some("" | "off") => None,
            Some(_) => listeners.read(value),
        },
    };
    let certificate = console.get("certificate").and_then(|value| certificate(&value));
    let url = console.get("url").and_then(|value| value.parse_with(URL, url));
    let idle_timeout =
        console.read("idle_timeout", Duration::from_secs(1_800), |value| value.duration(MINUTE..=DAY));
    let session_timeout =
        console.read("session_timeout", 12 * HOUR, |value| value.duration(MINUTE..=30 * DAY));
    if let (Some(listen), Some(value), None) = (listen, &value, &certificate)
        && !listen.ip().is_loopback()
    {
        value.fail(
            "passwords would cross the network in the clear: listen on a loopback address such as \
             \"127.0.0.1:9612\", or set console.certificate",
        );
    }
    console.finish();
    Some(Console { listen: listen?, certificate, url, idle_timeout, session_timeout })
}

const URL: &str = "the address that people type, such as \"https://console.example.com\"";

/// Scheme, host and port; no path.
fn url(text: &str) -> Result<ConsoleUrl, String> {
    let wrong = || format!("expected {URL}, got {}", quoted(text));
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let authority = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
    let is_https = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(wrong()),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if authority.is_empty() || authority.len() > MAX_NAME || !authority.chars().all(is_host) {
        return Err(wrong());
    }
    Ok(ConsoleUrl { is_https, authority })
}
