//! A request as the rules and the record see it, read once from its head.

use std::borrow::Cow;

use http::header::{HOST, REFERER, USER_AGENT};
use http::{HeaderMap, Version};
use pingora::http::RequestHeader;
use portcullis_model::{ClientIp, Protocol, RecordText, TextFields};
use portcullis_policy::{ClientIpSource, client_ip};

use crate::guard::split_target;
use crate::ruleset::Ruleset;

/// The parts of a head that are looked at more than once.
pub(crate) struct Target<'a> {
    /// As sent, with the port; empty when there is none.
    pub(crate) authority: &'a [u8],
    /// Lower case, without port and trailing dot.
    pub(crate) host: Cow<'a, str>,
    /// As sent, without the query.
    pub(crate) path: &'a [u8],
    pub(crate) query: &'a [u8],
}

impl<'a> Target<'a> {
    pub(crate) fn of(head: &'a RequestHeader) -> Self {
        // HTTP/2 and absolute-form targets name the authority in the URI, and that one counts (RFC 9112, 3.2.2).
        let authority = match head.uri.authority() {
            Some(authority) => authority.as_str().as_bytes(),
            None => head.headers.get(HOST).map_or(&b""[..], |value| value.as_bytes()),
        };
        let raw = head.raw_path();
        let origin_form = if raw.starts_with(b"/") {
            raw
        } else {
            head.uri.path_and_query().map_or(raw, |pq| pq.as_str().as_bytes())
        };
        let (path, query) = split_target(origin_form);
        Self { authority, host: normal_host(authority), path, query }
    }

    pub(crate) fn record_text(&self, head: &RequestHeader) -> RecordText {
        let text =
            |name| head.headers.get(name).map_or(&b""[..], |value: &http::HeaderValue| value.as_bytes());
        RecordText::new(TextFields {
            method: head.method.as_str().as_bytes(),
            host: self.host.as_bytes(),
            path: self.path,
            query: self.query,
            user_agent: text(USER_AGENT),
            referer: text(REFERER),
            user: b"",
        })
    }
}

fn normal_host(authority: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(authority);
    let end = match text.rfind(':') {
        // A colon inside of an IPv6 address in brackets is no port's.
        Some(colon) if !text[colon..].contains(']') => colon,
        _ => text.len(),
    };
    let is_normal = |name: &str| !name.ends_with('.') && !name.bytes().any(|b| b.is_ascii_uppercase());
    match text {
        Cow::Borrowed(name) if is_normal(&name[..end]) => Cow::Borrowed(&name[..end]),
        other => Cow::Owned(other[..end].trim_end_matches('.').to_ascii_lowercase()),
    }
}

/// The client, from the socket's peer and what trusted proxies say.
pub(crate) fn resolve_client(peer: ClientIp, rules: &Ruleset, headers: &HeaderMap) -> ClientIp {
    if rules.trusted.is_empty() {
        return peer;
    }
    let name = match &rules.client_ip {
        ClientIpSource::XForwardedFor => "x-forwarded-for",
        ClientIpSource::Header(name) => name,
    };
    let lines = headers.get_all(name).iter().map(|value| value.as_bytes());
    client_ip(peer, &rules.trusted, &rules.client_ip, lines)
}

/// Whether the client's own connection is over TLS: to us, or to a trusted proxy that says so.
pub(crate) fn is_https(peer: ClientIp, is_tls: bool, rules: &Ruleset, headers: &HeaderMap) -> bool {
    if is_tls {
        return true;
    }
    let said =
        headers.get("x-forwarded-proto").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"));
    said && rules.trusted.lookup(peer.ip()).is_some()
}

pub(crate) fn protocol(version: Version) -> Protocol {
    match version {
        Version::HTTP_10 => Protocol::Http10,
        Version::HTTP_11 => Protocol::Http11,
        Version::HTTP_2 => Protocol::Http2,
        _ => Protocol::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_port_case_and_trailing_dot() {
        for (authority, host) in [
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com", "example.com"),
            ("[2001:db8::1]:80", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("", ""),
        ] {
            assert_eq!(normal_host(authority.as_bytes()), host);
        }
    }
}
