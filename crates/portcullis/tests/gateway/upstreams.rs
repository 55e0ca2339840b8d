//! Which upstream and which of its servers gets a request, and what happens when none can answer.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use portcullis_testkit::{
    Client, Gateway, RawUpstream, Refusing, Request, Response, Silent, Upstream, eventually,
};

use crate::{behind_proxy, config};

/// Which server answered.
fn server(answer: &Response) -> String {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.header("x-upstream").unwrap().to_owned()
}

/// The lines of an upstream with these servers.
fn servers(upstreams: &[&Upstream], more: &str) -> String {
    let urls: Vec<String> = upstreams.iter().map(|upstream| format!("{:?}", upstream.url())).collect();
    format!("servers = [{}]\n{more}", urls.join(", "))
}

/// Fails unless the answer is our page and the log has this reason.
fn assert_failure(gateway: &Gateway, answer: &Response, status: u16, reason: &str) {
    assert_eq!(answer.status(), status);
    let row = gateway.data().row(&answer.decision_id());
    assert_eq!((row.status, row.reason.as_str(), row.verdict.as_str()), (status, reason, "admitted"));
}

#[test]
fn host_and_path_choose_the_upstream() {
    let upstreams = ["shop", "api", "any"].map(Upstream::named);
    let mut config = config();
    for (upstream, route) in upstreams.iter().zip([
        "hosts = [\"shop.example\", \"*.shop.example\"]",
        "hosts = [\"shop.example\"]\npaths = [\"/api/*\"]",
        "",
    ]) {
        let name = server(&Client::connect(upstream.address()).get("/"));
        config = config
            .section(&format!("[[upstream]]\nname = \"{name}\"\nservers = [\"{}\"]", upstream.url()))
            .section(&format!("[[route]]\nupstream = \"{name}\"\n{route}"));
    }
    let gateway = Gateway::start(config);
    for (host, path, name) in [
        ("shop.example", "/", "shop"),
        ("SHOP.example:8080", "/", "shop"),
        ("www.shop.example", "/api/x", "shop"),
        ("shop.example", "/api", "api"),
        ("shop.example", "/api/x", "api"),
        ("shop.example", "/API/x", "api"),
        ("shop.example", "/apis", "shop"),
        ("notshop.example", "/api/x", "any"),
        ("[::1]:80", "/", "any"),
    ] {
        assert_eq!(server(&gateway.client().host(host).get(path)), name, "{host}{path}");
    }
}

#[test]
fn a_request_without_a_route_gets_502() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        config().upstream(&upstream).section("[[route]]\nhosts = [\"only.example\"]\nupstream = \"app\""),
    );
    assert_eq!(gateway.client().host("only.example").get("/").status(), 200);
    assert_failure(&gateway, &gateway.client().host("other.example").get("/"), 502, "upstream:no_route");
}

