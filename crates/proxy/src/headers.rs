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
    let scheme = if about.is_https { "https" } else { "http" };
    request.insert_header("X-Forwarded-For", about.client.to_string())?;
    request.insert_header("X-Forwarded-Proto", scheme)?;
    request.insert_header("X-Forwarded-Host", about.host)?;
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
