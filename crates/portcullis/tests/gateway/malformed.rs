//! Bytes that are no request, or one that breaks a bound: an answer, a row, and nothing for the upstream.

use std::time::Duration;

use portcullis_testkit::{Gateway, Request, Response, Upstream, parse_response};

use crate::{config, in_front_of};

/// Sends bytes; the answer must be our page, and its row must have this status and reason.
fn refused(gateway: &Gateway, bytes: &[u8], status: u16, reason: &str) -> Response {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
    let mut client = gateway.client();
    // A long message may be refused before all of it has been sent.
    let _ = client.try_write(bytes);
    let answer = client.read_response("GET");
    assert_eq!(answer.status(), status, "{shown:?}");
    assert_eq!(client.read_to_end(), b"", "more than one answer to {shown:?}");
    let row = gateway.data().row(&answer.decision_id());
    assert_eq!((row.status, row.verdict.as_str(), &*row.reason), (status, "malformed", reason), "{shown:?}");
    assert_eq!(row.client.to_string(), "127.0.0.1");
    answer
}

#[test]
fn a_malformed_request_is_refused_and_leaves_a_row() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let cases = [
        (&b"this is no request\r\n\r\n"[..], 400, "bad_request"),
        (b"GET\r\n\r\n", 400, "bad_request"),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505, "bad_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: the best\r\n\r\n", 417, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n", 400, "header_syntax"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n", 400, "header_syntax"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400, "header_syntax"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "header_syntax"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400, "line_ending"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "line_ending"),
        (b"GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
        (b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n", 400, "framing"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400, "framing"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            400,
            "framing",
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 400, "upgrade"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
    ];
    for (bytes, status, kind) in cases {
        refused(&gateway, bytes, status, &format!("malformed:{kind}"));
    }
    assert_eq!(upstream.requests(), 0);
    assert_eq!(gateway.get("/").status(), 200);
    gateway.data().wait_for_count(cases.len() as u64 + 1);
}

#[test]
fn a_malformed_head_is_recorded_as_far_as_it_was_understood() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let bytes = b"DELETE /secret?page=1 HTTP/1.1\r\nHost: a\r\nbroken\r\n\r\n";
    let answer = refused(&gateway, bytes, 400, "malformed:header_syntax");
    assert_eq!(answer.header("connection"), Some("close"));
    let row = gateway.data().row(&answer.decision_id());
    assert_eq!((&*row.method, &*row.path, &*row.query), ("DELETE", "/secret", "page=1"));
    let why = gateway.cli_ok(&["why", &answer.decision_id()]);
    assert!(why.contains("/secret"), "{why}");
}