#[test]
fn servers_take_turns() {
    let [a, b] = ["a", "b"].map(Upstream::named);
    let gateway = Gateway::start(config().upstream_with(&servers(&[&a, &b], "")));
    let mut client = gateway.client();
    let names: Vec<String> = (0..10).map(|_| server(&client.get("/"))).collect();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

#[test]
fn a_heavier_server_takes_a_larger_share() {
    let [a, b] = ["a", "b"].map(Upstream::named);
    let lines = format!("servers = [\"{}\", {{ url = \"{}\", weight = 3 }}]", a.url(), b.url());
    let gateway = Gateway::start(config().upstream_with(&lines));
    let mut client = gateway.client();
    for _ in 0..20 {
        client.get("/");
    }
    assert_eq!((a.requests(), b.requests()), (5, 15));
}

#[test]
fn the_server_with_the_fewest_connections_is_chosen() {
    let [a, b] = ["a", "b"].map(Upstream::named);
    let lines = servers(&[&a, &b], "balance = \"least-connections\"");
    let gateway = Gateway::start(config().upstream_with(&lines));
    let mut streaming = gateway.client();
    streaming.write_request(&Request::get("/events"));
    let busy = streaming.read_head().header("x-upstream").unwrap().to_owned();
    let mut client = gateway.client();
    for _ in 0..10 {
        assert_ne!(server(&client.get("/")), busy);
    }
}

#[test]
fn consistent_hashing_keeps_a_client_with_its_server() {
    let mut upstreams: Vec<Upstream> = ["a", "b", "c"].map(Upstream::named).into();
    let lines = servers(&upstreams.iter().collect::<Vec<_>>(), "balance = \"consistent-hash\"");
    let gateway = Gateway::start(config().upstream_with(&lines).behind_local_proxy());
    let of_all = || -> BTreeMap<u8, String> {
        (1..=30).map(|n| (n, server(&gateway.client_of(&format!("198.51.100.{n}")).get("/")))).collect()
    };
    let first = of_all();
    assert_eq!(first, of_all());
    for name in ["a", "b", "c"] {
        assert!(first.values().any(|chosen| chosen == name), "nobody has the server {name}");
    }
    // The clients of a server that is gone move; nobody else does.
    drop(upstreams.remove(0));
    for (client, chosen) in of_all() {
        assert!(first[&client] == "a" || first[&client] == chosen, "client {client} moved to {chosen}");
        assert_ne!(chosen, "a");
    }
}

#[test]
fn a_health_check_takes_a_server_out_and_back() {
    let [a, b] = ["a", "b"].map(Upstream::named);
    let health = "[upstream.health]\npath = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 2";
    let gateway = Gateway::start(config().upstream_with(&servers(&[&a, &b], health)));
    let healthy = || gateway.metric("portcullis_upstream_healthy{upstream=\"app\"}");
    assert!(healthy() > 1.5);
    a.set_healthy(false);
    eventually("the server is taken out", || (healthy() < 1.5).then_some(()));
    let mut client = gateway.client();
    for _ in 0..6 {
        assert_eq!(server(&client.get("/")), "b");
    }
    b.set_healthy(false);
    eventually("no server is left", || (healthy() < 0.5).then_some(()));
    assert_failure(&gateway, &gateway.get("/"), 502, "upstream:none_healthy");
    a.set_healthy(true);
    b.set_healthy(true);
    eventually("both are back", || (healthy() > 1.5).then_some(()));
    let names: Vec<String> = (0..2).map(|_| server(&client.get("/"))).collect();
    assert_ne!(names[0], names[1]);
    assert!(gateway.data().rows().iter().all(|row| row.path != "/healthz"), "checks are no requests");
}

#[test]
fn an_upstream_that_is_down_gets_502_and_a_row() {
    let nobody = Refusing::new();
    let gateway =
        Gateway::start(config().upstream_with(&format!("servers = [\"http://{}\"]", nobody.address())));
    assert_failure(&gateway, &gateway.get("/page"), 502, "upstream:connect");
    let json = gateway.client().send(&Request::get("/").header("Accept", "application/json"));
    assert_eq!((json.status(), &json.json()["status"]), (502, &502.into()));
}

#[test]
fn an_upstream_that_does_not_accept_gets_502_within_the_connect_timeout() {
    let silent = Silent::new();
    let lines = format!("servers = [\"http://{}\"]\nconnect_timeout = \"300ms\"", silent.address());
    let gateway = Gateway::start(config().upstream_with(&lines));
    let answer = gateway.get("/");
    assert_failure(&gateway, &answer, 502, "upstream:connect_timeout");
    let row = gateway.data().row(&answer.decision_id());
    assert!(row.latency_us >= 300_000, "{row:?}");
}

#[test]
fn an_upstream_that_is_too_slow_gets_504_and_a_row() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream_with(&servers(&[&upstream], "read_timeout = \"200ms\"")));
    assert_failure(&gateway, &gateway.get("/silent"), 504, "upstream:read_timeout");
    assert_eq!(gateway.get("/slow/20").status(), 200);
    // A slow answer is not asked for twice.
    assert_eq!(upstream.requests(), 2);
}

