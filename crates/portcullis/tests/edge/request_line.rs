//! Method, blanks and version of the request line (RFC 9112, 3), and bytes that are no request at all.

use crate::ground::Ground;
use crate::suite::{Case, Step, run};

/// A method that is forwarded as it is.
const METHODS: &[&str] = &[
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "PROPFIND",
    "REPORT",
    "M-SEARCH",
    "BASELINE-CONTROL",
    "PURGE",
    "X1",
    "A",
];

/// A request line and as what it is refused.
const BAD_LINES: &[(&str, &str, u16, &str)] = &[
    ("a lower-case method", "get /line HTTP/1.1", 400, "bad_request"),
    ("a mixed method", "Get /line HTTP/1.1", 400, "bad_request"),
    ("a method with a slash", "GE/T /line HTTP/1.1", 400, "bad_request"),
    ("a method with a colon", "GET: /line HTTP/1.1", 400, "bad_request"),
    ("a method in brackets", "<GET> /line HTTP/1.1", 400, "bad_request"),
    ("a method beyond ASCII", "G\u{c9}T /line HTTP/1.1", 400, "bad_request"),
    ("a method with DEL", "GE\x7fT /line HTTP/1.1", 400, "bad_request"),
    ("a digit first", "1GET /line HTTP/1.1", 400, "bad_request"),
    ("a very long method", "GETGETGETGETGETGETGETGETGETGETGETGETGETGET /line HTTP/1.1", 400, "bad_request"),
    ("no method", " /line HTTP/1.1", 400, "bad_request"),
    ("no target", "GET HTTP/1.1", 400, "bad_request"),
    ("an empty target", "GET  HTTP/1.1", 400, "target"),
    ("nothing but a method", "GET", 400, "bad_request"),
    ("a method and a blank", "GET ", 400, "bad_request"),
    ("two blanks after the method", "GET  /line HTTP/1.1", 400, "target"),
    ("two blanks before the version", "GET /line  HTTP/1.1", 400, "target"),
    ("a blank at the end", "GET /line HTTP/1.1 ", 400, "target"),
    ("tabs for blanks", "GET\t/line\tHTTP/1.1", 400, "bad_request"),
    ("a tab after the target", "GET /line\tHTTP/1.1", 400, "target"),
    ("a word more", "GET /line HTTP/1.1 x", 400, "target"),
    ("a blank in the target", "GET /li ne HTTP/1.1", 400, "target"),
    ("a blank in the query", "GET /line?a b HTTP/1.1", 400, "target"),
    ("HTTP/0.9", "GET /line", 400, "bad_request"),
    ("HTTP/0.9, said", "GET /line HTTP/0.9", 505, "bad_request"),
    ("HTTP/1.2", "GET /line HTTP/1.2", 505, "bad_request"),
    ("HTTP/1.9", "GET /line HTTP/1.9", 505, "bad_request"),
    ("HTTP/2.0", "GET /line HTTP/2.0", 505, "bad_request"),
    ("HTTP/3.0", "GET /line HTTP/3.0", 505, "bad_request"),
    ("HTTP/9.9", "GET /line HTTP/9.9", 505, "bad_request"),
    ("HTTP/1", "GET /line HTTP/1", 400, "bad_request"),
    ("HTTP/1.", "GET /line HTTP/1.", 400, "bad_request"),
    ("HTTP/1.10", "GET /line HTTP/1.10", 400, "bad_request"),
    ("HTTP/1.01", "GET /line HTTP/1.01", 400, "bad_request"),
    ("HTTP/01.1", "GET /line HTTP/01.1", 400, "bad_request"),
    ("HTTP/+1.1", "GET /line HTTP/+1.1", 400, "bad_request"),
    ("HTTP 1.1", "GET /line HTTP 1.1", 400, "target"),
    ("http/1.1", "GET /line http/1.1", 400, "bad_request"),
    ("HTTPS/1.1", "GET /line HTTPS/1.1", 400, "bad_request"),
    ("ICAP/1.0", "GET /line ICAP/1.0", 400, "bad_request"),
    ("RTSP/1.0", "DESCRIBE /line RTSP/1.0", 400, "bad_request"),
    ("SIP/2.0", "OPTIONS sip:a SIP/2.0", 400, "bad_request"),
    ("NUL in the method", "GE\0T /line HTTP/1.1", 400, "line_ending"),
    ("NUL in the target", "GET /li\0ne HTTP/1.1", 400, "line_ending"),
    ("NUL in the version", "GET /line HTTP/1.1\0", 400, "line_ending"),
    ("an escape sequence", "GET /\x1b[2J HTTP/1.1", 400, "target"),
    ("CONNECT", "CONNECT a.example:443 HTTP/1.1", 405, "method"),
    ("CONNECT to a path", "CONNECT /line HTTP/1.1", 405, "method"),
    ("CONNECT by 1.0", "CONNECT a.example:443 HTTP/1.0", 405, "method"),
];

