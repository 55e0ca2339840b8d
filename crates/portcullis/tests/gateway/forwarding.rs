//! What goes through the gateway, both ways, and what it writes itself.

use portcullis_testkit::{Client, Gateway, Request, Upstream, parse_response};
use serde_json::Value;

use crate::{behind_proxy, config, in_front_of};

#[test]
fn every_method_reaches_the_upstream_with_its_body() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let body = if method == "GET" { "" } else { "some body" };
        let answer = client.send(&Request::new(method, "/echo").body(body)).json();
        assert_eq!((&answer["method"], &answer["body"]), (&method.into(), &body.into()));
    }
    assert_eq!(upstream.requests(), 7);
    gateway.data().wait_for_count(7);
}

#[test]
fn an_answer_to_head_has_the_length_and_no_body() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    let answer = client.send(&Request::new("HEAD", "/bytes/1234"));
    assert_eq!((answer.status(), answer.header("content-length")), (200, Some("1234")));
    // A body by mistake would be taken for the next answer.
    assert_eq!(client.get("/status/404").status(), 404);
}

#[test]
fn answers_without_a_body_end_where_they_should() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    for status in [204, 304, 200, 404, 500] {
        assert_eq!(client.get(&format!("/status/{status}")).status(), status);
    }
    assert_eq!(gateway.data().row_of("/status/304").status, 304);
}

#[test]
fn chunked_bodies_pass_both_ways() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    client.write(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    );
    assert_eq!(client.read_response("POST").json()["body"], "hello world");
    let answer = client.get("/chunked/200000");
    assert_eq!((answer.header("transfer-encoding"), answer.body.len()), (Some("chunked"), 200_000));
    let row = gateway.data().row_of("/chunked/200000");
    assert_eq!(row.bytes_out, 200_000);
    assert_eq!(gateway.data().row_of("/echo").bytes_in, 11);
}

#[test]
fn redirects_and_cookies_arrive_as_the_upstream_sent_them() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    let answer = client.get("/redirect");
    assert_eq!((answer.status(), answer.header("location")), (302, Some("/elsewhere?x=1&y=%2F")));
    let answer = client.get("/cookies");
    assert_eq!(answer.head.all("set-cookie"), ["a=1; Path=/", "b=2; HttpOnly"]);
}

#[test]
fn large_headers_pass_both_ways() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    let cookie = "c".repeat(16 << 10);
    client.send(&Request::get("/").header("Cookie", &cookie));
    assert_eq!(upstream.last().header("cookie"), cookie);
    let answer = client.get("/large-headers");
    assert_eq!(answer.header("x-large").map(str::len), Some(8 << 10));
}

#[test]
fn path_and_query_reach_the_upstream_byte_for_byte() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    for target in [
        "/a%20b/%C3%A9?q=a+b%2Bc&q=2&empty=&=x",
        "/?",
        "//double//slash/",
        "/a/./b/../c",
        "/UPPER;v=1/lower",
        "/search?next=http://example.com/%3Fa%3Db&x[]=1",
        "/~user/!$&'()*+,;=:@",
    ] {
        assert_eq!(client.get(target).status(), 200, "{target}");
        assert_eq!(upstream.last().target, target);
    }
    let row = gateway.data().row_of("/a%20b/%C3%A9");
    assert_eq!(row.query, "q=a+b%2Bc&q=2&empty=&=x");
}

#[test]
fn the_upstream_is_told_about_the_client_by_the_gateway_alone() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let answer = gateway.client().host("Shop.example:8080").get("/echo");
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "http");
    assert_eq!(seen.header("x-forwarded-host"), "Shop.example:8080");
    assert_eq!(seen.header("host"), "Shop.example:8080");
    assert!(seen.all("forwarded").is_empty());
    assert_eq!(answer.status(), 200);
    let row = gateway.data().row_of("/echo");
    assert_eq!((row.host.as_str(), row.client.to_string().as_str()), ("shop.example", "127.0.0.1"));
}

#[test]
fn the_request_id_of_the_upstream_is_the_id_in_the_log() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    gateway.client().send(&Request::get("/traced").header("X-Request-Id", "forged"));
    let row = gateway.data().row_of("/traced");
    assert_eq!(upstream.last().header("x-request-id"), row.id.to_string());
}

#[test]
fn the_standard_forwarded_header_is_written_when_it_is_asked_for() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream).server("forwarded_header = true"));
    gateway.client_of("2001:db8::7").host("shop.example").get("/");
    assert_eq!(upstream.last().header("forwarded"), r#"for="[2001:db8::7]";proto=http;host="shop.example""#);
    gateway.client_of("192.0.2.1").host("a\"b\\c").get("/");
    let seen = upstream.seen();
    let forged = seen.iter().filter(|seen| seen.all("forwarded").concat().matches('"').count() > 4);
    assert_eq!(forged.count(), 0, "a host broke out of its quotes");
}

