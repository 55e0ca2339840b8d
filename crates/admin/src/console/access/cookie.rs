//! The cookie of a session.
//!
//! Owns its name and flags. Over TLS its name forbids browsers to take it from anybody else (`__Host-`).

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use portcullis_model::Secret;

const SECURE: &str = "__Host-portcullis";
const PLAIN: &str = "portcullis";

fn name(is_secure: bool) -> &'static str {
    if is_secure { SECURE } else { PLAIN }
}

/// The token of the session that a browser says it has.
pub(super) fn read(headers: &HeaderMap, is_secure: bool) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(given, _)| *given == name(is_secure)).map(|(_, value)| value)
}

/// Lasts until the browser is closed, or the session ends on the server.
pub(super) fn set(token: &Secret, is_secure: bool) -> HeaderValue {
    line(token.expose(), is_secure, "")
}

/// Has the browser forget it.
pub(super) fn clear(is_secure: bool) -> HeaderValue {
    line("", is_secure, "; Max-Age=0")
}

fn line(value: &str, is_secure: bool, more: &str) -> HeaderValue {
    let secure = if is_secure { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}", name(is_secure));
    HeaderValue::try_from(text).expect("tokens are letters and digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cookie_of_this_kind_of_connection_is_read() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=b; portcullis=plain"));
        headers.append(COOKIE, HeaderValue::from_static("__Host-portcullis=secure; portcullis=second"));
        assert_eq!(read(&headers, true), Some("secure"));
        assert_eq!(read(&headers, false), Some("plain"));
        assert_eq!(read(&HeaderMap::new(), true), None);
    }

    #[test]
    fn the_flags_are_as_strict_as_the_connection_allows() {
        let token = Secret::new("t0ken");
        let secure = "__Host-portcullis=t0ken; Path=/; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(set(&token, true), secure);
        assert_eq!(set(&token, false), "portcullis=t0ken; Path=/; HttpOnly; SameSite=Strict");
        assert_eq!(clear(false), "portcullis=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    }
}
