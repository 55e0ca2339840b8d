//! What the upstream is told about the client and the request: the gateway's word alone.

use std::net::IpAddr;

use http::header::{CONNECTION, COOKIE, EXPECT};
use http::{HeaderValue, Method, Version};
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr as _};
use portcullis_model::{ClientIp, RequestId};

use crate::tls::ClientCertificate;

/// Headers that only a gateway may write. A client's copies never reach the upstream.
const GATEWAY_ONLY: [&str; 41] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded",
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-by",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-forwarded-protocol",
    "x-url-scheme",
    "x-scheme",
    "x-host",
    // Some frameworks route by these instead of by the path, past every rule for it.
    "x-original-url",
    "x-rewrite-url",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-original-host",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-envoy-external-address",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "true-client-ip",
    "fastly-client-ip",
    "x-request-id",
    "forwarded",
    "client-cert",
    "client-cert-chain",
    "x-client-cert-verify",
    "x-client-cert-subject",
    "x-client-cert-fingerprint",
    "x-ssl-client-verify",
    "x-ssl-client-s-dn",
    "x-ssl-client-cert",
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
    /// Verified in the handshake.
    pub(crate) certificate: Option<&'a ClientCertificate>,
}

/// Replaces every forwarding header by the gateway's own.
pub(crate) fn write_forwarding(request: &mut RequestHeader, about: &Forwarding<'_>) -> pingora::Result<()> {
    while let Some(name) = request.headers.keys().find(|name| is_gateway_only(name.as_str())).cloned() {
        request.remove_header(&name);
    }
    let scheme = if about.is_https { "https" } else { "http" };
    // Copies of a value share its bytes.
    let client = HeaderValue::try_from(about.client.to_string())
        .or_err(ErrorType::InternalError, "an address that is no header")?;
    // Much of what runs behind nginx reads this one.
    request.insert_header("X-Real-IP", client.clone())?;
    request.insert_header("X-Forwarded-For", client)?;
    request.insert_header("X-Forwarded-Proto", scheme)?;
    if !about.host.is_empty() {
        request.insert_header("X-Forwarded-Host", about.host)?;
    }
    request.insert_header("X-Request-Id", &about.id.encode()[..])?;
    if let Some(certificate) = about.certificate {
        request.insert_header("X-Client-Cert-Verify", "SUCCESS")?;
        request.insert_header("X-Client-Cert-Fingerprint", &certificate.fingerprint)?;
        if let Some(subject) = &certificate.subject {
            request.insert_header("X-Client-Cert-Subject", subject)?;
        }
    }
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

/// Underscores count as hyphens: applications that follow CGI cannot tell `X_Forwarded_For` from
/// `X-Forwarded-For`.
fn is_gateway_only(name: &str) -> bool {
    // Nearly all names of a request fall out here.
    if !name.starts_with(['x', 'c', 't', 'f']) {
        return false;
    }
    let is_same = |ours: &str| {
        ours.len() == name.len()
            && name.bytes().zip(ours.bytes()).all(|(n, o)| n == o || (n == b'_' && o == b'-'))
    };
    GATEWAY_ONLY.into_iter().any(is_same)
}

/// HTTP/2 clients may send their cookies in pieces; HTTP/1 has one line for them (RFC 9113, 8.2.3), and sites
/// that get several lose all but one.
pub(crate) fn join_cookies(request: &mut RequestHeader) -> pingora::Result<()> {
    let pieces: Vec<&[u8]> = request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() < 2 {
        return Ok(());
    }
    let joined = pieces.join(&b"; "[..]);
    request.insert_header(COOKIE, joined)
}

/// Leaves a server no way to wait for a body that does not come, or to take one for the next request.
pub(crate) fn settle_body(
    request: &mut RequestHeader,
    has_body: bool,
    client_speaks: Version,
) -> pingora::Result<()> {
    // Without a body there is nothing to wait for, and HTTP/1.0 knows no interim answers (RFC 9110, 10.1.1).
    if !has_body || client_speaks == Version::HTTP_10 {
        request.remove_header(&EXPECT);
    }
    // Some servers do not look for a body here. What they leave unread ends with its connection.
    if has_body && matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE) {
        request.insert_header(CONNECTION, "close")?;
    }
    Ok(())
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
            ("x-forwarded-for", true),
            ("forwarded", true),
            ("x_forwarded_fo", false),
            ("x-forwarded-for-real", false),
            ("cookie", false),
            ("my_header", false),
        ] {
            assert_eq!(is_gateway_only(name), is, "{name}");
        }
    }

    #[test]
    fn the_quick_check_lets_no_name_of_the_list_through() {
        for name in GATEWAY_ONLY {
            assert!(is_gateway_only(name), "{name}");
        }
    }
}