#[test]
fn a_request_that_two_servers_could_understand_differently_is_refused() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (head, kind) in [
        ("Content-Length: 5, 5", "framing"),
        ("Content-Length: 0x5", "framing"),
        ("Content-Length: 6\r\nTransfer-Encoding: chunked", "framing"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 6", "framing"),
        ("Transfer-Encoding: xchunked", "framing"),
        ("Transfer-Encoding: identity, chunked", "framing"),
        ("Transfer-Encoding: chunked, identity", "framing"),
        ("Transfer-Encoding: xchunked\r\nTransfer-Encoding: chunked", "framing"),
        ("Transfer-Encoding : chunked", "header_syntax"),
        ("Transfer-Encoding:\x0bchunked", "header_syntax"),
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n0\r\n\r\n{smuggled}");
        refused(&gateway, bytes.as_bytes(), 400, &format!("malformed:{kind}"));
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn chunks_that_break_the_protocol_are_refused_before_the_upstream_sees_a_byte() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        refused(&gateway, bytes.as_bytes(), 400, "malformed:framing");
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn chunks_that_break_the_protocol_later_are_refused_too() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    client.write(b"POST /later HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    std::thread::sleep(Duration::from_millis(100));
    client.write(b"5\nhello\r\n0\r\n\r\n");
    let answer = parse_response(&client.read_to_end());
    assert_eq!(answer.status(), 400);
    assert_eq!(gateway.data().row(&answer.decision_id()).reason, "malformed:framing");
}

#[test]
fn a_host_that_is_missing_or_no_host_is_refused() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    refused(&gateway, b"GET / HTTP/1.1\r\n\r\n", 400, "malformed:host");
    refused(&gateway, b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "malformed:host");
    refused(&gateway, b"GET / HTTP/1.1\r\nHost: a/../\"<script>\r\n\r\n", 400, "malformed:host");
    refused(&gateway, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "malformed:host");
    refused(&gateway, b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, "malformed:host");
    refused(&gateway, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "malformed:host");
    refused(&gateway, b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "malformed:host");
    assert_eq!(upstream.requests(), 0);
    for host in ["a", "a.example:8080", "a.example.", "[::1]:80", "192.0.2.1", "xn--bcher-kva.example", "a_b"]
    {
        assert_eq!(gateway.client().host(host).get("/").status(), 200, "{host}");
    }
}

#[test]
fn connect_gets_405() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    refused(&gateway, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", 405, "malformed:method");
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_head_that_is_too_large_gets_431() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(33 << 10));
    refused(&gateway, large.as_bytes(), 431, "malformed:head_too_large");
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}", "x".repeat(300 << 10));
    refused(&gateway, endless.as_bytes(), 431, "malformed:head_too_large");
    let lines: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    refused(&gateway, many.as_bytes(), 431, "malformed:head_too_large");
    let very_many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(400));
    refused(&gateway, very_many.as_bytes(), 431, "malformed:head_too_large");
    assert_eq!(upstream.requests(), 0);
    let enough = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", &lines[..lines.find("X-99").unwrap()]);
    let mut client = gateway.client();
    client.write(enough.as_bytes());
    assert_eq!(client.read_head().status, 200, "100 header lines are allowed");
}

#[test]
fn an_address_that_is_too_long_gets_414() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let of = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1));
    refused(&gateway, of(8_193).as_bytes(), 414, "malformed:uri_too_long");
    assert_eq!(upstream.requests(), 0);
    assert_eq!(gateway.get(&format!("/{}", "x".repeat(8_191))).status(), 200);
}

#[test]
fn a_body_that_is_too_large_gets_413() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("max_body = \"100KiB\""));
    let announced = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 102401\r\n\r\n";
    refused(&gateway, announced, 413, "malformed:body_too_large");
    assert_eq!(upstream.requests(), 0, "it is refused before the upstream hears of it");
    let mut streamed = b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..5 {
        streamed.extend_from_slice(b"8000\r\n");
        streamed.extend_from_slice(&[b'x'; 0x8000]);
        streamed.extend_from_slice(b"\r\n");
    }
    streamed.extend_from_slice(b"0\r\n\r\n");
    refused(&gateway, &streamed, 413, "malformed:body_too_large");
    let fits = gateway.client().send(&Request::post("/upload", vec![b'x'; 100 << 10]));
    assert_eq!((fits.status(), fits.text()), (200, (100 << 10).to_string()));
}

#[test]
fn a_route_has_its_own_bound_of_bodies() {
    let upstream = Upstream::start();
    let routes = "[[route]]\npaths = [\"/small/*\"]\nupstream = \"app\"\nmax_body = \"1KiB\"\n\
                  [[route]]\npaths = [\"/any/*\"]\nupstream = \"app\"\nmax_body = \"0B\"\n\
                  [[route]]\nupstream = \"app\"\n";
    let gateway = Gateway::start(config().upstream(&upstream).server("max_body = \"10KiB\"").section(routes));
    let post = |path: &str, bytes: usize| gateway.client().post(path, &"x".repeat(bytes)).status();
    for (path, bytes, status) in [
        ("/small/a", 1_024, 200),
        ("/small/a", 1_025, 413),
        ("/any/a", 100_000, 200),
        ("/upload", 10_240, 200),
        ("/upload", 10_241, 413),
    ] {
        assert_eq!(post(path, bytes), status, "{path} {bytes}");
    }
}

