//! Header lines (RFC 9112, 5): name, colon, value on one line; and names that could be taken for others.

use crate::ground::Ground;
use crate::suite::{Case, run};

const LINE: &str = "GET /headers HTTP/1.1";

/// A header line that must not pass, and why.
const BAD: &[(&str, &str, &str)] = &[
    ("no colon", "broken", "header_syntax"),
    ("no name", ": value", "header_syntax"),
    ("a colon alone", ":", "header_syntax"),
    ("a blank before the colon", "X-One : 1", "header_syntax"),
    ("a tab before the colon", "X-One\t: 1", "header_syntax"),
    ("a blank in the name", "X One: 1", "header_syntax"),
    ("a blank before the name", " X-One: 1", "header_syntax"),
    ("a tab before the name", "\tX-One: 1", "header_syntax"),
    ("a folded value", "X-One: 1\r\n 2", "header_syntax"),
    ("a value folded with a tab", "X-One: 1\r\n\t2", "header_syntax"),
    ("a value on the next line", "X-One:\r\n 1", "header_syntax"),
    ("a folded blank line", "X-One: 1\r\n \r\nX-Two: 2", "header_syntax"),
    ("Content-Length with a blank", "Content-Length : 0", "header_syntax"),
    ("Transfer-Encoding with a blank", "Transfer-Encoding : chunked", "header_syntax"),
    ("Transfer-Encoding with a tab", "Transfer-Encoding\t: chunked", "header_syntax"),
    ("a folded coding", "Transfer-Encoding:\r\n chunked", "header_syntax"),
    ("Host with a blank", "Host : b", "header_syntax"),
    ("a parenthesis in the name", "X(One): 1", "header_syntax"),
    ("a slash in the name", "X/One: 1", "header_syntax"),
    ("a bracket in the name", "X[One]: 1", "header_syntax"),
    ("a quote in the name", "\"X\": 1", "header_syntax"),
    ("an at sign in the name", "X@One: 1", "header_syntax"),
    ("a comma in the name", "X,One: 1", "header_syntax"),
    ("a semicolon in the name", "X;One: 1", "header_syntax"),
    ("an equals sign in the name", "X=One: 1", "header_syntax"),
    ("a backslash in the name", "X\\One: 1", "header_syntax"),
    ("braces in the name", "{X}: 1", "header_syntax"),
    ("beyond ASCII in the name", "X-\u{d6}ne: 1", "header_syntax"),
    ("DEL in the name", "X-\x7fOne: 1", "header_syntax"),
    ("a control in the name", "X-\x01One: 1", "header_syntax"),
    ("NUL in the name", "X-\0One: 1", "line_ending"),
    ("NUL in the value", "X-One: 1\x002", "line_ending"),
    ("NUL as the value", "X-One: \0", "line_ending"),
    ("CR in the value", "X-One: 1\r2", "line_ending"),
    ("CR and a header", "X-One: 1\rTransfer-Encoding: chunked", "line_ending"),
    ("LF and a header", "X-One: 1\nTransfer-Encoding: chunked", "line_ending"),
    ("LF and a request", "X-One: 1\n\nGET /smuggled HTTP/1.1", "line_ending"),
    ("a bell in the value", "X-One: \x07", "header_syntax"),
    ("a backspace in the value", "X-One: \x08", "header_syntax"),
    ("a vertical tab in the value", "X-One: 1\x0b2", "header_syntax"),
    ("a form feed in the value", "X-One: 1\x0c2", "header_syntax"),
    ("an escape sequence in the value", "X-One: \x1b[31m", "header_syntax"),
    ("DEL in the value", "X-One: \x7f", "header_syntax"),
    ("vertical tab before a coding", "Transfer-Encoding: \x0bchunked", "header_syntax"),
    ("vertical tab after a coding", "Transfer-Encoding: chunked\x0b", "header_syntax"),
    ("content_length", "Content_Length: 5", "framing"),
    ("transfer_encoding", "Transfer_Encoding: chunked", "framing"),
    ("content_length in capitals", "CONTENT_LENGTH: 5", "framing"),
    ("Connection names Content-Length", "Connection: content-length", "framing"),
    ("Connection names Transfer-Encoding", "Connection: close, Transfer-Encoding", "framing"),
    ("Connection names Host", "Connection: host", "framing"),
];

