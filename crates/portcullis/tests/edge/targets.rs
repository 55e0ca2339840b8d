//! Request targets (RFC 9112, 3.2; RFC 3986): which are refused, and that the others are forwarded untouched.
//!
//! The rule: a path that a server could split, cut or decode in another way than the rules did is refused. The
//! query is not judged, but for bytes that end a target. What the rules match is the normal form; what is
//! forwarded is what came.

use crate::ground::{Ground, Over};
use crate::suite::{Case, run};

/// Forwarded as they are.
const GOOD: &[&str] = &[
    // The gateway's own pages are on a listener of their own; here they are the site's.
    "/metrics",
    "/healthz",
    "/readyz",
    "/",
    "//",
    "///a",
    "//login",
    "/login//",
    "/./login",
    "/login/.",
    "/x/../login",
    "/x/..",
    "/../login",
    "/..",
    "/../../etc/passwd",
    "/%6cogin",
    "/%6Cogin",
    "/LOGIN",
    "/login;a=1",
    "/login;a=1/b",
    "/login/",
    "/login?",
    "/login?a",
    "/login?a=1&b=2",
    "/login??",
    "/login?/../x",
    "/login?a%2fb",
    "/login?a%00b",
    "/login?a%ff",
    "/login?%",
    "/login?%zz",
    "/login?a\\b",
    "/login?[]{}|^",
    "/%252e",
    "/%252f",
    "/%255c",
    "/%2e/login",
    "/%2e%2e/login",
    "/.%2e/login",
    "/%2E",
    "/%20",
    "/a%20b",
    "/a+b",
    "/a%2Bb",
    "/%23",
    "/%3f",
    "/%3F",
    "/%25",
    "/%3b",
    "/%40",
    "/%7e",
    "/~",
    "/caf%C3%A9",
    "/caf%c3%a9",
    "/\u{e9}",
    "/%E2%80%AE",
    "/%F0%9F%98%80",
    "/a:b",
    "/a@b",
    "/a,b",
    "/a=b",
    "/a&b",
    "/a'b",
    "/a!b",
    "/a$b",
    "/a(b)",
    "/a*b",
    "/a[b]",
    "/a{b}",
    "/a|b",
    "/a^b",
    "/a\"b",
    "/.git/config",
    "/.env",
    "/wp-login.php",
    "/a.php/b",
    "/a;page=1",
    "/index.php?a[]=1",
    "/http://b.example/",
    "/*",
    "/:80",
    "/@b.example",
    "/?a",
    "/a/b/c/d/e/f/g/h",
    "/CON",
    "/a...b",
    "/...",
];

/// No URI at all by RFC 3986, and nothing that browsers send: refused, by the first that notices.
const ODD: &[&str] = &["/a`b", "/a<b>", "/login?<script>", "/login?a=\"b\""];

/// Refused, and as what.
const BAD: &[(&str, &str)] = &[
    ("an escaped slash", "/login%2f"),
    ("an escaped slash in capitals", "/login%2Fadmin"),
    ("an escaped slash first", "/%2flogin"),
    ("an escaped slash in dot segments", "/x/..%2flogin"),
    ("an escaped backslash", "/login%5c"),
    ("an escaped backslash in capitals", "/login%5Cadmin"),
    ("an escaped NUL", "/login%00"),
    ("an escaped NUL and an extension", "/login%00.png"),
    ("an escaped NUL alone", "/%00"),
    ("an escaped CR LF", "/login%0d%0aX-One:1"),
    ("an escaped LF", "/login%0a"),
    ("an escaped tab", "/login%09"),
    ("an escaped control", "/login%01"),
    ("an escaped escape sequence", "/%1b[2J"),
    ("an escaped DEL", "/login%7f"),
    ("a backslash", "/login\\"),
    ("a backslash first", "\\login"),
    ("a backslash second", "/\\login"),
    ("dot segments with backslashes", "/x\\..\\login"),
    ("an escape that ends early", "/login%"),
    ("an escape of one digit", "/login%2"),
    ("an escape without digits", "/login%zz"),
    ("an escape of Microsoft's", "/login%u002f"),
    ("an escaped percent sign short of digits", "/%%32f"),
    ("a slash in overlong UTF-8", "/%c0%af"),
    ("a dot in overlong UTF-8", "/%c0%ae%c0%ae/login"),
    ("three bytes too long", "/%e0%80%af"),
    ("a lone continuation", "/%80"),
    ("a sequence that ends early", "/%e2%82"),
    ("a surrogate", "/%ed%a0%80"),
    ("beyond Unicode", "/%f4%90%80%80"),
    ("0xff", "/%ff"),
    ("0xfe 0xff", "/%fe%ff"),
    ("Latin 1", "/caf%e9"),
    ("a fragment", "/login#a"),
    ("a fragment alone", "/#"),
    ("a fragment in the query", "/login?a#b"),
    ("a blank", "/log in"),
    ("a tab", "/log\tin"),
    ("a control", "/log\x01in"),
    ("DEL", "/log\x7fin"),
    ("a tab in the query", "/login?a\tb"),
    ("DEL in the query", "/login?\x7f"),
    ("no slash", "login"),
    ("a dot", "."),
    ("dots", "../login"),
    ("a query alone", "?a"),
    ("a star for GET", "*"),
    ("a star and a path", "*/login"),
    ("a host alone", "a.example"),
    ("a host and a port", "a.example:80"),
    ("another scheme", "ftp://a.example/"),
    ("file", "file:///etc/passwd"),
    ("gopher", "gopher://a.example/"),
    ("javascript", "javascript:alert(1)"),
    ("ws", "ws://a.example/"),
    ("http without slashes", "http:a.example"),
    ("http with one slash", "http:/a.example/"),
    ("a semicolon first", ";/login"),
    ("a percent sign first", "%2flogin"),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &target in GOOD {
        let line = format!("GET {target} HTTP/1.1");
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        let case = Case::served(target, format!("{line}\r\nHost: a\r\n\r\n"), &line).path(path);
        cases.extend(case.and_over_tls());
    }
    let star = "OPTIONS * HTTP/1.1";
    cases.push(Case::served("a star for OPTIONS", format!("{star}\r\nHost: a\r\n\r\n"), star));
    for target in ODD {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        cases.push(Case::refused(*target, bytes, "target").or_reason("malformed:bad_request"));
    }
    for &(name, target) in BAD {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        cases.extend(Case::refused(name, bytes, "target").and_over_tls());
        if target.starts_with('/') {
            let bytes = format!("POST http://a{target} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
            cases.push(Case::refused(format!("{name}, absolute"), bytes, "target"));
        }
    }
    for (name, bytes) in [
        ("a lone byte of UTF-8", &b"GET /caf\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        ("an overlong slash", b"GET /a\xc0\xafb HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("0xff in the path", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("half escaped UTF-8", b"GET /\xc3%a9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        cases.push(Case::refused(name, bytes, "target").over(Over::Tls));
        cases.push(Case::refused(format!("{name}, plain"), bytes, "target"));
    }
    cases
}

#[test]
fn a_target_is_refused_or_forwarded_as_it_came() {
    run("targets", &Ground::direct(), &cases());
}
