//! Whom a request is for (RFC 9112, 3.2): Host and the authority of an absolute-form target.
//!
//! The rule: HTTP/1.1 has exactly one valid Host, HTTP/1.0 one or none; an authority in the target says the
//! same, to the letter: no client that sends one writes its Host in another way. The upstream gets the path alone and the Host as it came.

use crate::ground::Ground;
use crate::suite::{Case, run};

/// A Host that is one: as sent.
const GOOD: &[&str] = &[
    "a",
    "A",
    "a.example",
    "A.Example",
    "a.example.",
    "a.example:80",
    "a.example:8080",
    "a.example:",
    "192.0.2.1",
    "192.0.2.1:80",
    "[::1]",
    "[2001:db8::1]",
    "[2001:db8::1]:8080",
    "[::ffff:192.0.2.1]",
    "xn--bcher-kva.example",
    "a_b",
    "a-b",
    "1",
    "localhost",
];

/// A Host that is none.
const BAD: &[(&str, &str)] = &[
    ("empty", ""),
    ("a port alone", ":80"),
    ("a user", "user@a"),
    ("a user and a password", "user:pass@a"),
    ("a path", "a/b"),
    ("a slash at the end", "a/"),
    ("a scheme", "http://a"),
    ("a query", "a?b"),
    ("a fragment", "a#b"),
    ("a backslash", "a\\b"),
    ("a blank inside", "a b"),
    ("a tab inside", "a\tb"),
    ("two, with a comma", "a, b"),
    ("two, with a semicolon", "a;b"),
    ("markup", "a\"<script>"),
    ("dot segments", "a/../b"),
    ("a quote", "\"a\""),
    ("an apostrophe", "a'or'1"),
    ("an ampersand", "a&b"),
    ("a percent escape", "a%2eb"),
    ("a wildcard", "*.a"),
    ("beyond ASCII", "b\u{fc}cher.example"),
    ("a name as a port", "a:http"),
    ("a port too large", "a:65536"),
    ("a port much too large", "a:4294967376"),
    ("two ports", "a:80:80"),
    ("a negative port", "a:-80"),
    ("a port with a sign", "a:+80"),
    ("an IPv6 address without brackets", "2001:db8::1"),
    ("an open bracket", "[::1"),
    ("a closed bracket", "::1]"),
    ("a name in brackets", "[a]"),
    ("an IPv4 address in brackets", "[192.0.2.1]"),
    ("an address with a zone", "[fe80::1%25eth0]"),
    ("text after the bracket", "[::1]a"),
    ("a brace", "{a}"),
    ("a dollar", "${jndi:ldap://a}"),
];

/// A target, a Host, and whether they are the same place; the path that is forwarded.
const ABSOLUTE: &[(&str, &str, bool, &str)] = &[
    ("http://a.example/abs", "a.example", true, "/abs"),
    ("HTTP://a.example/abs", "a.example", true, "/abs"),
    ("http://A.Example/abs", "a.example", false, ""),
    ("http://a.example/abs", "A.EXAMPLE", false, ""),
    ("http://a.example:80/abs", "a.example", false, ""),
    ("http://a.example/abs", "a.example:80", false, ""),
    ("https://a.example:443/abs", "a.example", false, ""),
    ("http://a.example:8080/abs", "a.example:8080", true, "/abs"),
    ("http://a.example/abs?x=http://b/", "a.example", true, "/abs?x=http://b/"),
    ("http://[2001:db8::1]/abs", "[2001:db8::1]", true, "/abs"),
    ("http://a.example//abs", "a.example", true, "//abs"),
    ("http://a.example/", "a.example", true, "/"),
    ("http://a.example", "a.example", true, "/"),
    ("http://a.example?x=1", "a.example", true, "/?x=1"),
    ("http://b.example/abs", "a.example", false, ""),
    ("http://a.example:8080/abs", "a.example", false, ""),
    ("http://a.example/abs", "a.example:8080", false, ""),
    ("http://a.example:443/abs", "a.example", false, ""),
    ("http://a.example:81/abs", "a.example:82", false, ""),
    ("http://a.example.b/abs", "a.example", false, ""),
    ("http://user@a.example/abs", "a.example", false, ""),
    ("http://a.example@b.example/abs", "b.example", false, ""),
    ("http:///abs", "a.example", false, ""),
    ("http://:80/abs", "a.example", false, ""),
    ("http://a.example:x/abs", "a.example", false, ""),
    ("http://a.example,b.example/abs", "a.example", false, ""),
    ("http://[::1/abs", "[::1]", false, ""),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &host in GOOD {
        let bytes = format!("GET /host HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let case =
            Case::served(format!("Host {host:?}"), bytes, "GET /host HTTP/1.1").header("host", &[host]);
        cases.extend(case.header("x-forwarded-host", &[host]).and_over_tls());
        let old = format!("GET /host HTTP/1.0\r\nHost: {host}\r\n\r\n");
        let case = Case::served(format!("Host {host:?}, 1.0"), old, "GET /host HTTP/1.1");
        cases.push(case.header("host", &[host]).closing());
    }
    for &(name, host) in BAD {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let bytes = format!("GET /host {version}\r\nHost: {host}\r\n\r\n");
            cases.push(Case::refused(format!("{name}, {version}"), bytes, "host"));
        }
        let absolute = format!("GET http://a/abs HTTP/1.1\r\nHost: {host}\r\n\r\n");
        cases.push(Case::refused(format!("{name}, beside a good authority"), absolute, "host"));
    }
    for &(target, host, is_same, path) in ABSOLUTE {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let name = format!("{target} with Host {host}");
        let case = match is_same {
            true => Case::served(name, bytes, &format!("GET {path} HTTP/1.1")),
            false => Case::refused(name, bytes, "host"),
        };
        cases.extend(case.and_over_tls());
    }
    for (name, lines) in [
        ("no Host", ""),
        ("two of the same", "Host: a\r\nHost: a\r\n"),
        ("two different", "Host: a\r\nHost: b\r\n"),
        ("two, not side by side", "Host: a\r\nX-Between: 1\r\nHost: b\r\n"),
        ("two, one empty", "Host: a\r\nHost:\r\n"),
        ("two, in other cases", "host: a\r\nHOST: a\r\n"),
    ] {
        let bytes = format!("GET /host HTTP/1.1\r\n{lines}\r\n");
        cases.extend(Case::refused(name, bytes, "host").and_over_tls());
        let absolute = format!("GET http://a/abs HTTP/1.1\r\n{lines}\r\n");
        cases.push(Case::refused(format!("{name}, beside an authority"), absolute, "host"));
    }
    let two = "GET /host HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n";
    cases.push(Case::refused("two different, 1.0", two, "host"));
    for (name, line) in [
        ("a blank before it", "Host:  a"),
        ("none before it", "Host:a"),
        ("blanks around it", "Host: \t a \t "),
    ] {
        let bytes = format!("GET /host HTTP/1.1\r\n{line}\r\n\r\n");
        cases.push(Case::served(name, bytes, "GET /host HTTP/1.1").header("host", &["a"]));
    }
    cases
}

#[test]
fn a_request_is_for_one_host() {
    run("host", &Ground::direct(), &cases());
}