#[test]
fn a_body_that_was_sent_is_never_sent_again() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream));
    let mut client = gateway.client();
    for method in ["POST", "PUT"] {
        let mut on_kept_connections = 0;
        for round in 1..=20 {
            // Makes a connection that the next request may use again, on which the upstream then hangs up.
            client.get("/");
            let kept = upstream.last().connection;
            let answer = gateway.client().send(&Request::new(method, "/close").body("order one"));
            assert_failure(&gateway, &answer, 502, "upstream:broken");
            let seen = upstream.seen();
            let orders: Vec<_> = seen.iter().filter(|seen| seen.method == method).collect();
            assert_eq!(orders.len(), round, "the upstream got an order twice");
            on_kept_connections += usize::from(orders[round - 1].connection == kept);
            if on_kept_connections == 3 {
                break;
            }
        }
        assert_eq!(on_kept_connections, 3, "no connection was kept");
    }
}

#[test]
fn a_request_is_tried_twice_at_most() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream));
    let mut client = gateway.client();
    client.get("/");
    let answer = client.get("/close");
    assert_failure(&gateway, &answer, 502, "upstream:broken");
    let tries = upstream.seen().iter().filter(|seen| seen.target == "/close").count();
    assert!(tries <= 2, "{tries} tries");
}

#[test]
fn another_server_is_tried_when_the_first_refuses() {
    let nobody = Refusing::new();
    let upstream = Upstream::start();
    let lines = format!("servers = [\"http://{}\", \"{}\"]", nobody.address(), upstream.url());
    let gateway = Gateway::start(config().upstream_with(&lines));
    let mut client = gateway.client();
    for n in 0..10 {
        let answer = client.post("/echo", &format!("body {n}"));
        assert_eq!((answer.status(), &answer.json()["body"]), (200, &format!("body {n}").into()));
    }
    assert_eq!(upstream.requests(), 10);
}

#[test]
fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config().upstream(&upstream));
    let mut client = gateway.client();
    client.write_request(&Request::get("/half"));
    let head = client.read_head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("131072")));
    let came = client.try_read_body(&head, "GET", |_| ()).expect_err("half a body is not a whole one");
    assert!((1..=65_536).contains(&came), "{came}");
    let row = gateway.data().row_of("/half");
    assert_eq!((row.status, row.reason.as_str()), (200, "upstream:broken"));
}

#[test]
fn a_broken_upstream_does_not_close_the_door_for_others() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(behind_proxy(&upstream));
    for _ in 0..5 {
        assert_eq!(gateway.get("/close").status(), 502);
        assert_eq!(gateway.get("/").status(), 200);
    }
}

#[test]
fn an_upstream_by_name_is_found() {
    let upstream = Upstream::start();
    let lines = format!("servers = [\"http://localhost:{}\"]", upstream.address().port());
    let gateway = Gateway::start(config().upstream_with(&lines));
    assert_eq!(gateway.get("/").status(), 200);
}

/// A gateway in front of an upstream that answers with these bytes and closes after a pause.
fn before_raw(answer: &str, pause: Duration) -> (Gateway, RawUpstream) {
    let upstream = RawUpstream::answering(answer, pause);
    (Gateway::start(config().upstream_with(&format!("servers = [\"{}\"]", upstream.url()))), upstream)
}

#[test]
fn an_upstream_that_speaks_http_1_0_does_not_cost_the_client_its_connection() {
    let answer = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end";
    let (gateway, upstream) = before_raw(answer, Duration::ZERO);
    let mut client = gateway.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((&*answer.head.version, &*answer.text()), ("HTTP/1.1", "until the end"));
    }
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn a_kept_connection_that_the_upstream_has_closed_fails_no_request() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok";
    let (gateway, upstream) = before_raw(answer, Duration::from_millis(20));
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.post("/order", "one").status(), 200);
        // The upstream's patience with an idle connection ends meanwhile.
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(upstream.requests(), 5);
}

#[test]
fn an_answer_that_is_no_http_gets_502() {
    for answer in
        ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 2OO OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]
    {
        let (gateway, _upstream) = before_raw(answer, Duration::ZERO);
        assert_failure(&gateway, &gateway.get("/"), 502, "upstream:broken");
    }
}

#[test]
fn an_upstream_that_only_promises_an_answer_gets_502() {
    let (gateway, _upstream) = before_raw("HTTP/1.1 100 Continue\r\n\r\n", Duration::ZERO);
    let mut client = gateway.client();
    client.write_request(&Request::post("/", "body").header("Expect", "100-continue"));
    assert_failure(&gateway, &client.read_response("POST"), 502, "upstream:broken");
}
