//! The PROXY header, version 1 and 2, by which a load balancer names the client it speaks for.
//!
//! Owns the strict reading of it; who may send one is for the caller to decide. Nothing is guessed: what is
//! not exactly a header is an error, with the first byte that makes it certain.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use portcullis_model::MalformedKind;

/// The longest header of version 1, its line end included.
pub const MAX_V1: usize = 107;

/// The longest header of version 2 that is taken: 16 bytes, addresses, and room for a certificate's names.
pub const MAX_V2: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const V2_FIXED: usize = 16;
const TLV_CRC32C: u8 = 3;

/// Whom the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// The sender speaks for itself, or does not know: the socket's peer is the client.
    Local,
    /// The sender forwards a TCP connection.
    Client { source: SocketAddr, destination: SocketAddr },
}

/// Why the bytes are no PROXY header that can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header is longer than its version allows")]
    TooLong,
    #[error(
        "the PROXY line is not made of a protocol, two addresses and two ports with one blank between them"
    )]
    Line,
    #[error("an address or port in the PROXY header is invalid")]
    Address,
    #[error("the PROXY header is of an unknown version")]
    Version,
    #[error("the PROXY header holds an unknown command")]
    Command,
    #[error("the PROXY header speaks of something else than TCP over IPv4 or IPv6")]
    Family,
    #[error("the PROXY header is too short for its addresses")]
    Length,
    #[error("a value in the PROXY header reaches beyond its end")]
    Overrun,
    #[error("the checksum of the PROXY header is wrong")]
    Checksum,
}

impl ProxyError {
    /// What the record says.
    pub fn kind(self) -> MalformedKind {
        MalformedKind::ProxyProtocol
    }
}

/// Reads the header at the start of `buf` and returns its length and what it says; `None` means that more
/// bytes are needed, `max(MAX_V1, MAX_V2)` at most.
pub fn parse(buf: &[u8]) -> Result<Option<(usize, Proxied)>, ProxyError> {
    match buf.first() {
        None => Ok(None),
        Some(b'P') => parse_v1(buf),
        Some(b'\r') => parse_v2(buf),
        Some(_) => Err(ProxyError::Missing),
    }
}

/// Whether `buf` goes on as `start` begins; `Ok(false)` while it is shorter.
fn begins_with(buf: &[u8], start: &[u8]) -> Result<bool, ProxyError> {
    let common = buf.len().min(start.len());
    if buf[..common] == start[..common] { Ok(common == start.len()) } else { Err(ProxyError::Missing) }
}

fn parse_v1(buf: &[u8]) -> Result<Option<(usize, Proxied)>, ProxyError> {
    if !begins_with(buf, V1_START)? {
        return Ok(None);
    }
    let window = &buf[..buf.len().min(MAX_V1)];
    match window.iter().position(|b| !matches!(b, b' '..=b'~')) {
        None if window.len() == MAX_V1 => Err(ProxyError::TooLong),
        None => Ok(None),
        Some(end) => match &window[end..] {
            [b'\r', b'\n', ..] => {
                let said = parse_line(&window[V1_START.len()..end])?;
                Ok(Some((end + 2, said)))
            }
            [b'\r'] if window.len() == MAX_V1 => Err(ProxyError::TooLong),
            [b'\r'] => Ok(None),
            _ => Err(ProxyError::Line),
        },
    }
}

fn parse_line(line: &[u8]) -> Result<Proxied, ProxyError> {
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Line)?;
    let mut parts = line.split(' ');
    let protocol = parts.next().unwrap_or_default();
    if protocol == "UNKNOWN" {
        // Whatever follows says nothing (2.1): the sender is all that is known.
        return Ok(Proxied::Local);
    }
    let mut part = || parts.next().ok_or(ProxyError::Line);
    let (source, destination) = (part()?, part()?);
    let (source_port, destination_port) = (parse_port(part()?)?, parse_port(part()?)?);
    if parts.next().is_some() {
        return Err(ProxyError::Line);
    }
    match protocol {
        "TCP4" => Ok(Proxied::Client {
            source: (parse_address::<Ipv4Addr>(source)?, source_port).into(),
            destination: (parse_address::<Ipv4Addr>(destination)?, destination_port).into(),
        }),
        "TCP6" => Ok(Proxied::Client {
            source: (parse_address::<Ipv6Addr>(source)?, source_port).into(),
            destination: (parse_address::<Ipv6Addr>(destination)?, destination_port).into(),
        }),
        _ => Err(ProxyError::Family),
    }
}

