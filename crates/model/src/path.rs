//! The one normal form of a path: what limits, routes and the detector compare. What is forwarded
//! upstream is untouched.

use std::borrow::Cow;

/// Percent-decodes once, treats `\` as `/`, cuts `;parameters` of a segment, merges slashes, removes dot
/// segments and a final slash, and lowers ASCII letters, so that no spelling of `/login` escapes a rule
/// for it. Bytes that are not UTF-8 become U+FFFD. The input is the path without the query.
///
/// Rules for lower-case matching err on the strict side: on a case-sensitive site a rule for `/login`
/// also counts `/LOGIN`.
pub fn normalise_path(path: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(path)
        && is_normal(path)
    {
        return Cow::Borrowed(text);
    }
    let decoded = decode(path);
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len() + 1);
    for raw in decoded.split(|&b| b == b'/' || b == b'\\') {
        let segment = raw.split(|&b| b == b';').next().unwrap_or(raw);
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|&b| b == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            name => {
                out.push(b'/');
                out.extend(name.iter().map(u8::to_ascii_lowercase));
            }
        }
    }
    if out.is_empty() {
        return Cow::Borrowed("/");
    }
    Cow::Owned(match String::from_utf8(out) {
        Ok(text) => text,
        Err(broken) => String::from_utf8_lossy(broken.as_bytes()).into_owned(),
    })
}

/// The common case, for which nothing has to be built.
fn is_normal(path: &[u8]) -> bool {
    if path == b"/" {
        return true;
    }
    let mut previous = 0;
    for (n, &byte) in path.iter().enumerate() {
        match byte {
            b'%' | b'\\' | b';' | b'A'..=b'Z' => return false,
            b'/' | b'.' if previous == b'/' => return false,
            b'/' => {}
            _ if n == 0 => return false,
            _ => {}
        }
        previous = byte;
    }
    previous != b'/' && previous != 0
}

fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_login_is_login() {
        for spelling in [
            "/login",
            "//login",
            "/./login",
            "/x/../login",
            "/%6cogin",
            "/login/",
            "/LOGIN",
            "/login;a=1",
            "\\login",
            "/%6Cogin",
            "/login%2f",
            "/login/.",
            "/../../login",
            "/a/b/../../login",
            "login",
        ] {
            assert_eq!(normalise_path(spelling.as_bytes()), "/login", "{spelling}");
        }
    }

    #[test]
    fn decoding_happens_once_and_never_fails() {
        assert_eq!(normalise_path(b"/%252e"), "/%2e");
        assert_eq!(normalise_path(b"/a%zz%4"), "/a%zz%4");
        assert_eq!(normalise_path(b"/%ff"), "/\u{fffd}");
        assert_eq!(normalise_path(b"/login%00"), "/login\0");
        assert_eq!(normalise_path(b""), "/");
        assert_eq!(normalise_path(b"/.."), "/");
        assert_eq!(normalise_path(b"/.env"), "/.env");
    }

    proptest! {
        #[test]
        fn the_quick_check_agrees_with_the_full_work(path in "/?[a-zA-Z./;\\\\%0-9]{0,24}") {
            let once = normalise_path(path.as_bytes()).into_owned();
            prop_assert!(once.starts_with('/'));
            prop_assert!(once == "/" || !once.ends_with('/'));
            prop_assert!(!once.contains("//") && !once.contains('\\'));
            prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
        }
    }
}
