//! Requests as HTTP/2 carries them (RFC 9113, section 8): what is malformed is refused on its stream, with
//! RST_STREAM or with a 400, and other streams go on.

use super::cases::request;
use super::wire::*;
use super::{Accept, H2Case, run};
use crate::ground::{Ground, NAME};

/// RST_STREAM, GOAWAY, or our page.
const REFUSED: [Accept; 3] =
    [Accept::Stream(1, &[PROTOCOL_ERROR]), Accept::Connection(&[PROTOCOL_ERROR]), Accept::Answer(1, 400)];

/// What may be said of a refused request, by whoever notices first.
const KINDS: [&str; 6] = [
    "malformed:http2",
    "malformed:bad_request",
    "malformed:host",
    "malformed:target",
    "malformed:framing",
    "malformed:header_syntax",
];

fn served(name: &str, steps: Vec<Vec<u8>>) -> H2Case {
    H2Case::new(name, steps, &[Accept::Answer(1, 200)]).with_requests(1, 1)
}

fn refused(name: impl Into<String>, steps: Vec<Vec<u8>>) -> H2Case {
    let case = H2Case::new(name, steps, &REFUSED);
    KINDS.iter().fold(case, |case, kind| case.reason(kind))
}

/// HEADERS of a whole request with these fields, in this order.
fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

fn pseudo(method: &'static str, path: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![(":method", method), (":scheme", "https"), (":path", path), (":authority", NAME)]
}

/// A GET with one field more at the end.
fn with(name: &str, value: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/messages", &[(name, value)]))
}

/// A GET with these fields in place of the pseudo-header field of this name.
fn in_place_of(name: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: Vec<(&str, &str)> = pseudo("GET", "/messages")
        .into_iter()
        .flat_map(|field| if field.0 == name { fields.to_vec() } else { vec![field] })
        .collect();
    headers(&fields)
}

fn post(more: &[(&str, &str)], bodies: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut frames = vec![frame(HEADERS, END_HEADERS, 1, &request("POST", "/messages", more))];
    for (n, body) in bodies.iter().enumerate() {
        let flags = if n + 1 == bodies.len() { END_STREAM } else { 0 };
        frames.push(frame(DATA, flags, 1, body));
    }
    frames
}