fn parse_address<A: std::str::FromStr>(text: &str) -> Result<A, ProxyError> {
    text.parse().map_err(|_| ProxyError::Address)
}

fn parse_port(text: &str) -> Result<u16, ProxyError> {
    let is_canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    if is_canonical { text.parse().map_err(|_| ProxyError::Address) } else { Err(ProxyError::Address) }
}

fn parse_v2(buf: &[u8]) -> Result<Option<(usize, Proxied)>, ProxyError> {
    if !begins_with(buf, V2_START)? {
        return Ok(None);
    }
    let Some(&version_and_command) = buf.get(12) else { return Ok(None) };
    if version_and_command >> 4 != 2 {
        return Err(ProxyError::Version);
    }
    let is_local = match version_and_command & 15 {
        0 => true,
        1 => false,
        _ => return Err(ProxyError::Command),
    };
    let Some(&family) = buf.get(13) else { return Ok(None) };
    // What comes with LOCAL is to be skipped, the family included (2.2).
    let addresses = if is_local { Addresses::None } else { Addresses::of(family)? };
    let Some(&[high, low]) = buf.get(14..V2_FIXED).and_then(|length| length.first_chunk()) else {
        return Ok(None);
    };
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_V2 {
        return Err(ProxyError::TooLong);
    }
    if len < V2_FIXED + addresses.len() {
        return Err(ProxyError::Length);
    }
    let Some(header) = buf.get(..len) else { return Ok(None) };
    let (said, values) = addresses.read(&header[V2_FIXED..])?;
    if !is_local {
        check_values(header, len - values.len())?;
    }
    Ok(Some((len, said)))
}

#[derive(Clone, Copy, Debug)]
enum Addresses {
    None,
    V4,
    V6,
}

impl Addresses {
    fn of(family_and_protocol: u8) -> Result<Self, ProxyError> {
        match family_and_protocol {
            0x00 => Ok(Self::None),
            0x11 => Ok(Self::V4),
            0x21 => Ok(Self::V6),
            // Datagrams, Unix sockets, and what is not defined.
            _ => Err(ProxyError::Family),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::V4 => 12,
            Self::V6 => 36,
        }
    }

    /// What the addresses say, and the bytes behind them.
    fn read(self, payload: &[u8]) -> Result<(Proxied, &[u8]), ProxyError> {
        match self {
            Self::None => Ok((Proxied::Local, payload)),
            Self::V4 => read_addresses::<4, Ipv4Addr>(payload),
            Self::V6 => read_addresses::<16, Ipv6Addr>(payload),
        }
    }
}

fn read_addresses<const N: usize, A>(payload: &[u8]) -> Result<(Proxied, &[u8]), ProxyError>
where
    A: From<[u8; N]>,
    SocketAddr: From<(A, u16)>,
{
    let read = || {
        let (source, rest) = payload.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (source_port, rest) = rest.split_first_chunk()?;
        let (destination_port, rest) = rest.split_first_chunk()?;
        let source = (A::from(*source), u16::from_be_bytes(*source_port)).into();
        let destination = (A::from(*destination), u16::from_be_bytes(*destination_port)).into();
        Some((Proxied::Client { source, destination }, rest))
    };
    read().ok_or(ProxyError::Length)
}

/// Walks the type-length-value entries from `start` to the end, and compares the checksum if there is one.
fn check_values(header: &[u8], start: usize) -> Result<(), ProxyError> {
    let mut at = start;
    let mut has_checksum = false;
    while at < header.len() {
        let (&[kind, high, low], rest) = header[at..].split_first_chunk().ok_or(ProxyError::Overrun)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(..length).ok_or(ProxyError::Overrun)?;
        at += 3;
        if kind == TLV_CRC32C {
            let stated: [u8; 4] = value.try_into().map_err(|_| ProxyError::Checksum)?;
            let sum = crc32c([&header[..at], &[0; 4], &header[at + 4..]]);
            if has_checksum || u32::from_be_bytes(stated) != sum {
                return Err(ProxyError::Checksum);
            }
            has_checksum = true;
        }
        at += length;
    }
    Ok(())
}

