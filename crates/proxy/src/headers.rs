//! What the upstream is told about the client: the gateway's word alone.

use std::net::IpAddr;

use http::HeaderName;
use pingora::http::RequestHeader;
use portcullis_model::{ClientIp, RequestId};

/// Headers that only a gateway may write. A client's copies never reach the upstream.
const GATEWAY_ONLY: [HeaderName; 17] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("x-original-forwarded-for"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("cf-connecting-ipv6"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("fastly-client-ip"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("forwarded"),
];

/// What is written about a request.
pub(crate) struct Forwarding<'a> {
    pub(crate) client: ClientIp,
    pub(crate) is_https: bool,
    /// As the client sent it, with the port.
    pub(crate) host: &'a [u8],
    pub(crate) id: RequestId,
    /// Also as RFC 7239 has it.
    pub(crate) forwarded: bool,
}

/// Replaces every forwarding header by the gateway's own.
pub(crate) fn write_forwarding(request: &mut RequestHeader, about: &Forwarding<'_>) -> pingora::Result<()> {
    for name in &GATEWAY_ONLY {
        if request.headers.contains_key(name) {
            request.remove_header(name);
        }
    }
    remove_look_alikes(request);
    let scheme = if about.is_https { "https" } else { "http" };
    request.insert_header("X-Forwarded-For", about.client.to_string())?;
    request.insert_header("X-Forwarded-Proto", scheme)?;
    if !about.host.is_empty() {
        request.insert_header("X-Forwarded-Host", about.host)?;
    }
    request.insert_header("X-Request-Id", &about.id.encode()[..])?;
    if about.forwarded {
        let client = match about.client.ip() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("\"[{v6}]\""),
        };
        let mut value = format!("for={client};proto={scheme};host=\"").into_bytes();
        value.extend(about.host.iter().filter(|b| !matches!(b, b'"' | b'\\')));
        value.push(b'"');
        request.insert_header("Forwarded", value)?;
    }
    Ok(())
}

/// Applications that follow CGI cannot tell `X_Forwarded_For` from `X-Forwarded-For`.
fn remove_look_alikes(request: &mut RequestHeader) {
    while let Some(name) = request.headers.keys().find(|name| is_look_alike(name)).cloned() {
        request.remove_header(&name);
    }
}

fn is_look_alike(name: &HeaderName) -> bool {
    let name = name.as_str();
    let matches = |ours: &HeaderName| {
        let ours = ours.as_str();
        let pairs = name.bytes().zip(ours.bytes());
        name.len() == ours.len() && pairs.into_iter().all(|(n, o)| n == o || (n == b'_' && o == b'-'))
    };
    name.contains('_') && GATEWAY_ONLY.iter().any(matches)
}

/// A server that is no proxy expects the path alone (RFC 9112, 3.2.1), whatever the client sent to this one.
pub(crate) fn make_origin_form(request: &mut RequestHeader) {
    // `*` is an origin form too (RFC 9112, 3.2.4).
    if request.raw_path().starts_with(b"/") || request.raw_path() == b"*" {
        return;
    }
    if let Some(uri) = request.uri.path_and_query().and_then(|target| target.as_str().parse().ok()) {
        request.set_uri(uri);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_make_no_other_name() {
        for (name, is) in [
            ("x_forwarded_for", true),
            ("x-forwarded_for", true),
            ("x_real_ip", true),
            ("x-forwarded-for", false),
            ("x_forwarded_fo", false),
            ("my_header", false),
        ] {
            assert_eq!(is_look_alike(&HeaderName::from_static(name)), is, "{name}");
        }
    }
}