fn exchanges() -> Vec<H2Case> {
    let trailers = |fields: &[(&str, &str)], flags| frame(HEADERS, END_HEADERS | flags, 1, &block(fields));
    let with_trailers = |fields: &[(&str, &str)]| {
        let mut frames = post(&[], &[b"test"]);
        frames[1] = frame(DATA, 0, 1, b"test");
        frames.push(trailers(fields, END_STREAM));
        frames
    };
    let late = |case: H2Case| case.with_requests(0, 1);
    vec![
        served("8.1: GET", vec![headers(&pseudo("GET", "/messages"))])
            .header("host", &[NAME])
            .header("content-length", &[])
            .header("transfer-encoding", &[]),
        served("8.1: HEAD", vec![headers(&pseudo("HEAD", "/messages"))]),
        served("8.1: DELETE", vec![headers(&pseudo("DELETE", "/messages"))]),
        served("8.1: OPTIONS *", vec![headers(&pseudo("OPTIONS", "*"))]),
        served("8.1: POST", post(&[], &[b"test"]))
            .header("content-length", &[])
            .header("transfer-encoding", &["chunked"]),
        served("8.1: POST with its length", post(&[("content-length", "4")], &[b"test"]))
            .header("content-length", &["4"])
            .header("transfer-encoding", &[]),
        served("8.1: POST without a body", vec![headers(&pseudo("POST", "/messages"))]),
        H2Case::new(
            "8.1: POST with trailers",
            with_trailers(&[("x-trailer", "1")]),
            &[Accept::Answer(1, 200), Accept::Answer(1, 400), REFUSED[0].clone()],
        )
        .with_requests(1, 1)
        .reason("malformed:framing"),
        late(refused("8.1: trailers that do not end the stream", {
            let mut frames = post(&[], &[b"test"]);
            frames[1] = frame(DATA, 0, 1, b"test");
            frames.push(trailers(&[("x-trailer", "1")], 0));
            frames
        })),
        // The library lets it pass, and the gateway forwards no trailers at all: there is nothing to refuse.
        served("8.1: trailers with a pseudo-header field", with_trailers(&[(":method", "GET")])),
        late(refused("8.1.1: a length of less than the body", post(&[("content-length", "1")], &[b"test"]))),
        late(refused("8.1.1: a length of more than the body", post(&[("content-length", "5")], &[b"test"]))),
        late(refused(
            "8.1.1: a length of less than several DATA",
            post(&[("content-length", "1")], &[b"te", b"st"]),
        )),
        late(refused(
            "8.1.1: a length of more than several DATA",
            post(&[("content-length", "9")], &[b"te", b"st"]),
        )),
        late(refused("8.1.1: a length without a body", vec![with("content-length", "5")])),
        late(refused(
            "8.1.1: two lengths",
            post(&[("content-length", "4"), ("content-length", "5")], &[b"test"]),
        )),
        late(refused(
            "8.1.1: two equal lengths",
            post(&[("content-length", "4"), ("content-length", "4")], &[b"test"]),
        )),
        late(refused("8.1.1: a list of lengths", post(&[("content-length", "4, 4")], &[b"test"]))),
        late(refused("8.1.1: a length that is no number", post(&[("content-length", "four")], &[b"test"]))),
        late(refused("8.1.1: a length with a sign", post(&[("content-length", "+4")], &[b"test"]))),
        late(refused("8.1.1: a negative length", post(&[("content-length", "-4")], &[b"test"]))),
        late(refused("8.1.1: an empty length", post(&[("content-length", "")], &[b"test"]))),
    ]
}