/// CRC-32C (Castagnoli), over parts as if they were one.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ CRC32C[usize::from(sum as u8 ^ byte)];
    !parts.into_iter().flatten().fold(u32::MAX, step)
}

const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parsed = Result<Option<(usize, Proxied)>, ProxyError>;

    /// The answer for all of it, after making sure that no prefix says anything else.
    #[track_caller]
    fn judge(bytes: &[u8]) -> Parsed {
        let whole = parse(bytes);
        for len in 0..bytes.len() {
            let part = parse(&bytes[..len]);
            assert!(part == Ok(None) || part == whole, "{part:?} after {len} of {}", bytes.escape_ascii());
        }
        whole
    }

    fn client(source: &str, destination: &str) -> Proxied {
        Proxied::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(version_and_command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [V2_START, &[version_and_command, family], &length, payload].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];

    #[test]
    fn version_1_names_the_client() {
        for (line, said) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", client("192.0.2.1:56324", "192.0.2.2:443")),
            ("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", client("[2001:db8::1]:0", "[::1]:65535")),
            (
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                client(
                    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                ),
            ),
            ("PROXY UNKNOWN\r\n", Proxied::Local),
            ("PROXY UNKNOWN ffff::1 ::1 junk\r\n", Proxied::Local),
        ] {
            assert_eq!(judge(line.as_bytes()), Ok(Some((line.len(), said))), "{line:?}");
            let with_request = format!("{line}GET / HTTP/1.1\r\n");
            assert_eq!(parse(with_request.as_bytes()), Ok(Some((line.len(), said))), "{line:?}");
        }
        for part in ["", "P", "PROXY", "PROXY TCP4 1", "PROXY UNKNOWN\r"] {
            assert_eq!(judge(part.as_bytes()), Ok(None), "{part:?}");
        }
    }

    #[test]
    fn version_1_is_exact() {
        let long = |len: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16));
        assert_eq!(judge(long(107).as_bytes()), Ok(Some((107, Proxied::Local))));
        assert_eq!(judge(long(108).as_bytes()), Err(ProxyError::TooLong));
        assert_eq!(judge(&long(500).as_bytes()[..107]), Err(ProxyError::TooLong));
        for (line, error) in [
            ("GET / HTTP/1.1\r\n", ProxyError::Missing),
            ("proxy TCP4", ProxyError::Missing),
            ("PROXX", ProxyError::Missing),
            ("PROXY\t", ProxyError::Missing),
            ("\u{16}\u{3}\u{1}", ProxyError::Missing),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", ProxyError::Line),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx", ProxyError::Line),
            ("PROXY TCP4\t192.0.2.1", ProxyError::Line),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", ProxyError::Line),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", ProxyError::Line),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", ProxyError::Line),
            ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", ProxyError::Address),
            ("PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", ProxyError::Address),
            ("PROXY \r\n", ProxyError::Line),
            ("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", ProxyError::Family),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", ProxyError::Family),
            ("PROXY unknown\r\n", ProxyError::Line),
            ("PROXY TCP4 2001:db8::1 ::1 1 2\r\n", ProxyError::Address),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", ProxyError::Address),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", ProxyError::Address),
            ("PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", ProxyError::Address),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", ProxyError::Address),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", ProxyError::Address),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", ProxyError::Address),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", ProxyError::Address),
        ] {
            assert_eq!(judge(line.as_bytes()), Err(error), "{line:?}");
        }
    }

    #[test]
    fn version_2_names_the_client() {
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0, 80, 1, 0xbb]].concat();
        let with_values = [&V4[..], &[1, 0, 2, b'h', b'2', 4, 0, 0]].concat();
        for (header, said) in [
            (v2(0x21, 0x11, &V4), client("192.0.2.1:56324", "192.0.2.2:443")),
            (v2(0x21, 0x21, &v6), client("[2001:db8::1]:80", "[::1]:443")),
            (v2(0x21, 0x11, &with_values), client("192.0.2.1:56324", "192.0.2.2:443")),
            (v2(0x21, 0x00, &[]), Proxied::Local),
            (v2(0x20, 0x00, &[]), Proxied::Local),
            (v2(0x20, 0x11, &V4), Proxied::Local),
            (v2(0x20, 0xff, b"junk"), Proxied::Local),
        ] {
            assert_eq!(judge(&header), Ok(Some((header.len(), said))), "{}", header.escape_ascii());
            assert_eq!(parse(&[&header[..], b"GET /"].concat()), Ok(Some((header.len(), said))));
        }
    }

    #[test]
    fn version_2_is_exact() {
        let behind_v4 = |values: &[u8]| v2(0x21, 0x11, &[&V4[..], values].concat());
        let mut too_long = v2(0x21, 0x11, &[]);
        too_long[14..16].copy_from_slice(&4081u16.to_be_bytes());
        for (header, error) in [
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), ProxyError::Missing),
            (b"\r\n\r\nGET / HTTP/1.1\r\n".to_vec(), ProxyError::Missing),
            (v2(0x11, 0x11, &V4), ProxyError::Version),
            (v2(0x31, 0x11, &V4), ProxyError::Version),
            (v2(0x22, 0x11, &V4), ProxyError::Command),
            (v2(0x21, 0x12, &V4), ProxyError::Family),
            (v2(0x21, 0x22, &V4), ProxyError::Family),
            (v2(0x21, 0x31, &[0; 216]), ProxyError::Family),
            (v2(0x21, 0x01, &[]), ProxyError::Family),
            (v2(0x21, 0x41, &V4), ProxyError::Family),
            (v2(0x21, 0x11, &V4[..11]), ProxyError::Length),
            (v2(0x21, 0x21, &V4), ProxyError::Length),
            (too_long, ProxyError::TooLong),
            (behind_v4(&[1]), ProxyError::Overrun),
            (behind_v4(&[1, 0]), ProxyError::Overrun),
            (behind_v4(&[1, 0, 1]), ProxyError::Overrun),
            (behind_v4(&[1, 0xff, 0xff, 0]), ProxyError::Overrun),
            (behind_v4(&[3, 0, 4, 0, 0, 0, 0]), ProxyError::Checksum),
            (behind_v4(&[3, 0, 1, 0]), ProxyError::Checksum),
            (v2(0x21, 0x00, &[1, 0, 9]), ProxyError::Overrun),
        ] {
            assert_eq!(judge(&header), Err(error), "{}", header.escape_ascii());
        }
    }

    #[test]
    fn a_checksum_is_compared() {
        assert_eq!(crc32c([b"1234", b"", b"56789"]), 0xe306_9283, "the check value of CRC-32C");
        let mut header = v2(0x21, 0x11, &[&V4[..], &[3, 0, 4, 0, 0, 0, 0, 4, 0, 1, 0]].concat());
        let at = V2_FIXED + V4.len() + 3;
        let sum = crc32c([&header, b"", b""]);
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        assert!(judge(&header).is_ok_and(|said| said.is_some()));
        header[17] ^= 1;
        assert_eq!(judge(&header), Err(ProxyError::Checksum));
    }

    proptest! {
        #[test]
        fn any_header_is_read_back(source: SocketAddr, destination: SocketAddr, rest: Vec<u8>) {
            let (protocol, is_same_family) = match source {
                SocketAddr::V4(_) => ("TCP4", destination.is_ipv4()),
                SocketAddr::V6(_) => ("TCP6", destination.is_ipv6()),
            };
            prop_assume!(is_same_family);
            let (from, to) = ((source.ip(), source.port()), (destination.ip(), destination.port()));
            let line = format!("PROXY {protocol} {} {} {} {}\r\n", from.0, to.0, from.1, to.1);
            let said = Proxied::Client { source: from.into(), destination: to.into() };
            let bytes = [line.as_bytes(), &rest].concat();
            prop_assert_eq!(judge(&bytes), Ok(Some((line.len(), said))));
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, begins_well: bool) {
            if begins_well {
                bytes.splice(..0, V2_START.iter().copied().chain([0x21, 0x11, 0]));
            }
            if let Ok(Some((len, _))) = judge(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
