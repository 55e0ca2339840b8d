//! A request as the rules and the record see it, read once from its head.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, REFERER, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderValue, Version};
use pingora::http::RequestHeader;
use portcullis_model::{ClientIp, Protocol, RecordText, TextFields, cut_text, limits};
use portcullis_policy::{ClientIpSource, RequestHeaders, client_ip, forwarded_is_https};

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
        let authority = authority(head);
        let raw = head.raw_path();
        let origin_form = if raw.starts_with(b"/") {
            raw
        } else {
            head.uri.path_and_query().map_or(raw, |pq| pq.as_str().as_bytes())
        };
        let (path, query) = split_target(origin_form);
        Self { authority, host: normal_host(authority), path, query }
    }

    pub(crate) fn record_text(&self, head: &RequestHeader, user: &str) -> RecordText {
        let text = |name| head.headers.get(name).map_or(&b""[..], |value: &HeaderValue| value.as_bytes());
        RecordText::new(TextFields {
            method: head.method.as_str().as_bytes(),
            host: self.host.as_bytes(),
            path: self.path,
            query: self.query,
            user_agent: text(USER_AGENT),
            referer: text(REFERER),
            user: user.as_bytes(),
        })
    }
}

/// The host that was asked for, as sent, with the port; empty when there is none. HTTP/2 and absolute-form targets name
/// it in the URI, and that one counts (RFC 9112, 3.2.2).
pub(crate) fn authority(head: &RequestHeader) -> &[u8] {
    match head.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => head.headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes),
    }
}

/// The user agent as the rules and the log have it.
pub(crate) fn user_agent(head: &RequestHeader) -> Cow<'_, str> {
    let sent = head.headers.get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
    String::from_utf8_lossy(cut_text(sent, limits::USER_AGENT))
}

/// The headers of a request, for rules that count by one.
#[derive(Debug)]
pub(crate) struct HeadLines<'a>(pub(crate) &'a HeaderMap);

impl RequestHeaders for HeadLines<'_> {
    fn only(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.0.get_all(name).iter();
        lines.next().filter(|_| lines.next().is_none()).map(HeaderValue::as_bytes)
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
    let lines = headers.get_all(rules.client_ip.header()).iter().map(|value| value.as_bytes());
    client_ip(peer, &rules.trusted, &rules.client_ip, lines)
}

/// Whether the header that a trusted proxy names the client in came more than once: somebody in between
/// added to it, and nothing says which one is true.
pub(crate) fn names_two_clients(peer: ClientIp, rules: &Ruleset, headers: &HeaderMap) -> bool {
    match &rules.client_ip {
        ClientIpSource::XForwardedFor | ClientIpSource::Forwarded => false,
        ClientIpSource::Header(name) => {
            rules.trusted.lookup(peer.ip()).is_some() && headers.get_all(&**name).iter().nth(1).is_some()
        }
    }
}

/// Whether every server understands the same by the framing of the body: no coding but chunked, and no
/// length but a single number. Everything else is the stuff that request smuggling is made of.
pub(crate) fn has_plain_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding_is_plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length_is_plain = match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit),
        (Some(_), Some(_)) => false,
    };
    // Applications behind CGI and its heirs cannot tell an underscore from a hyphen.
    let has_look_alike = headers.contains_key("content_length") || headers.contains_key("transfer_encoding");
    coding_is_plain && length_is_plain && !has_look_alike
}

/// Whether the client expects nothing, or no more than `100-continue`.
pub(crate) fn has_known_expectation(headers: &HeaderMap) -> bool {
    let mut expected = headers.get_all(EXPECT).iter();
    match (expected.next(), expected.next()) {
        (None, _) => true,
        (Some(one), None) => one.as_bytes().eq_ignore_ascii_case(b"100-continue"),
        (Some(_), Some(_)) => false,
    }
}

/// Whether the request target has one of the forms that there are for a server (RFC 9112, 3.2): a path, an
/// absolute URI, or `*`. Rules and upstreams could read anything else in two ways.
pub(crate) fn has_known_form(head: &RequestHeader) -> bool {
    let target = head.raw_path();
    let is_absolute =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    target.starts_with(b"/")
        || is_absolute(b"http://")
        || is_absolute(b"https://")
        || (target == b"*" && head.method == http::Method::OPTIONS)
}

/// Whether the client's own connection is over TLS: to us, or to a trusted proxy that says so.
pub(crate) fn is_https(peer: ClientIp, is_tls: bool, rules: &Ruleset, headers: &HeaderMap) -> bool {
    if is_tls || rules.trusted.lookup(peer.ip()).is_none() {
        return is_tls;
    }
    match &rules.client_ip {
        // A proxy that writes this one may pass on whatever else a client sends.
        ClientIpSource::Forwarded => {
            let lines = headers.get_all("forwarded").iter().map(|value| value.as_bytes());
            forwarded_is_https(&rules.trusted, lines).unwrap_or(false)
        }
        ClientIpSource::XForwardedFor | ClientIpSource::Header(_) => headers
            .get("x-forwarded-proto")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https")),
    }
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
    fn a_target_is_a_path_an_uri_or_a_star() {
        let of = |method: &str, target: &str| {
            let head = RequestHeader::build(method, b"/", None).and_then(|mut head| {
                head.set_raw_path(target.as_bytes())?;
                Ok(has_known_form(&head))
            });
            head.unwrap_or(false)
        };
        assert!(of("GET", "/") && of("GET", "//a") && of("GET", "HTTP://a/b") && of("OPTIONS", "*"));
        for bad in ["\\login", "login", "*", "ftp://a/b", "?x"] {
            assert!(!of("GET", bad), "{bad:?}");
        }
    }

    #[test]
    fn framing_that_can_be_read_in_two_ways_is_not_plain() {
        let of = |lines: &[(&'static str, &'static str)]| {
            let lines = lines.iter();
            let headers: HeaderMap = lines
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            has_plain_framing(&headers)
        };
        assert!(of(&[]) && of(&[("content-length", "5")]) && of(&[("transfer-encoding", "Chunked")]));
        for bad in [
            ("content-length", "5, 5"),
            ("content-length", "+5"),
            ("content-length", ""),
            ("content_length", "5"),
            ("transfer_encoding", "chunked"),
            ("transfer-encoding", "xchunked"),
            ("transfer-encoding", "identity, chunked"),
        ] {
            assert!(!of(&[bad]), "{bad:?}");
        }
        assert!(!of(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]));
        assert!(!of(&[("content-length", "5"), ("content-length", "5")]));
    }

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