fn fields() -> Vec<H2Case> {
    let mut cases = vec![
        refused("8.2: a name in capitals", vec![with("X-TEST", "ok")]),
        refused("8.2: a name with one capital", vec![with("x-Test", "ok")]),
        refused("8.2: an empty name", vec![with("", "ok")]),
        refused("8.2: a blank in a name", vec![with("x test", "ok")]),
        refused("8.2: a colon in a name", vec![with("x:test", "ok")]),
        refused("8.2: a line end in a name", vec![with("x-test\r\n", "ok")]),
        refused("8.2: NUL in a name", vec![with("x-\0test", "ok")]),
        refused("8.2: DEL in a name", vec![with("x-\x7f", "ok")]),
        refused("8.2: beyond ASCII in a name", vec![with("x-\u{e9}", "ok")]),
        refused("8.2: CR LF in a value", vec![with("x-test", "a\r\nx-smuggled: 1")]),
        refused("8.2: LF in a value", vec![with("x-test", "a\nb")]),
        refused("8.2: CR in a value", vec![with("x-test", "a\rb")]),
        refused("8.2: NUL in a value", vec![with("x-test", "a\0b")]),
        refused(
            "8.2: a request in a value",
            vec![with("x-test", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")],
        ),
        refused("8.2.2: connection", vec![with("connection", "keep-alive")]),
        refused("8.2.2: connection: close", vec![with("connection", "close")]),
        refused("8.2.2: keep-alive", vec![with("keep-alive", "timeout=5")]),
        refused("8.2.2: proxy-connection", vec![with("proxy-connection", "keep-alive")]),
        refused("8.2.2: transfer-encoding", vec![with("transfer-encoding", "chunked")]),
        refused(
            "8.2.2: transfer-encoding with a body",
            post(&[("transfer-encoding", "chunked")], &[b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"]),
        )
        .with_requests(0, 1),
        refused("8.2.2: upgrade", vec![with("upgrade", "websocket")]),
        refused("8.2.2: upgrade to h2c", vec![with("upgrade", "h2c")]),
        refused("8.2.2: te of another kind", vec![with("te", "trailers, deflate;q=0.5")]),
        served("8.2.2: te: trailers", vec![with("te", "trailers")]).header("te", &[]),
        served(
            "8.2.3: two cookies",
            vec![frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &request("GET", "/messages", &[("cookie", "a=1"), ("cookie", "b=2")]),
            )],
        )
        .header("cookie", &["a=1; b=2"]),
        served("8.2: an empty value", vec![with("x-test", "")]),
        served("8.2: a value beyond ASCII", vec![with("x-test", "caf\u{e9}")]),
        served("8.2: an underscore of its own", vec![with("x_test", "ok")]),
        refused("8.2: content_length", post(&[("content_length", "4")], &[b"test"])).with_requests(0, 1),
        H2Case::new(
            "an unknown expectation",
            post(&[("content-length", "4"), ("expect", "200-ok")], &[b"test"]),
            &[Accept::Answer(1, 417)],
        )
        .reason("malformed:bad_request"),
        refused("8.2: transfer_encoding", vec![with("transfer_encoding", "chunked")]),
        refused("8.2: host beside another authority", vec![with("host", "other.example")]),
        served("8.2: host beside the same authority", vec![with("host", NAME)]),
        refused(
            "8.2: two hosts",
            vec![frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &request("GET", "/messages", &[("host", NAME), ("host", NAME)]),
            )],
        ),
    ];
    // Blanks around a value: forbidden, though harmless; the library cuts or keeps them.
    cases.push(
        H2Case::new(
            "8.2: a blank before a value",
            vec![with("x-test", " ok")],
            &[Accept::Answer(1, 200), REFUSED[0].clone()],
        )
        .with_requests(0, 1),
    );
    cases
}

fn pseudo_fields() -> Vec<H2Case> {
    let extra = |field: (&'static str, &'static str)| {
        let mut fields = pseudo("GET", "/messages");
        fields.push(field);
        vec![headers(&fields)]
    };
    vec![
        refused("8.3: an unknown one", extra((":test", "ok"))),
        refused("8.3: one of responses", extra((":status", "200"))),
        refused(
            "8.3: one after a field",
            vec![headers(&[
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", NAME),
                ("x-test", "ok"),
                (":path", "/messages"),
            ])],
        ),
        refused("8.3: one in capitals", vec![in_place_of(":path", &[(":PATH", "/messages")])]),
        refused("8.3.1: an empty path", vec![in_place_of(":path", &[(":path", "")])]),
        refused("8.3.1: no method", vec![in_place_of(":method", &[])]),
        refused("8.3.1: no scheme", vec![in_place_of(":scheme", &[])]),
        refused("8.3.1: no path", vec![in_place_of(":path", &[])]),
        refused("8.3.1: no authority", vec![in_place_of(":authority", &[])]),
        served(
            "8.3.1: host in place of an authority",
            vec![headers(&[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/messages"),
                ("host", NAME),
            ])],
        ),
        refused("8.3.1: two methods", extra((":method", "GET"))),
        refused("8.3.1: two schemes", extra((":scheme", "https"))),
        refused("8.3.1: two paths", extra((":path", "/other"))),
        refused("8.3.1: two authorities", extra((":authority", "other.example"))),
        refused("8.3.1: two equal authorities", extra((":authority", NAME))),
        refused("8.3.1: an empty method", vec![in_place_of(":method", &[(":method", "")])]),
        refused(
            "8.3.1: a method with a blank",
            vec![in_place_of(":method", &[(":method", "GET /smuggled")])],
        ),
        refused("8.3.1: a method with a line end", vec![in_place_of(":method", &[(":method", "GET\r\n")])]),
        refused("8.3.1: an empty authority", vec![in_place_of(":authority", &[(":authority", "")])]),
        refused(
            "8.3.1: an authority with a user",
            vec![in_place_of(":authority", &[(":authority", "user@edge.example")])],
        ),
        refused(
            "8.3.1: an authority with a path",
            vec![in_place_of(":authority", &[(":authority", "edge.example/a")])],
        ),
        refused(
            "8.3.1: an authority with a blank",
            vec![in_place_of(":authority", &[(":authority", "edge example")])],
        ),
        refused(
            "8.3.1: an authority with a line end",
            vec![in_place_of(":authority", &[(":authority", "edge.example\r\nx: y")])],
        ),
        refused(
            "8.3.1: an authority with a bad port",
            vec![in_place_of(":authority", &[(":authority", "edge.example:x")])],
        ),
        refused(
            "8.3.1: an authority beyond ASCII",
            vec![in_place_of(":authority", &[(":authority", "\u{e9}dge.example")])],
        ),
        served(
            "8.3.1: an authority with a port",
            vec![in_place_of(":authority", &[(":authority", "edge.example:8443")])],
        ),
        refused("8.3.1: a scheme with a line end", vec![in_place_of(":scheme", &[(":scheme", "https\r\n")])]),
        H2Case::new(
            "8.5: CONNECT",
            vec![headers(&[(":method", "CONNECT"), (":authority", "a.example:443")])],
            &[Accept::Answer(1, 405), REFUSED[0].clone(), REFUSED[1].clone()],
        )
        .reason("malformed:method"),
        H2Case::new(
            "8.5: CONNECT with a path",
            vec![in_place_of(":method", &[(":method", "CONNECT")])],
            &[Accept::Answer(1, 405), Accept::Answer(1, 400), REFUSED[0].clone(), REFUSED[1].clone()],
        )
        .reason("malformed:method"),
        refused("RFC 8441: a WebSocket, which was not offered", {
            let mut fields = vec![(":method", "CONNECT"), (":protocol", "websocket")];
            fields.extend(pseudo("GET", "/messages").into_iter().skip(1));
            vec![headers(&fields)]
        })
        .reason("malformed:method"),
    ]
}

/// Paths that HTTP/1 refuses, and some that it forwards.
fn paths() -> Vec<H2Case> {
    let bad = [
        "/login%2f",
        "/login%2Fadmin",
        "/login%5c",
        "/login%00",
        "/login%0d%0a",
        "/login%7f",
        "/login%",
        "/login%zz",
        "/%c0%af",
        "/%ff",
        "/%ed%a0%80",
        "/log in",
        "/log\tin",
        "/log\r\nin",
        "/log\nin",
        "/log\0in",
        "/log\x7fin",
        "/login\\",
        "\\login",
        "/x\\..\\login",
        "login",
        "../login",
        "?a",
        "*",
        "http://edge.example/messages",
        "http://other.example/",
        "edge.example:443",
        "/messages HTTP/1.1\r\nx: y",
        "/a?b\r\nc",
        "/a?b c",
    ];
    let good = [
        "/",
        "//login",
        "/./login",
        "/x/../login",
        "/%6cogin",
        "/LOGIN",
        "/login;a=1",
        "/login/",
        "/login?",
        "/%252e",
        "/%252f",
        "/caf%C3%A9",
        "/a?b=%2f",
        "/a?%00",
    ];
    let bad = bad
        .iter()
        .map(|path| refused(format!("path {path:?}"), vec![in_place_of(":path", &[(":path", path)])]));
    let of = |path: &str, line: &str| {
        served(&format!("path {path:?}"), vec![in_place_of(":path", &[(":path", path)])]).forwarded_as(line)
    };
    let good = good.iter().map(|path| of(path, &format!("GET {path} HTTP/1.1")));
    // The library cuts the fragment before anybody sees it: rules, upstream and log have the same path.
    bad.chain(good).chain([of("/login#a", "GET /login HTTP/1.1")]).collect()
}

/// The bounds of the head are those of HTTP/1, and the library's beyond them.
fn sizes() -> Vec<H2Case> {
    // More than a frame holds goes on in CONTINUATION frames.
    let long = |fields: &[(&str, &str)]| {
        let block = request("GET", "/messages", fields);
        let mut parts = block.chunks(MAX_FRAME_SIZE);
        let first = frame(HEADERS, END_STREAM, 1, parts.next().unwrap_or_default());
        let rest: Vec<&[u8]> = parts.collect();
        let rest = rest.iter().flat_map(|part| frame(CONTINUATION, 0, 1, part));
        vec![first.into_iter().chain(rest).chain(frame(CONTINUATION, END_HEADERS, 1, &[])).collect()]
    };
    let path = |length: usize| format!("/{}", "x".repeat(length - 1));
    let to = |path: &str| vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", path, &[]))];
    let lines = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("x-{n}")).collect();
        let fields: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "1")).collect();
        vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/messages", &fields))]
    };
    let refused = |name: &str, steps: Vec<Vec<u8>>, status: u16, kind: &str| {
        H2Case::new(name, steps, &[Accept::Answer(1, status)]).reason(&format!("malformed:{kind}"))
    };
    let value = |length: usize| "x".repeat(length);
    let beyond = |name: &str, steps| {
        let ends =
            [Accept::Answer(1, 431), REFUSED[0].clone(), Accept::Connection(&[1, 9, 11]), Accept::Closed];
        let case = H2Case::new(name, steps, &ends);
        case.reason("malformed:head_too_large").reason("malformed:http2_flood")
    };
    vec![
        served("a path of 8 KiB", to(&path(8_192))),
        refused("a path of 8 KiB and a byte", to(&path(8_193)), 414, "uri_too_long"),
        refused("a path of 15 KB", to(&path(15_000)), 414, "uri_too_long"),
        served("90 fields", lines(90)),
        refused("150 fields", lines(150), 431, "head_too_large"),
        refused("1,000 fields", lines(1_000), 431, "head_too_large"),
        served("a field of 30 KB", long(&[("x-large", &value(30_000))])),
        refused("a field of 33 KB", long(&[("x-large", &value(33_000))]), 431, "head_too_large"),
        refused("a field of 50 KB", long(&[("x-large", &value(50_000))]), 431, "head_too_large"),
        beyond("a field of 70 KB", long(&[("x-large", &value(70_000))])),
        beyond("a field of 200 KB", long(&[("x-large", &value(200_000))])),
        beyond("a field of 1 MB", long(&[("x-large", &value(1_000_000))])),
    ]
}