/// What other protocols say first.
const OTHER: &[(&str, &[u8], &str)] = &[
    ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "bad_request"),
    ("an SSL 2 handshake", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", "bad_request"),
    ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", "bad_request"),
    ("SMTP", b"EHLO a.example\r\n", "bad_request"),
    ("Redis", b"*1\r\n$4\r\nPING\r\n", "bad_request"),
    ("SOCKS 5", b"\x05\x01\x00", "bad_request"),
    ("SOCKS 4", b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "bad_request"),
    ("RDP", b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00", "bad_request"),
    ("SMB", b"\x00\x00\x00\x85\xffSMBr\x00\x00\x00\x00", "line_ending"),
    ("a database", b"\x3a\x00\x00\x00\xa7\x41\x00\x00", "bad_request"),
    ("MQTT", b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test", "bad_request"),
    ("zeros", &[0; 64], "line_ending"),
    ("words", b"this is no request\r\n\r\n", "bad_request"),
    (
        "a PROXY line on a plain listener",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "target",
    ),
    (
        "a binary PROXY header on a plain listener",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02",
        "bad_request",
    ),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in METHODS {
        let line = format!("{method} /line HTTP/1.1");
        cases.push(Case::served(*method, format!("{line}\r\nHost: a\r\n\r\n"), &line));
    }
    let head = "HEAD /line HTTP/1.1";
    cases.push(Case::served("HEAD", format!("{head}\r\nHost: a\r\n\r\n"), head));
    cases.push(
        Case::served("HTTP/1.0", "GET /line HTTP/1.0\r\nHost: a\r\n\r\n", "GET /line HTTP/1.1").closing(),
    );
    let no_host = Case::served("HTTP/1.0 without Host", "GET /line HTTP/1.0\r\n\r\n", "GET /line HTTP/1.1");
    cases.push(no_host.closing());
    let old = "GET /line HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    cases.push(Case::served("HTTP/1.0 with keep-alive", old, "GET /line HTTP/1.1").either_end());
    for &(name, line, status, kind) in BAD_LINES {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        cases.extend(Case::refused(name, bytes, kind).answers(&[status]).and_over_tls());
    }
    for &(name, bytes, kind) in OTHER {
        cases.push(Case::refused(name, bytes, kind));
    }
    // HTTP/2 without TLS is not spoken.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    cases.push(Case::refused("HTTP/2 on a plain listener", preface, "bad_request").answers(&[505]));
    cases.push(
        Case::refused("HTTP/2 where HTTP/1.1 was agreed on", preface, "bad_request")
            .answers(&[505])
            .over(crate::ground::Over::Tls),
    );
    // Half of a head, and then an end or a reset.
    for (name, half) in [
        ("half a method", "GE"),
        ("half a request line", "GET /half"),
        ("a whole request line", "GET /half HTTP/1.1\r\n"),
        ("half a header", "GET /half HTTP/1.1\r\nHos"),
        ("all but the empty line", "GET /half HTTP/1.1\r\nHost: a\r\n"),
        ("all but the last byte", "GET /half HTTP/1.1\r\nHost: a\r\n\r"),
    ] {
        let ended =
            Case::refused(format!("{name}, then the end"), half, "incomplete_head").then(Step::Finish);
        cases.extend(ended.answers(&[]).or_answers(&[400]).or_answers(&[408]).and_over_tls());
        let reset = Case::refused(format!("{name}, then a reset"), half, "incomplete_head")
            .then(Step::Pause(std::time::Duration::from_millis(50)))
            .then(Step::Reset);
        cases.push(reset.answers(&[]));
    }
    cases
}

#[test]
fn a_request_line_has_one_form() {
    run("request line", &Ground::direct(), &cases());
}
