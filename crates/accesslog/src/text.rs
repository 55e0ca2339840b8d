//! Pieces of lines: quoted texts with their escapes, addresses, what stands in front of a line.
//! Must not know formats.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use memchr::{memchr, memchr2_iter};
use portcullis_model::ClientIp;

/// The text between the quote before `start` and the one that ends it, and where the rest begins. A quote ends a text
/// if nothing or a blank follows: programs that escape nothing write others as they are.
pub(crate) fn quoted(line: &str, start: usize) -> Option<(&str, usize)> {
    let bytes = line.as_bytes();
    let mut skip = None;
    for at in memchr2_iter(b'"', b'\\', bytes.get(start..)?) {
        let at = start + at;
        if skip == Some(at) {
            continue;
        }
        match bytes[at] {
            b'\\' => skip = Some(at + 1),
            _ if matches!(bytes.get(at + 1), None | Some(b' ' | b'\t')) => {
                return Some((&line[start..at], at + 1));
            }
            _ => {}
        }
    }
    None
}

/// Undoes what Apache (`\"`, `\n`) and nginx (`\x22`) write for bytes that they do not print. What is no UTF-8 then
/// becomes U+FFFD.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let Some(first) = memchr(b'\\', bytes) else { return Cow::Borrowed(text) };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match tail {
            [b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            [escaped, after @ ..] => {
                let plain = match escaped {
                    b'"' | b'\\' => Some(*escaped),
                    b'n' => Some(b'\n'),
                    b'r' => Some(b'\r'),
                    b't' => Some(b'\t'),
                    b'v' => Some(0x0b),
                    b'f' => Some(0x0c),
                    b'b' => Some(0x08),
                    _ => None,
                };
                match plain {
                    Some(plain) => {
                        out.push(plain);
                        rest = after;
                    }
                    None => out.push(b'\\'),
                }
            }
            [] => out.push(b'\\'),
        }
    }
    Cow::Owned(match String::from_utf8(out) {
        Ok(text) => text,
        Err(broken) => String::from_utf8_lossy(broken.as_bytes()).into_owned(),
    })
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The text, or nothing for the `-` that stands for nothing.
pub(crate) fn or_empty(text: Cow<'_, str>) -> Cow<'_, str> {
    if text == "-" { Cow::Borrowed("") } else { text }
}

/// An address, alone or with its port, IPv6 in brackets or not, with a zone or not.
pub(crate) fn address(text: &str) -> Option<ClientIp> {
    // No address begins otherwise, and most words that are asked about are none.
    if !text.starts_with(|c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '[')) {
        return None;
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let bare = bare.split_once('%').map_or(bare, |(address, _)| address);
    let plain = || bare.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    plain().or_else(with_port).map(ClientIp::new)
}

/// A host's name in lower case without its port; nothing for `-` and `_`.
pub(crate) fn host(text: &str) -> Cow<'_, str> {
    let name = match text.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            // A colon of an IPv6 address is no port's.
            if name.contains(':') && !name.ends_with(']') { text } else { name }
        }
        _ => text,
    };
    let name = name.trim_end_matches('.');
    match name {
        "-" | "_" => Cow::Borrowed(""),
        name if name.bytes().any(|b| b.is_ascii_uppercase()) => Cow::Owned(name.to_ascii_lowercase()),
        name => Cow::Borrowed(name),
    }
}

/// What follows the words that syslog, journals and containers put in front of a line: `Jul  8 11:07:07 web nginx[7]: `
/// or `web_1  | `.
pub(crate) fn behind_prefix(head: &str) -> Option<&str> {
    let colon = head.find(": ").map(|at| at + 2);
    let bar = head.find("| ").map(|at| at + 2);
    let at = match (colon, bar) {
        (Some(colon), Some(bar)) => colon.min(bar),
        (one, other) => one.or(other)?,
    };
    Some(head[at..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_both_servers_are_undone() {
        for (written, meant) in [
            ("plain", "plain"),
            (r#"a\x22b\x5Cc"#, r#"a"b\c"#),
            (r#"a\"b\\c"#, r#"a"b\c"#),
            (r"caf\xC3\xA9", "café"),
            (r"\x16\x03\x01", "\u{16}\u{3}\u{1}"),
            (r"a\nb\tc", "a\nb\tc"),
            (r"\xff", "\u{fffd}"),
            (r"\x2", r"\x2"),
            (r"\q\", r"\q\"),
        ] {
            assert_eq!(unescape(written), meant, "{written}");
        }
    }

    #[test]
    fn a_quote_ends_where_a_blank_or_nothing_follows() {
        assert_eq!(quoted(r#""a\"b" c"#, 1), Some((r#"a\"b"#, 6)));
        assert_eq!(quoted(r#""a"b" c"#, 1), Some((r#"a"b"#, 5)));
        assert_eq!(quoted(r#""a\\""#, 1), Some((r"a\\", 5)));
        assert_eq!(quoted(r#""a\""#, 1), None);
        assert_eq!(quoted("\"", 1), None);
    }

    #[test]
    fn addresses_and_hosts_lose_their_ports() {
        for (text, address_of) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:55032", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("unix:", None),
            ("crawler.example", None),
            ("", None),
        ] {
            assert_eq!(address(text), address_of.map(|a| a.parse().unwrap()), "{text}");
        }
        assert_eq!(host("WWW.Example.com:8080"), "www.example.com");
        assert_eq!((host("[2001:db8::1]:80"), host("-")), ("[2001:db8::1]".into(), "".into()));
        assert_eq!(host("2001:db8::1"), "2001:db8::1");
    }
}