#[test]
fn a_head_that_drips_is_closed_in_time_and_recorded() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("head_timeout = \"1s\""));
    let mut client = gateway.client();
    // Each byte comes well before any timeout between reads; the head as a whole never ends.
    let mut closed = false;
    for byte in b"GET /drip HTTP/1.1\r\nHost: a\r\nX-Slow: ".iter().chain(std::iter::repeat_n(&b'x', 100)) {
        if client.try_write(&[*byte]).is_err() {
            closed = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = client.read_to_end();
    assert!(closed || !answer.is_empty(), "the connection was still open after 5 s");
    let row = gateway.data().row_of("/drip");
    assert_eq!((row.verdict.as_str(), &*row.reason), ("malformed", "malformed:incomplete_head"));
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_second_head_that_drips_is_closed_too() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("head_timeout = \"1s\""));
    let mut client = gateway.client();
    assert_eq!(client.get("/first").status(), 200);
    client.write(b"GET /second HTTP/1.1\r\nHo");
    let answer = parse_response(&client.read_to_end());
    assert_eq!(answer.status(), 408);
    let row = gateway.data().row(&answer.decision_id());
    assert_eq!((&*row.path, &*row.reason), ("/second", "malformed:incomplete_head"));
}

#[test]
fn a_client_that_hangs_up_inside_of_a_head_leaves_a_row() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    client.write(b"GET /half HTTP/1.1\r\nHost: a\r\n");
    drop(client);
    let row = gateway.data().row_of("/half");
    assert_eq!(&*row.reason, "malformed:incomplete_head");
    // One that says nothing at all is no request.
    drop(gateway.client());
    gateway.get("/last");
    gateway.data().row_of("/last");
    assert_eq!(gateway.data().count(), 2);
}

#[test]
fn a_body_that_stops_is_given_up_and_recorded() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream).server("body_timeout = \"500ms\""));
    let mut client = gateway.client();
    client.write(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome");
    let answer = parse_response(&client.read_to_end());
    assert_eq!(answer.status(), 408);
    let row = gateway.data().row(&answer.decision_id());
    assert_eq!((row.status, &*row.reason), (408, "malformed:incomplete_body"));
}

#[test]
fn a_connection_without_requests_is_closed() {
    let upstream = Upstream::start();
    let settings = "keepalive_timeout = \"1s\"\nhead_timeout = \"1s\"";
    let gateway = Gateway::start(config().upstream(&upstream).server(settings));
    let mut used = gateway.client();
    used.get("/");
    // Both end without a word: nobody asked for anything.
    assert_eq!(used.read_to_end(), b"");
    assert_eq!(gateway.client().read_to_end(), b"");
    gateway.data().wait_for_count(1);
}

#[test]
fn of_pipelined_requests_the_first_is_served_and_the_rest_thrown_away() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    for gap in [false, true] {
        let mut client = gateway.client();
        client.write(b"GET /slow/300 HTTP/1.1\r\nHost: a\r\n\r\n");
        if gap {
            std::thread::sleep(Duration::from_millis(100));
        }
        client.write(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        let first = client.read_response("GET");
        assert_eq!((first.status(), first.header("connection")), (200, Some("close")), "{gap}");
        assert_eq!(client.read_to_end(), b"", "{gap}");
    }
    gateway.data().wait_for_count(2);
    assert_eq!(upstream.requests(), 2);
}

#[test]
fn a_site_that_needs_escaped_slashes_gets_them_as_they_are_and_limits_read_them_as_slashes() {
    let upstream = Upstream::start();
    let limit = "paths = [\"/@scope/name\"]\nrate = \"1/1h\"";
    let config = config().upstream(&upstream).server("escaped_slashes = true").limit("packages", limit);
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    assert_eq!(client.get("/@scope%2fname").status(), 200);
    assert_eq!(upstream.last().target, "/@scope%2fname");
    assert_eq!(client.get("/@scope/name").status(), 429);
    assert_eq!(client.get("/a%5cb").status(), 400);
}