/// What a client says of itself is as worthless as over HTTP/1.
fn claims() -> Vec<H2Case> {
    let mut cases: Vec<H2Case> = ABSENT
        .iter()
        .map(|name| served(&format!("a claim in {name}"), vec![with(name, "203.0.113.66")]).header(name, &[]))
        .collect();
    cases.extend(["x-forwarded-for", "x-real-ip", "x-request-id"].iter().map(|name| {
        let case = served(&format!("a claim in {name}"), vec![with(name, "203.0.113.66")]);
        case.header("x-forwarded-host", &[NAME]).header("forwarded", &[])
    }));
    let proto = served("a claim in x-forwarded-proto", vec![with("x-forwarded-proto", "http")]);
    cases.push(proto.header("x-forwarded-proto", &["https"]));
    let host = served("a claim in x-forwarded-host", vec![with("x-forwarded-host", "other.example")]);
    cases.push(host.header("x-forwarded-host", &[NAME]).header("host", &[NAME]));
    cases
}

const ABSENT: &[&str] = &[
    "cf-connecting-ip",
    "true-client-ip",
    "forwarded",
    "fastly-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x_forwarded_for",
    "x_real_ip",
    "x-original-url",
    "x-rewrite-url",
];

#[test]
fn a_malformed_message_is_refused() {
    let cases = [exchanges(), fields(), pseudo_fields(), paths(), sizes(), claims()];
    run("h2 messages", &Ground::direct(), &cases.concat());
}
