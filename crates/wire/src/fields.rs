//! What the header lines of a head say together: framing, Host, upgrade, expectation.
//!
//! Owns the judgement of these few fields; every other field is only checked for its form.

use std::net::Ipv6Addr;

use crate::request_line::{Absolute, RequestLine};
use crate::{Framing, Head, HeadError};

/// A field that may stand in a head once.
#[derive(Clone, Copy, Debug, Default)]
enum Single<'a> {
    #[default]
    Never,
    One(&'a [u8]),
    Again,
}

impl<'a> Single<'a> {
    fn see(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Never => Self::One(value),
            Self::One(_) | Self::Again => Self::Again,
        };
    }

    /// `Err` if it came more than once.
    fn at_most_once(self, error: HeadError) -> Result<Option<&'a [u8]>, HeadError> {
        match self {
            Self::Never => Ok(None),
            Self::One(value) => Ok(Some(value)),
            Self::Again => Err(error),
        }
    }
}

/// The fields that decide how a request is read.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    host: Single<'a>,
    content_length: Single<'a>,
    transfer_encoding: Single<'a>,
    expect: Single<'a>,
    upgrade: Single<'a>,
    names_websocket: bool,
    websocket_key: Single<'a>,
    websocket_version: Single<'a>,
    connection: ConnectionOptions,
}

#[derive(Clone, Copy, Debug, Default)]
struct ConnectionOptions {
    upgrade: bool,
    /// It asks the gateway to drop a field without which the next server reads another request.
    names_framing: bool,
}

/// Which bytes may be in a name (RFC 9110, 5.6.2).
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        let is_sign =
            matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        table[byte as usize] = byte.is_ascii_alphanumeric() || is_sign;
        byte += 1;
    }
    table
};

impl<'a> Fields<'a> {
    /// Reads one header line without its end. Control characters were looked for already.
    pub(crate) fn read_line(&mut self, line: &'a [u8]) -> Result<(), HeadError> {
        let colon = line.iter().position(|&b| !NAME[usize::from(b)]).ok_or(HeadError::HeaderSyntax)?;
        let (name, rest) = line.split_at(colon);
        match rest {
            [b':', value @ ..] if !name.is_empty() => self.read(name, trim(value)),
            _ => Err(HeadError::HeaderSyntax),
        }
    }

    fn read(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), HeadError> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => self.host.see(value),
            6 if is(b"expect") => self.expect.see(value),
            7 if is(b"upgrade") => {
                self.upgrade.see(value);
                self.names_websocket |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"websocket"));
            }
            10 if is(b"connection") => self.connection.read(value),
            14 if is(b"content-length") => self.content_length.see(value),
            17 if is(b"transfer-encoding") => self.transfer_encoding.see(value),
            17 if is(b"sec-websocket-key") => self.websocket_key.see(value),
            21 if is(b"sec-websocket-version") => self.websocket_version.see(value),
            // Applications behind CGI and its heirs cannot tell an underscore from a hyphen.
            14 if is(b"content_length") => return Err(HeadError::Framing),
            17 if is(b"transfer_encoding") => return Err(HeadError::Framing),
            _ => {}
        }
        Ok(())
    }

    /// Judges the fields of a complete head of `len` bytes.
    pub(crate) fn head(&self, line: &RequestLine<'_>, len: usize) -> Result<Head, HeadError> {
        let framing = self.framing(line)?;
        self.check_host(line)?;
        let upgrade = self.is_websocket(line, framing)?;
        let expects_continue = self.expects_continue(line, framing)?;
        Ok(Head { len, framing, version_minor: line.version_minor, expects_continue, upgrade })
    }

    fn framing(&self, line: &RequestLine<'_>) -> Result<Framing, HeadError> {
        let length = self.content_length.at_most_once(HeadError::Framing)?;
        let coding = self.transfer_encoding.at_most_once(HeadError::Framing)?;
        if self.connection.names_framing {
            return Err(HeadError::Framing);
        }
        match (length, coding) {
            (None, None) => Ok(Framing::None),
            (Some(length), None) => parse_length(length).map(Framing::Length).ok_or(HeadError::Framing),
            // HTTP/1.0 has no chunks (RFC 9112, 6.1).
            (None, Some(coding)) if line.version_minor == 1 && coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked)
            }
            (None | Some(_), Some(_)) => Err(HeadError::Framing),
        }
    }

    fn check_host(&self, line: &RequestLine<'_>) -> Result<(), HeadError> {
        let host = match self.host.at_most_once(HeadError::Host)? {
            Some(host) => Some(Authority::parse(host).ok_or(HeadError::Host)?),
            None if line.version_minor == 0 => None,
            None => return Err(HeadError::Host),
        };
        let Some(Absolute { default_port, authority }) = line.absolute else { return Ok(()) };
        let authority = Authority::parse(authority).ok_or(HeadError::Host)?;
        match host {
            Some(host) if !host.is_same(&authority, default_port) => Err(HeadError::Host),
            _ => Ok(()),
        }
    }

    /// RFC 6455, 4.1. The bytes behind such a head are no HTTP, so it must be clear that it is one.
    fn is_websocket(&self, line: &RequestLine<'_>, framing: Framing) -> Result<bool, HeadError> {
        if !self.names_websocket || !self.connection.upgrade {
            return Ok(false);
        }
        let Single::One(protocol) = self.upgrade else { return Err(HeadError::Upgrade) };
        let Single::One(key) = self.websocket_key else { return Err(HeadError::Upgrade) };
        let Single::One(version) = self.websocket_version else { return Err(HeadError::Upgrade) };
        let is_plain_get = line.method == b"GET"
            && line.version_minor == 1
            && matches!(framing, Framing::None | Framing::Length(0));
        let is_valid = is_plain_get
            && protocol.eq_ignore_ascii_case(b"websocket")
            && is_websocket_key(key)
            && version == b"13";
        if is_valid { Ok(true) } else { Err(HeadError::Upgrade) }
    }

    /// An expectation that the gateway does not know cannot be forwarded: servers that take it for
    /// `100-continue` and servers that do not disagree on where the body begins.
    fn expects_continue(&self, line: &RequestLine<'_>, framing: Framing) -> Result<bool, HeadError> {
        match self.expect.at_most_once(HeadError::Expectation)? {
            None => Ok(false),
            Some(value) if !value.eq_ignore_ascii_case(b"100-continue") => Err(HeadError::Expectation),
            Some(_) => {
                let has_body = !matches!(framing, Framing::None | Framing::Length(0));
                Ok(has_body && line.version_minor == 1)
            }
        }
    }
}

