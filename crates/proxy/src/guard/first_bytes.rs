//! What the first bytes of something that is no request tell, for its record.

use std::borrow::Cow;

use portcullis_wire::escaped;

/// How much of bytes that are no request line is kept, in characters.
const MAX_ESCAPED: usize = 256;

/// A method and a target, as far as there are such.
pub(super) struct Told<'a> {
    pub(super) method: &'a [u8],
    /// Path and query, or everything, escaped.
    pub(super) target: Cow<'a, [u8]>,
}

/// Method and target of what may be a request line; else the bytes themselves are the target, escaped.
pub(super) fn told_by(bytes: &[u8]) -> Told<'_> {
    let start = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let line = start.split(|&b| b == b'\r' || b == b'\n').next().unwrap_or_default();
    let mut words = line.splitn(3, |&b| b == b' ');
    match (words.next(), words.next()) {
        (Some(method), Some(target)) if is_method(method) && is_target(target) => {
            Told { method, target: Cow::Borrowed(target) }
        }
        (Some(method), Some(target)) if is_method(method) => {
            Told { method, target: Cow::Owned(escaped(target, MAX_ESCAPED).into_bytes()) }
        }
        _ => Told { method: b"", target: Cow::Owned(escaped(bytes, MAX_ESCAPED).into_bytes()) },
    }
}

fn is_method(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(u8::is_ascii_uppercase)
}

fn is_target(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|&b| b.is_ascii_graphic() || b >= 0x80)
}

/// The path and the query of a request target.
pub(crate) fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().position(|&b| b == b'?') {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_line_is_recorded_escaped() {
        let told = |bytes: &[u8]| {
            let told = told_by(bytes);
            (
                String::from_utf8_lossy(told.method).into_owned(),
                String::from_utf8_lossy(&told.target).into_owned(),
            )
        };
        let pair = |method: &str, target: &str| (method.to_owned(), target.to_owned());
        assert_eq!(told(b"GET /a?b HTTP/9.9\r\nHost: x"), pair("GET", "/a?b"));
        assert_eq!(told(b"\r\nGET /a"), pair("GET", "/a"));
        assert_eq!(told(b"GET /a\x00b HTTP/1.1"), pair("GET", "/a\\x00b"));
        assert_eq!(told(b"\x16\x03\x01 x"), pair("", "\\x16\\x03\\x01 x"));
        assert_eq!(told(b"hello"), pair("", "hello"));
        assert_eq!(told(b""), pair("", ""));
    }
}
