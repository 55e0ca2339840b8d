//! Request heads: what is taken and what is refused, with which answer, and that splits make no difference.

use portcullis_model::MalformedKind;
use portcullis_wire::{Framing, Head, HeadError, HeadLimits, scan};
use proptest::prelude::*;

const LIMITS: HeadLimits =
    HeadLimits { max_bytes: 32 * 1024, max_headers: 100, max_target: 8 * 1024, escaped_slashes: false };

/// The answer for the whole head, after making sure that one byte at a time leads to the same.
fn judge(head: &[u8]) -> Result<Option<Head>, HeadError> {
    let whole = scan(head, 0, &LIMITS);
    assert_eq!(byte_by_byte(head, &LIMITS), whole, "one byte at a time: {}", head.escape_ascii());
    whole
}

fn byte_by_byte(head: &[u8], limits: &HeadLimits) -> Result<Option<Head>, HeadError> {
    for len in 1..=head.len() {
        let so_far = scan(&head[..len], len - 1, limits);
        if so_far != Ok(None) {
            return so_far;
        }
    }
    Ok(None)
}

fn accepted(head: &str) -> Head {
    let answer = judge(head.as_bytes());
    let Ok(Some(found)) = answer else { panic!("{answer:?} for {head:?}") };
    assert_eq!(found.len, head.len(), "{head:?}");
    found
}

#[track_caller]
fn refused(head: &[u8], error: HeadError) {
    assert_eq!(judge(head), Err(error), "{}", head.escape_ascii());
}

fn refused_headers(lines: &str, error: HeadError) {
    refused(format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes(), error);
}

#[test]
fn a_browser_s_request_is_taken() {
    let head = accepted(
        "GET /shop/item?id=7&q=%C3%A9 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: Mozilla/5.0 (X11)\r\n\
         Accept: text/html,*/*;q=0.8\r\nAccept-Language: de,en;q=0.5\r\nCookie: a=b; c=\"d\"\r\nEmpty:\r\n\
         Connection: keep-alive\r\n\r\n",
    );
    assert_eq!((head.framing, head.version_minor), (Framing::None, 1));
    assert!(!head.expects_continue && !head.upgrade);
}

#[test]
fn bodies_are_framed_by_one_length_or_by_chunks() {
    for (lines, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("content-length:5 \t\r\n", Framing::Length(5)),
        ("Content-Length: 18446744073709551615\r\n", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("TRANSFER-ENCODING:\tChunked \r\n", Framing::Chunked),
        ("X-Content-Length: 5, 5\r\n", Framing::None),
    ] {
        let head = accepted(&format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        assert_eq!(head.framing, framing, "{lines:?}");
    }
}

#[test]
fn a_body_with_two_framings_is_refused() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 05\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: \r\n",
        "Content-Length: five\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Content_Length: 5\r\n",
        "Connection: close, Content-Length\r\nContent-Length: 5\r\n",
        "Connection: transfer-encoding\r\n",
        "Connection: host\r\n",
    ] {
        refused_headers(lines, HeadError::Framing);
    }
    refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", HeadError::Framing);
}

#[test]
fn header_lines_have_one_form() {
    for lines in [
        "Content-Length : 5\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "X\r\n",
        ": x\r\n",
        "X Y: z\r\n",
        "X: a\r\n folded\r\n",
        "X: a\r\n\tfolded\r\n",
        " X: a\r\n",
        "X\u{e9}: a\r\n",
        "X(: a\r\n",
        "X\u{b}: a\r\n",
        "X: a\u{b}b\r\n",
        "X: a\u{1b}[31m\r\n",
        "X: a\u{7f}\r\n",
        "\"X\": a\r\n",
        "X/Y: a\r\n",
    ] {
        refused_headers(lines, HeadError::HeaderSyntax);
    }
    accepted("GET / HTTP/1.1\r\nHost: a\r\nX: tab\there, caf\u{e9}\r\n!#$%&'*+-.^_`|~09aZ: x\r\n\r\n");
}

#[test]
fn only_crlf_ends_a_line() {
    for head in [
        &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\n",
        b"G\0",
    ] {
        refused(head, HeadError::LineEnding);
    }
}