#[test]
fn hop_by_hop_headers_end_at_the_gateway() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let request = Request::get("/")
        .header("Connection", "keep-alive, X-Request-Id, X-Secret-Hop")
        .header("X-Secret-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers");
    gateway.client().send(&request);
    let seen = upstream.last();
    assert!(seen.all("x-secret-hop").is_empty(), "{seen:?}");
    assert!(seen.all("keep-alive").is_empty(), "{seen:?}");
    assert!(seen.all("te").is_empty(), "{seen:?}");
    // What the client names in Connection must not take the gateway's own word away.
    assert_eq!((seen.header("x-forwarded-for"), seen.header("x-request-id").len()), ("127.0.0.1", 16));
    let request = Request::get("/").header("Connection", "X-Forwarded-For");
    let refused = gateway.client().send(&request);
    assert_eq!((refused.status(), upstream.requests()), (400, 1));
    let row = gateway.data().row(&refused.decision_id());
    assert_eq!((row.verdict.as_str(), row.reason.as_str()), ("malformed", "malformed:bad_request"));
}

#[test]
fn an_http_1_0_client_is_served_and_its_connection_closed() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    client.write(b"GET /chunked/50000 HTTP/1.0\r\n\r\n");
    let answer = parse_response(&client.read_to_end());
    assert_eq!((answer.status(), answer.body.len()), (200, 50_000));
    assert_eq!(answer.header("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
    assert_eq!(gateway.data().row_of("/chunked/50000").protocol, "HTTP/1.0");
    // It has not said which host it wants; the upstream, asked by HTTP/1.1, must be told one.
    assert_eq!(upstream.last().header("host"), upstream.address().to_string());
    assert!(upstream.last().all("x-forwarded-host").is_empty());
}

#[test]
fn connections_to_the_upstream_are_used_again() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    for _ in 0..5 {
        let mut client = gateway.client();
        for _ in 0..10 {
            assert_eq!(client.get("/").status(), 200);
        }
    }
    assert_eq!(upstream.requests(), 50);
    // One may be opened while the last one is still being given back.
    assert!(upstream.connections() <= 5, "{} connections for 50 requests", upstream.connections());
}

#[test]
fn an_absolute_target_is_served_by_its_own_host() {
    let upstream = Upstream::start();
    let gateway = in_front_of(&upstream);
    let mut client = gateway.client();
    client.write(b"GET http://named.example/there?x=1 HTTP/1.1\r\nHost: named.example\r\n\r\n");
    assert_eq!(client.read_response("GET").status(), 200);
    let row = gateway.data().row_of("/there");
    assert_eq!((row.host.as_str(), row.query.as_str()), ("named.example", "x=1"));
    let seen = upstream.last();
    assert_eq!(seen.target, "/there?x=1", "the upstream is no proxy");
    assert_eq!((seen.header("host"), seen.header("x-forwarded-host")), ("named.example", "named.example"));
    // Nobody can be judged by one host and served by another.
    client.write(b"GET http://named.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert_eq!(client.read_response("GET").status(), 400);
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn the_log_has_every_column_of_a_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    let request = Request::post("/form?step=2", "name=x")
        .header("User-Agent", "Mozilla/5.0 (test)")
        .header("Referer", "https://shop.example/start");
    gateway.client_of("198.51.100.7").host("shop.example").send(&request);
    let row = gateway.data().row_of("/form");
    let json: Value = serde_json::to_value(&row).unwrap();
    for (name, value) in [
        ("ip", "198.51.100.7"),
        ("method", "POST"),
        ("host", "shop.example"),
        ("query", "step=2"),
        ("user_agent", "Mozilla/5.0 (test)"),
        ("referer", "https://shop.example/start"),
        ("protocol", "HTTP/1.1"),
        ("verdict", "admitted"),
    ] {
        assert_eq!(json[name], value, "{json}");
    }
    assert_eq!((row.status, row.bytes_in, row.bytes_out), (200, 6, "hello from app".len() as u64));
    assert!(row.latency_us > 0);
    let by_sql: String = gateway.data().sql("SELECT method || ' ' || path || ' ' || ip FROM request_log");
    assert_eq!(by_sql, "POST /form 198.51.100.7");
}

#[test]
fn the_host_header_can_be_the_upstreams_own() {
    let upstream = Upstream::start();
    let lines = format!("servers = [\"{}\"]\nhost_header = \"upstream\"", upstream.url());
    let gateway = Gateway::start(config().upstream_with(&lines));
    Client::connect(gateway.address()).host("visitor.example").get("/");
    assert_eq!(upstream.last().header("host"), upstream.address().to_string());
    assert_eq!(upstream.last().header("x-forwarded-host"), "visitor.example");
}
