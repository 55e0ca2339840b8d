//! Listeners behind a load balancer that sends a PROXY header (version 1 and 2) before everything else.
//!
//! The rule: a whole header from a trusted peer, at once, or the connection is closed without a word and
//! recorded. Nothing is guessed. The source that it names is the peer from then on; LOCAL means the real one.

use std::time::Duration;

use crate::ground::Ground;
use crate::suite::{Case, Step, Who, run};

const REQUEST: &str = "GET /proxied HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.66\r\n\r\n";
const LINE: &str = "GET /proxied HTTP/1.1";

/// Version 2 with this command, family and payload.
fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    // The placeholders are longer or shorter than what they stand for.
    let shown = |name: &[u8]| payload.windows(name.len()).filter(|window| *window == name).count();
    let length = payload.len() + shown(b"@4@") + 13 * shown(b"@6@");
    v2_with_length(command, family, u16::try_from(length).unwrap(), payload)
}

fn v2_with_length(command: u8, family: u8, length: u16, payload: &[u8]) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length.to_be_bytes(), payload].concat()
}

/// From the case's client to 192.0.2.1, ports 5000 and 80.
const V4: &[u8] = b"@4@\xc0\x00\x02\x01\x13\x88\x00\x50";
/// The same in IPv6.
const V6: &[u8] = b"@6@\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x13\x88\x00\x50";

fn entry(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

fn good() -> Vec<(&'static str, Vec<u8>, Who)> {
    let v4_and = |more: &[u8]| v2(0x21, 0x11, &[V4, more].concat());
    vec![
        ("1, TCP4", b"PROXY TCP4 @CLIENT@ 192.0.2.1 5000 80\r\n".to_vec(), Who::Client),
        ("1, TCP6", b"PROXY TCP6 @CLIENT6@ 2001:db8::1 5000 443\r\n".to_vec(), Who::Client6),
        (
            "1, TCP6 with IPv4 inside",
            b"PROXY TCP6 ::ffff:@CLIENT@ ::ffff:192.0.2.1 5000 443\r\n".to_vec(),
            Who::Client,
        ),
        ("1, port 0", b"PROXY TCP4 @CLIENT@ 192.0.2.1 0 0\r\n".to_vec(), Who::Client),
        ("1, port 65535", b"PROXY TCP4 @CLIENT@ 192.0.2.1 65535 65535\r\n".to_vec(), Who::Client),
        ("2, IPv4", v2(0x21, 0x11, V4), Who::Client),
        ("2, IPv6", v2(0x21, 0x21, V6), Who::Client6),
        ("2, with a name", v4_and(&entry(2, b"a.example")), Who::Client),
        ("2, with an empty entry", v4_and(&entry(4, b"")), Who::Client),
        (
            "2, with several entries",
            v4_and(&[entry(1, b"h2"), entry(2, b"a"), entry(0x20, &[0; 16])].concat()),
            Who::Client,
        ),
        ("2, with 1,000 bytes of padding", v4_and(&entry(4, &[0; 1_000])), Who::Client),
        ("2, IPv6 with an entry", v2(0x21, 0x21, &[V6, &entry(2, b"a.example")].concat()), Who::Client6),
    ]
}

/// Headers that speak for the peer itself: it is trusted, so its X-Forwarded-For counts.
fn local() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("1, UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec()),
        ("1, UNKNOWN with addresses", b"PROXY UNKNOWN 192.0.2.9 192.0.2.1 5000 80\r\n".to_vec()),
        ("2, LOCAL", v2(0x20, 0x00, b"")),
        ("2, LOCAL with addresses", v2(0x20, 0x11, &[192, 0, 2, 9, 192, 0, 2, 1, 0x13, 0x88, 0, 80])),
        ("2, LOCAL with a payload", v2(0x20, 0x00, &[1; 40])),
        ("2, unspecified", v2(0x21, 0x00, b"")),
    ]
}

fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let line = |line: &str| line.as_bytes().to_vec();
    let long = |bytes: usize| {
        let (start, end) = ("PROXY TCP4 192.0.2.9 192.0.2.1 5000 80", "\r\n");
        format!("{start}{}{end}", " ".repeat(bytes - start.len() - end.len())).into_bytes()
    };
    let mut bad = vec![
        ("a request", REQUEST.as_bytes().to_vec()),
        ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("an empty line", line("\r\nPROXY TCP4 192.0.2.9 192.0.2.1 5000 80\r\n")),
        ("1, lower case", line("proxy TCP4 192.0.2.9 192.0.2.1 5000 80\r\n")),
        ("1, two blanks", line("PROXY  TCP4 192.0.2.9 192.0.2.1 5000 80\r\n")),
        ("1, a tab", line("PROXY\tTCP4 192.0.2.9 192.0.2.1 5000 80\r\n")),
        ("1, no protocol", line("PROXY 192.0.2.9 192.0.2.1 5000 80\r\n")),
        ("1, nothing", line("PROXY\r\n")),
        ("1, TCP", line("PROXY TCP 192.0.2.9 192.0.2.1 5000 80\r\n")),
        ("1, UDP4", line("PROXY UDP4 192.0.2.9 192.0.2.1 5000 80\r\n")),
        ("1, UNIX", line("PROXY UNIX /a /b\r\n")),
        ("1, TCP4 with IPv6", line("PROXY TCP4 2001:db8::9 2001:db8::1 5000 80\r\n")),
        ("1, TCP6 with IPv4", line("PROXY TCP6 192.0.2.9 192.0.2.1 5000 80\r\n")),
        ("1, an address too large", line("PROXY TCP4 192.0.2.999 192.0.2.1 5000 80\r\n")),
        ("1, octal digits", line("PROXY TCP4 0300.0.2.9 192.0.2.1 5000 80\r\n")),
        ("1, a short address", line("PROXY TCP4 192.0.9 192.0.2.1 5000 80\r\n")),
        ("1, a name", line("PROXY TCP4 localhost 192.0.2.1 5000 80\r\n")),
        ("1, a prefix", line("PROXY TCP4 192.0.2.0/24 192.0.2.1 5000 80\r\n")),
        ("1, brackets", line("PROXY TCP6 [2001:db8::9] 2001:db8::1 5000 80\r\n")),
        ("1, a port too large", line("PROXY TCP4 192.0.2.9 192.0.2.1 65536 80\r\n")),
        ("1, a negative port", line("PROXY TCP4 192.0.2.9 192.0.2.1 -1 80\r\n")),
        ("1, a port with a sign", line("PROXY TCP4 192.0.2.9 192.0.2.1 +5000 80\r\n")),
        ("1, a port with zeros", line("PROXY TCP4 192.0.2.9 192.0.2.1 05000 80\r\n")),
        ("1, a port of words", line("PROXY TCP4 192.0.2.9 192.0.2.1 http 80\r\n")),
        ("1, one port", line("PROXY TCP4 192.0.2.9 192.0.2.1 5000\r\n")),
        ("1, one address", line("PROXY TCP4 192.0.2.9 5000 80\r\n")),
        ("1, a word more", line("PROXY TCP4 192.0.2.9 192.0.2.1 5000 80 x\r\n")),
        ("1, a blank at the end", line("PROXY TCP4 192.0.2.9 192.0.2.1 5000 80 \r\n")),
        ("1, LF alone", line("PROXY TCP4 192.0.2.9 192.0.2.1 5000 80\n")),
        ("1, CR alone", line("PROXY TCP4 192.0.2.9 192.0.2.1 5000 80\rGET")),
        ("1, NUL", line("PROXY TCP4 192.0.2.9 192.0.2.1 5000 80\0\r\n")),
        ("1, beyond ASCII", line("PROXY TCP4 192.0.2.\u{669} 192.0.2.1 5000 80\r\n")),
        ("1, 107 bytes, padded", long(107)),
        ("1, 108 bytes", long(108)),
        ("1, 1,000 bytes", long(1_000)),
        ("1, UNKNOWN of 120 bytes", format!("PROXY UNKNOWN {}\r\n", "x".repeat(104)).into_bytes()),
        ("1, twice", line("PROXY PROXY TCP4 192.0.2.9 192.0.2.1 5000 80\r\n")),
        ("2, version 1", v2(0x11, 0x11, V4)),
        ("2, version 3", v2(0x31, 0x11, V4)),
        ("2, version 0", v2(0x01, 0x11, V4)),
        ("2, command 2", v2(0x22, 0x11, V4)),
        ("2, command 15", v2(0x2f, 0x11, V4)),
        ("2, UDP over IPv4", v2(0x21, 0x12, V4)),
        ("2, UDP over IPv6", v2(0x21, 0x22, V6)),
        ("2, a Unix socket", v2(0x21, 0x31, &[0; 216])),
        ("2, a Unix datagram", v2(0x21, 0x32, &[0; 216])),
        ("2, family 4", v2(0x21, 0x41, V4)),
        ("2, family 15", v2(0x21, 0xf1, V4)),
        ("2, protocol 3", v2(0x21, 0x13, V4)),
        ("2, IPv4 without addresses", v2(0x21, 0x11, b"")),
        ("2, IPv4 with half an address", v2(0x21, 0x11, &[192, 0])),
        ("2, IPv4 without ports", v2(0x21, 0x11, &[192, 0, 2, 9, 192, 0, 2, 1])),
        ("2, IPv6 with the length of IPv4", v2(0x21, 0x21, V4)),
        ("2, an entry that ends early", v2(0x21, 0x11, &[V4, &[2, 0]].concat())),
        ("2, an entry beyond the end", v2(0x21, 0x11, &[V4, &[2, 0, 9, b'a']].concat())),
        ("2, an entry of 64 KB", v2(0x21, 0x11, &[V4, &[2, 0xff, 0xff, b'a']].concat())),
        ("2, a second entry beyond the end", v2(0x21, 0x11, &[V4, &entry(2, b"a"), &[4, 0, 9]].concat())),
        ("2, a wrong checksum", v2(0x21, 0x11, &[V4, &entry(3, &[1, 2, 3, 4])].concat())),
        ("2, a checksum of 3 bytes", v2(0x21, 0x11, &[V4, &entry(3, &[1, 2, 3])].concat())),
        ("2, 64 KB", v2_with_length(0x21, 0x11, u16::MAX, V4)),
        ("2, a wrong signature", b"\r\n\r\n\0\r\nQUIZ\n\x21\x11\0\x0c".to_vec()),
        ("2, a signature with LF", b"\n\n\0\nQUIT\n\x21\x11\0\x0c".to_vec()),
    ];
    bad.dedup_by(|one, other| one.0 == other.0);
    bad
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let refused = |name: String, bytes: &[u8]| {
        Case::refused(name, "", "proxy_protocol").steps(Vec::new()).behind(bytes).answers(&[])
    };
    for (name, header, who) in good() {
        let case = Case::served(name, REQUEST, LINE).behind(&header).who(who);
        cases.extend(case.and_over_tls());
        let stranger = refused(format!("{name}, from a stranger"), &header).by_stranger();
        cases.extend(stranger.and_over_tls());
        let steps = [&header[..], REQUEST.as_bytes()].concat();
        // A placeholder must not be cut in two.
        let at = header.iter().position(|&b| b == b'@').unwrap_or(3);
        let pieces = vec![
            Step::Send(steps[..at].to_vec()),
            Step::Pause(Duration::from_millis(30)),
            Step::Send(steps[at..].to_vec()),
        ];
        cases.push(Case::served(format!("{name}, in two pieces"), "", LINE).steps(pieces).who(who));
    }
    for (name, header) in local() {
        let request = REQUEST.replace("203.0.113.66", "@CLIENT@");
        let case = Case::served(name, &request, LINE).behind(&header).who(Who::Client);
        cases.extend(case.and_over_tls());
        let plain = Case::served(
            format!("{name}, without a word of its own"),
            "GET /proxied HTTP/1.1\r\nHost: a\r\n\r\n",
            LINE,
        );
        cases.push(plain.behind(&header));
        cases.push(refused(format!("{name}, from a stranger"), &header).by_stranger());
    }
    for (name, header) in bad() {
        let with_request = [&header[..], REQUEST.as_bytes()].concat();
        cases.push(refused(name.to_owned(), &with_request));
        cases.push(refused(format!("{name}, TLS"), &header).over(crate::ground::Over::Tls));
        cases.push(refused(format!("{name}, from a stranger"), &with_request).by_stranger());
    }
    // A second header is no request.
    let twice = "PROXY TCP4 @CLIENT@ 192.0.2.1 5000 80\r\n".repeat(2);
    cases.push(Case::refused("two headers", REQUEST, "target").behind(twice).who(Who::Client));
    let hop = "PROXY TCP4 @HOP@ 192.0.2.1 5000 80\r\n";
    let request = REQUEST.replace("203.0.113.66", "@CLIENT@");
    cases.push(Case::served("a source that is trusted itself", request, LINE).behind(hop).who(Who::Client));
    let blocked =
        Case::served("a blocked source", REQUEST, LINE).behind("PROXY TCP4 @BLOCKED@ 192.0.2.1 5000 80\r\n");
    cases.push(blocked.who(Who::Blocked).blocked());
    // What does not come at once does not come.
    let dripping = |name: &str, header: &[u8], every: u64| {
        let bytes = header
            .iter()
            .flat_map(|&byte| [Step::Send(vec![byte]), Step::Pause(Duration::from_millis(every))]);
        refused(name.to_owned(), b"").steps(bytes.take(40).collect())
    };
    cases.push(dripping("1, a byte every 300 ms", b"PROXY TCP4 192.0.2.9 192.0.2.1 5000 80\r\n", 300));
    cases.push(dripping(
        "2, a byte every 300 ms",
        &v2(0x21, 0x11, &[192, 0, 2, 9, 192, 0, 2, 1, 0x13, 0x88, 0, 80]),
        300,
    ));
    for (name, half) in [
        ("1, the half of it", &b"PROXY TCP4 192.0.2.9"[..]),
        ("2, the half of it", b"\r\n\r\n\0\r\nQU"),
        ("one byte", b"P"),
    ] {
        cases.push(refused(format!("{name}, then silence"), half));
        cases.push(refused(format!("{name}, then the end"), half).then(Step::Finish));
    }
    cases
}

#[test]
fn a_proxy_header_is_whole_and_from_a_trusted_peer_or_the_connection_ends() {
    let trusted = "trusted_proxies = [\"127.9.0.0/16\", \"10.0.0.0/8\"]\nproxy_protocol = [\"127.0.0.1:0\"]";
    let block = "[[block]]\nnetwork = \"198.19.0.0/16\"\nreason = \"test\"";
    run("proxy header", &Ground::with(|config| config.server(trusted).section(block)), &cases());
}