impl ConnectionOptions {
    fn read(&mut self, value: &[u8]) {
        for option in tokens(value) {
            let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
            self.upgrade |= is(b"upgrade");
            self.names_framing |= is(b"content-length") || is(b"transfer-encoding") || is(b"host");
        }
    }
}

/// Digits alone, no sign, no blanks, and no leading zeros, which some readers take for octal.
fn parse_length(value: &[u8]) -> Option<u64> {
    let is_number = match value {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !is_number {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// 16 bytes in base64.
fn is_websocket_key(key: &[u8]) -> bool {
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.len() == 24 && key[..22].iter().all(is_digit) && key.ends_with(b"==")
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

fn trim(value: &[u8]) -> &[u8] {
    let is_ink = |b: &u8| !matches!(b, b' ' | b'\t');
    let start = value.iter().position(is_ink).unwrap_or(value.len());
    let end = value.iter().rposition(is_ink).map_or(start, |last| last + 1);
    &value[start..end]
}

/// Whether this is a host with or without a port (RFC 9110, 7.2), as `scan` accepts it in `Host`.
pub fn is_authority(text: &[u8]) -> bool {
    Authority::parse(text).is_some()
}

/// A host with or without a port (RFC 9110, 7.2), never with user information.
#[derive(Clone, Copy, Debug)]
struct Authority<'a> {
    host: &'a [u8],
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (host, port) = match text.iter().rposition(|&b| b == b':') {
            Some(colon) if !text[colon..].contains(&b']') => (&text[..colon], &text[colon + 1..]),
            _ => (text, &b""[..]),
        };
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let is_host = match host {
            [b'[', address @ .., b']'] => {
                std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
            }
            name => !name.is_empty() && name.iter().all(is_name),
        };
        let port = match port {
            b"" => None,
            digits if digits.iter().all(u8::is_ascii_digit) => {
                Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
            }
            _ => return None,
        };
        is_host.then_some(Self { host, port })
    }

    fn is_same(&self, other: &Self, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

#[cfg(test)]
mod tests {
    use super::is_authority;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for good in
            ["a", "A.example:8080", "a.example.", "a_b", "192.0.2.1:80", "[::1]", "[2001:db8::1]:80", "a:"]
        {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "a:b",
            "a:80:80",
            "a:65536",
            "[::1",
            "[a]",
            "::1",
            "a\"<script>",
            "a,b",
            "é",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