#[test]
fn an_error_that_is_certain_is_not_waited_for() {
    for (head, error) in [
        (&b"\x16"[..], HeadError::RequestLine),
        (b"PRI ", HeadError::Version),
        (b"CONNECT ", HeadError::Connect),
        (b"g", HeadError::RequestLine),
        (b"\r\n\r", HeadError::RequestLine),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", HeadError::TargetByte),
        (b"GET /a\t", HeadError::TargetByte),
        (b"GET / HTTP/1.1\n", HeadError::LineEnding),
        (b"GET / HTTP/2.0\r\n", HeadError::Version),
        (b"GET / HTTP/1.1\r\n X: y\r\n", HeadError::HeaderSyntax),
        (b"GET / HTTP/1.1\r\nX: \0", HeadError::LineEnding),
        (b"GET / HTTP/1.1\r\nX y: z\r\n", HeadError::HeaderSyntax),
    ] {
        refused(head, error);
        assert_eq!(scan(&head[..head.len() - 1], 0, &LIMITS), Ok(None), "{}", head.escape_ascii());
    }
}

#[test]
fn the_request_line_has_one_form() {
    for (line, error) in [
        ("GET /", HeadError::RequestLine),
        ("GET", HeadError::RequestLine),
        ("GET / ", HeadError::RequestLine),
        ("GET / HTTP/1.1 ", HeadError::TargetByte),
        ("GET  / HTTP/1.1", HeadError::TargetByte),
        ("GET /  HTTP/1.1", HeadError::TargetByte),
        ("GET /a b HTTP/1.1", HeadError::TargetByte),
        (" GET / HTTP/1.1", HeadError::RequestLine),
        ("GET\t/ HTTP/1.1", HeadError::RequestLine),
        ("GET /\tHTTP/1.1", HeadError::TargetByte),
        ("get / HTTP/1.1", HeadError::RequestLine),
        ("Get / HTTP/1.1", HeadError::RequestLine),
        ("G@T / HTTP/1.1", HeadError::RequestLine),
        ("9GET / HTTP/1.1", HeadError::RequestLine),
        ("\u{feff}GET / HTTP/1.1", HeadError::RequestLine),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", HeadError::RequestLine),
        ("GET / http/1.1", HeadError::RequestLine),
        ("GET / HTTP/1.1x", HeadError::RequestLine),
        ("GET / HTTP/1.10", HeadError::RequestLine),
        ("GET / HTTP/11", HeadError::RequestLine),
        ("GET / HTTP/1,1", HeadError::RequestLine),
        ("GET / HTTPS/1.1", HeadError::RequestLine),
        ("GET / HTTP/0.9", HeadError::Version),
        ("GET / HTTP/1.2", HeadError::Version),
        ("GET / HTTP/2.0", HeadError::Version),
        ("GET / HTTP/3.0", HeadError::Version),
        ("PRI * HTTP/2.0", HeadError::Version),
        ("CONNECT a:443 HTTP/1.1", HeadError::Connect),
    ] {
        refused(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), error);
    }
    for line in [
        "M-SEARCH / HTTP/1.1",
        "VERSION-CONTROL / HTTP/1.1",
        "PROPFIND / HTTP/1.1",
        "UPDATEREDIRECTREF / HTTP/1.1",
        "X_2 / HTTP/1.1",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1",
        "GET / HTTP/1.0",
    ] {
        accepted(&format!("{line}\r\nHost: a\r\n\r\n"));
    }
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").version_minor, 0);
    accepted("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    refused(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::RequestLine);
}