/// A header line that passes, and the value that the upstream sees.
const GOOD: &[(&str, &str, &str, &[&str])] = &[
    ("plain", "X-One: 1", "x-one", &["1"]),
    ("no blank", "X-One:1", "x-one", &["1"]),
    ("blanks around the value", "X-One: \t 1 \t ", "x-one", &["1"]),
    ("an empty value", "X-One:", "x-one", &[""]),
    ("blanks inside the value", "X-One: 1  2\t3", "x-one", &["1  2\t3"]),
    ("a colon in the value", "X-One: a: b", "x-one", &["a: b"]),
    ("all signs of a name", "!#$%&'*+-.^_`|~09az: 1", "!#$%&'*+-.^_`|~09az", &["1"]),
    ("beyond ASCII in the value", "X-One: caf\u{e9}", "x-one", &["caf\u{e9}"]),
    ("twice", "X-One: 1\r\nX-One: 2", "x-one", &["1", "2"]),
    ("an underscore of their own", "X_One: 1", "x_one", &["1"]),
    ("quotes", "X-One: \"a, b\"", "x-one", &["\"a, b\""]),
    ("what looks like markup", "X-One: <script>", "x-one", &["<script>"]),
    ("cookies", "Cookie: a=b; c=d", "cookie", &["a=b; c=d"]),
    ("Keep-Alive", "Keep-Alive: timeout=5", "keep-alive", &[]),
    ("Proxy-Connection", "Proxy-Connection: keep-alive", "proxy-connection", &[]),
    ("TE", "TE: trailers", "te", &[]),
    ("an expectation without a body", "Expect: 100-continue", "expect", &[]),
    ("a header that Connection names", "Connection: X-One\r\nX-One: 1", "x-one", &[]),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &(name, line, kind) in BAD {
        for (place, bytes) in [
            ("before Host", format!("{LINE}\r\n{line}\r\nHost: a\r\n\r\n")),
            ("after Host", format!("{LINE}\r\nHost: a\r\n{line}\r\n\r\n")),
        ] {
            // Another Host behind the bad one, and a line that is folded into the request line, are just as bad.
            cases.push(Case::refused(format!("{name}, {place}"), bytes, kind));
        }
        let bytes = format!("{LINE}\r\nHost: a\r\nX-Before: 1\r\n{line}\r\nX-After: 2\r\n\r\n");
        cases.push(
            Case::refused(format!("{name}, in the middle, TLS"), bytes, kind).over(crate::ground::Over::Tls),
        );
    }
    for &(name, line, header, values) in GOOD {
        let bytes = format!("{LINE}\r\nHost: a\r\n{line}\r\n\r\n");
        cases.extend(Case::served(name, bytes, LINE).header(header, values).and_over_tls());
    }
    for (name, line, closes) in [
        ("Connection: close", "Connection: close", true),
        ("Connection: Close", "Connection: Close", true),
        ("Connection: keep-alive", "Connection: keep-alive", false),
        ("Connection with a list", "Connection: close, X-One", true),
        ("Connection: x", "Connection: x", false),
        ("an empty Connection", "Connection:", false),
    ] {
        let bytes = format!("{LINE}\r\nHost: a\r\n{line}\r\n\r\n");
        let case = Case::served(name, bytes, LINE);
        cases.push(if closes { case.closing() } else { case });
    }
    for (method, header, values) in [
        ("GET", "connection", &["close"][..]),
        ("OPTIONS", "connection", &["close"]),
        ("POST", "connection", &[]),
    ] {
        let line = format!("{method} /headers HTTP/1.1");
        let bytes = format!("{line}\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        let case = Case::served(format!("{method} with a body"), bytes, &line);
        cases.push(case.body("hello").header(header, values));
    }
    let bytes = "POST /headers HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello";
    let case = Case::served("an expectation of HTTP/1.0", bytes, "POST /headers HTTP/1.1").body("hello");
    cases.push(case.header("expect", &[]).closing());
    for (name, line) in [
        ("Expect: 100-continued", "Expect: 100-continued"),
        ("Expect: 200-ok", "Expect: 200-ok"),
        ("Expect twice", "Expect: 100-continue\r\nExpect: 100-continue"),
        ("an empty Expect", "Expect:"),
        ("a list of expectations", "Expect: 100-continue, x"),
    ] {
        let bytes = format!("POST /headers HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{line}\r\n\r\nhello");
        cases.push(Case::refused(name, bytes, "bad_request").answers(&[417]));
    }
    cases
}

#[test]
fn a_header_is_a_name_and_a_value_on_one_line() {
    run("headers", &Ground::direct(), &cases());
}