#[test]
fn a_target_is_a_path_a_url_or_the_star_of_options() {
    for target in [
        "/",
        "//login",
        "/x/../login?a=/../%2f%00%zz\\",
        "/a?b?c",
        "/?",
        "/caf\u{e9}?\u{e9}",
        "http://a/x",
        "http://a",
        "http://a?x=1",
        "HTTP://A:80/",
        "https://a:443/",
        "http://a:/",
    ] {
        accepted(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    for target in [
        "*",
        "login",
        "\\login",
        "a:443",
        "ftp://a/",
        "http:/a",
        "http:a",
        "?x",
        "%2f",
        "//a\\",
        "/a\\b",
        "/a%2fb",
        "/a%5cb",
        "/a%00",
        "/a%0d%0aX:y",
        "/a%7f",
        "/a%",
        "/a%f",
        "/%ff",
        "/%c0%af",
        "/a#b",
        "/?a#b",
        "http://a#b",
        "http://a/%2f",
        "http://a\\b/",
        "http://a/\\",
    ] {
        let answer = judge(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(answer.map_err(HeadError::kind), Err(MalformedKind::Target), "{target:?}");
    }
    refused(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Path(portcullis_wire::PathError::Utf8));
    refused(b"GET /?\xff HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Path(portcullis_wire::PathError::Utf8));
    refused(b"GET /?\x7f HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetByte);
    refused(b"GET /?\x01 HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::TargetByte);
}

#[test]
fn http_1_1_names_exactly_one_valid_host() {
    for lines in [
        "",
        "Host:\r\n",
        "Host: \r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host: a b\r\n",
        "Host: a, b\r\n",
        "Host: a/b\r\n",
        "Host: a/../\"<script>\r\n",
        "Host: u@a\r\n",
        "Host: u:p@a\r\n",
        "Host: a:b\r\n",
        "Host: a:99999\r\n",
        "Host: a:80:80\r\n",
        "Host: :80\r\n",
        "Host: [::1\r\n",
        "Host: [::1]x\r\n",
        "Host: [zz]\r\n",
        "Host: [::1%25eth0]\r\n",
        "Host: ::1\r\n",
        "Host: http://a\r\n",
        "Host: a?\r\n",
        "Host: a%00\r\n",
        "Host: caf\u{e9}\r\n",
    ] {
        refused(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes(), HeadError::Host);
    }
    for host in ["a", "A.Example.", "a:8080", "a:", "192.0.2.1", "[::1]", "[2001:db8::1]:443", "a_b-c.d"] {
        accepted(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    accepted("GET / HTTP/1.0\r\n\r\n");
    refused(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", HeadError::Host);
    refused(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", HeadError::Host);
}

#[test]
fn an_absolute_target_agrees_with_host() {
    for (target, host) in [
        ("http://a/", "a"),
        ("http://A.Example/", "a.eXAMPLE"),
        ("http://a:80/", "a"),
        ("http://a/", "a:80"),
        ("https://a/", "a:443"),
        ("http://a:8080/", "a:8080"),
        ("http://[::1]/", "[::1]:80"),
    ] {
        accepted(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for (target, host) in [
        ("http://a/", "b"),
        ("http://a:81/", "a"),
        ("http://a/", "a:443"),
        ("https://a/", "a:80"),
        ("http://a./", "a"),
        ("http:///", "a"),
        ("http://u@a/", "a"),
        ("http://a@b/", "b"),
        ("http://a,b/", "a"),
    ] {
        refused(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), HeadError::Host);
    }
    accepted("GET http://a/ HTTP/1.0\r\n\r\n");
    refused(b"GET http://u@a/ HTTP/1.0\r\n\r\n", HeadError::Host);
    refused(b"GET http://a/ HTTP/1.1\r\n\r\n", HeadError::Host);
}

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

#[test]
fn a_websocket_upgrade_is_complete_or_none() {
    let head = |line: &str, lines: &str| format!("{line}\r\nHost: a\r\n{lines}\r\n");
    let get = |lines: &str| head("GET /ws HTTP/1.1", lines);
    assert!(accepted(&get(&[UPGRADE, KEY, VERSION].concat())).upgrade);
    assert!(accepted(&get(&format!("{UPGRADE}{KEY}{VERSION}Content-Length: 0\r\n"))).upgrade);

    for plain in ["Upgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n", KEY, VERSION] {
        assert!(!accepted(&get(plain)).upgrade, "{plain:?}");
    }
    for lines in [
        UPGRADE.to_owned(),
        format!("{UPGRADE}{KEY}"),
        format!("{UPGRADE}{VERSION}"),
        format!("{UPGRADE}{KEY}{KEY}{VERSION}"),
        format!("{UPGRADE}{KEY}{VERSION}{VERSION}"),
        format!("{UPGRADE}{KEY}Sec-WebSocket-Version: 8\r\n"),
        format!("{UPGRADE}{VERSION}Sec-WebSocket-Key: x\r\n"),
        format!("{UPGRADE}{VERSION}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=A\r\n"),
        format!("{UPGRADE}{VERSION}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j,Q==\r\n"),
        format!("{UPGRADE}{KEY}{VERSION}Upgrade: websocket\r\n"),
        format!("Connection: upgrade\r\nUpgrade: h2c, websocket\r\n{KEY}{VERSION}"),
        format!("{UPGRADE}{KEY}{VERSION}Content-Length: 5\r\n"),
        format!("{UPGRADE}{KEY}{VERSION}Transfer-Encoding: chunked\r\n"),
    ] {
        refused(get(&lines).as_bytes(), HeadError::Upgrade);
    }
    let complete = [UPGRADE, KEY, VERSION].concat();
    refused(head("POST /ws HTTP/1.1", &complete).as_bytes(), HeadError::Upgrade);
    refused(head("GET /ws HTTP/1.0", &complete).as_bytes(), HeadError::Upgrade);
}

#[test]
fn the_only_expectation_is_100_continue() {
    let head = |version: &str, lines: &str| format!("POST / {version}\r\nHost: a\r\n{lines}\r\n");
    assert!(accepted(&head("HTTP/1.1", "Content-Length: 5\r\nExpect: 100-Continue\r\n")).expects_continue);
    assert!(
        accepted(&head("HTTP/1.1", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"))
            .expects_continue
    );
    assert!(!accepted(&head("HTTP/1.1", "Expect: 100-continue\r\n")).expects_continue);
    assert!(!accepted(&head("HTTP/1.0", "Content-Length: 5\r\nExpect: 100-continue\r\n")).expects_continue);
    for lines in [
        "Expect:\r\n",
        "Expect: y 100-continue\r\n",
        "Expect: 100-continue, 100-continue\r\n",
        "Expect: 100-continue\r\nExpect: 100-continue\r\n",
        "Expect: 200-ok\r\n",
    ] {
        refused(head("HTTP/1.1", lines).as_bytes(), HeadError::Expectation);
    }
}

#[test]
fn limits_are_exact_and_speak_early() {
    let limits = HeadLimits { max_bytes: 200, max_headers: 3, max_target: 20, escaped_slashes: false };
    let with = |head: String| {
        let whole = scan(head.as_bytes(), 0, &limits);
        assert_eq!(byte_by_byte(head.as_bytes(), &limits), whole, "{head:?}");
        whole
    };
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 1));
    assert!(with(target(20)).is_ok_and(|head| head.is_some()));
    assert_eq!(with(target(21)), Err(HeadError::TargetTooLong));
    assert_eq!(with(format!("GET /{}", "x".repeat(28))), Ok(None));
    assert_eq!(with(format!("GET /{}", "x".repeat(29))), Err(HeadError::TargetTooLong));
    assert_eq!(with(format!("GET /{}\x01", "x".repeat(28))), Err(HeadError::TargetByte));
    assert_eq!(with(format!("GET /{}\x01", "x".repeat(29))), Err(HeadError::TargetTooLong));
    assert_eq!(with(format!("GET /{}\n", "x".repeat(50))), Err(HeadError::TargetTooLong));

    let headers = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(count - 1));
    assert!(with(headers(3) + "\r\n").is_ok_and(|head| head.is_some()));
    assert_eq!(with(headers(4)), Err(HeadError::TooManyHeaders));

    let sized = |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(len - 32));
    assert_eq!(with(sized(200)).map(|head| head.map(|h| h.len)), Ok(Some(200)));
    assert_eq!(with(sized(201)), Err(HeadError::TooLarge));
    assert_eq!(with(sized(5000)), Err(HeadError::TooLarge));
    assert_eq!(with(sized(201)[..199].to_owned()), Ok(None));
    assert_eq!(with(sized(201)[..200].to_owned()), Err(HeadError::TooLarge));
}

#[test]
fn what_follows_a_head_is_not_read() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    let request = [&head[..], b"a\n\0GET \xff"].concat();
    assert_eq!(scan(&request, 0, &LIMITS).map(|head| head.map(|h| h.len)), Ok(Some(head.len())));
}

#[test]
fn statuses_say_what_was_wrong() {
    for (error, status) in [
        (HeadError::RequestLine, 400),
        (HeadError::Connect, 405),
        (HeadError::Version, 505),
        (HeadError::TargetTooLong, 414),
        (HeadError::TooLarge, 431),
        (HeadError::TooManyHeaders, 431),
        (HeadError::Expectation, 417),
    ] {
        assert_eq!(error.status(), status, "{error}");
    }
}

/// Pieces out of which heads are made that are mostly right.
const PIECES: [&[u8]; 19] = [
    b"GET ",
    b"POST ",
    b"/",
    b"/a%2f",
    b"http://a",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"X: ",
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\t",
    b" ",
    b"\xff",
    b"xxxxxxxxxxxxxxxx",
];

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(&PIECES[..]);
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn how_the_bytes_are_split_makes_no_difference(
        tail in pieces(),
        with_line: bool,
        cuts in proptest::collection::vec(0usize..120, 0..6),
        max_target in 1usize..40,
        max_bytes in 1usize..160,
    ) {
        let limits = HeadLimits { max_bytes, max_headers: 3, max_target, escaped_slashes: false };
        let line = if with_line { &b"GET / HTTP/1.1\r\nHost: a\r\n"[..] } else { b"" };
        let head = [line, &tail].concat();
        let whole = scan(&head, 0, &limits);
        prop_assert_eq!(byte_by_byte(&head, &limits), whole);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(head.len())).collect();
        cuts.push(head.len());
        cuts.sort_unstable();
        let mut known = 0;
        for cut in cuts {
            let answer = scan(&head[..cut], known, &limits);
            if answer != Ok(None) {
                prop_assert_eq!(answer, whole);
                return Ok(());
            }
            known = cut;
        }
        prop_assert_eq!(Ok(None), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, resume_at: usize) {
        if let Ok(Some(head)) = scan(&bytes, resume_at, &LIMITS) {
            prop_assert!(head.len <= bytes.len());
        }
    }
}
