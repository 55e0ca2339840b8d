//! Upstreams under more load than they bear: full servers, the queue before them, the circuit breaker.

use std::thread;

use portcullis_testkit::{Client, Gateway, Request, Response, Upstream, eventually};

use crate::config;

fn before(servers: &[&Upstream], more: &str) -> Gateway {
    let urls: Vec<String> = servers.iter().map(|server| format!("{:?}", server.url())).collect();
    Gateway::start(config().upstream_with(&format!("servers = [{}]\n{more}", urls.join(", "))))
}

/// A request that a server is busy with until it is dropped.
fn hold(gateway: &Gateway) -> (Client, String) {
    let mut client = gateway.client();
    client.write_request(&Request::get("/events"));
    let name = client.read_head().header("x-upstream").unwrap().to_owned();
    (client, name)
}

/// Fails unless this is our page that says to come back, and why is in the log.
fn assert_busy(gateway: &Gateway, answer: &Response, reason: &str) -> u64 {
    assert_eq!(answer.status(), 503, "{}", answer.text());
    let row = gateway.data().row(&answer.decision_id());
    assert_eq!((row.status, &*row.reason, row.verdict.as_str()), (503, reason, "admitted"));
    assert!(answer.text().contains("Site busy"), "{}", answer.text());
    answer.header("retry-after").expect("a Retry-After").parse().unwrap()
}

#[test]
fn a_full_server_gets_nothing_more_and_others_take_over() {
    let [a, b] = ["a", "b"].map(Upstream::named);
    // A client has its answer a moment before the gateway is done with it, hence the queue.
    let gateway = before(&[&a, &b], "max_connections = 1\nqueue_timeout = \"500ms\"");
    let (first, full) = hold(&gateway);
    for _ in 0..6 {
        assert_ne!(gateway.get("/").header("x-upstream").unwrap(), full);
    }
    let (second, other) = hold(&gateway);
    assert_ne!(full, other);
    let asked = a.requests() + b.requests();
    assert_eq!(assert_busy(&gateway, &gateway.get("/"), "upstream:busy"), 1);
    assert_eq!(a.requests() + b.requests(), asked, "nobody was asked");
    let id = gateway.get("/").decision_id();
    gateway.data().row(&id);
    let why = gateway.cli_ok(&["why", &id]);
    assert!(why.contains("max_connections") && why.contains("503"), "{why}");
    drop((first, second));
    eventually("there is room again", || (gateway.get("/").status() == 200).then_some(()));
}

#[test]
fn a_request_waits_in_the_queue_until_there_is_room() {
    let upstream = Upstream::start();
    let gateway = before(&[&upstream], "max_connections = 1\nqueue = 1\nqueue_timeout = \"1m\"");
    let mut first = gateway.client();
    first.write_request(&Request::get("/event/5"));
    let head = first.read_head();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| gateway.get("/patient"));
        let metric = "portcullis_upstream_waiting{upstream=\"app\"}";
        eventually("one waits", || (gateway.metric(metric) > 0.5).then_some(()));
        assert_busy(&gateway, &gateway.get("/too-many"), "upstream:busy");
        assert_eq!(upstream.requests(), 1);
        assert_eq!(upstream.send_event("there"), 1);
        first.read_body(&head, "GET", |_| ());
        assert_eq!(waiting.join().unwrap().status(), 200);
        assert!(gateway.metric(metric) < 0.5);
    });
    assert_eq!(upstream.requests(), 2);
}

#[test]
fn waiting_has_an_end() {
    let upstream = Upstream::start();
    let gateway = before(&[&upstream], "max_connections = 1\nqueue_timeout = \"300ms\"");
    let (_held, _) = hold(&gateway);
    let answer = gateway.get("/");
    assert_busy(&gateway, &answer, "upstream:busy");
    let row = gateway.data().row(&answer.decision_id());
    assert!(row.latency_us >= 300_000, "{row:?}");
}

#[test]
fn no_server_ever_gets_more_than_its_cap() {
    let [a, b] = ["a", "b"].map(Upstream::named);
    let gateway = before(&[&a, &b], "max_connections = 2\nqueue_timeout = \"1m\"");
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut client = gateway.client();
                for _ in 0..10 {
                    assert_eq!(client.get("/slow/5").status(), 200);
                }
            });
        }
    });
    // A connection serves one request at a time, and is kept for the next.
    assert_eq!((a.requests() + b.requests(), a.connections() <= 2, b.connections() <= 2), (120, true, true));
}

#[test]
fn a_pool_of_which_too_much_fails_is_left_alone() {
    let upstream = Upstream::start();
    let breaker = "[upstream.breaker]\nmin_requests = 4\nwindow = \"10m\"\nopen_for = \"10m\"";
    let gateway = before(&[&upstream], breaker);
    let open = || gateway.metric("portcullis_upstream_circuit{upstream=\"app\",state=\"open\"}");
    for _ in 0..2 {
        assert_eq!(gateway.get("/").status(), 200);
    }
    for _ in 0..2 {
        assert_eq!((open(), gateway.client().post("/close", "").status()), (0.0, 502));
    }
    assert_eq!((open(), upstream.requests()), (1.0, 4));
    let retry_after = assert_busy(&gateway, &gateway.get("/"), "upstream:circuit_open");
    assert!((1..=600).contains(&retry_after), "{retry_after}");
    let json = gateway.client().send(&Request::get("/").header("Accept", "application/json"));
    assert_eq!((json.status(), &json.json()["status"]), (503, &503.into()));
    assert_eq!(upstream.requests(), 4, "nobody was asked");
    gateway.data().row(&json.decision_id());
    assert!(gateway.cli_ok(&["why", &json.decision_id()]).contains("circuit breaker"));
    assert!(gateway.stderr().contains("too many requests fail"), "{}", gateway.stderr());
}

#[test]
fn clients_that_keep_their_bodies_back_open_no_circuit_and_fail_no_server() {
    let upstream = Upstream::start();
    let lines =
        "read_timeout = \"300ms\"\nmax_fails = 1\n[upstream.breaker]\nmin_requests = 2\nwindow = \"10m\"";
    let gateway = before(&[&upstream], lines);
    let heads = ["Content-Length: 100\r\n\r\nhalf", "Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"];
    for head in heads.into_iter().cycle().take(6) {
        let mut client = gateway.client();
        client.write(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{head}").as_bytes());
        client.read_until("HTTP/1.1 504");
    }
    let server = format!("{{upstream=\"app\",server=\"{}\"}}", upstream.address());
    assert_eq!(gateway.metric(&format!("portcullis_upstream_server_failures_total{server}")), 0.0);
    assert_eq!(gateway.get("/").status(), 200);
}

#[test]
fn a_circuit_closes_when_the_probes_are_answered() {
    let upstream = Upstream::start();
    let breaker = "[upstream.breaker]\nmin_requests = 2\nwindow = \"10m\"\nopen_for = \"200ms\"\nprobes = 2";
    let gateway = before(&[&upstream], breaker);
    let open = || gateway.metric("portcullis_upstream_circuit{upstream=\"app\",state=\"open\"}");
    for _ in 0..2 {
        assert_eq!(gateway.client().post("/close", "").status(), 502);
    }
    // A probe that fails begins the pause anew.
    eventually("a probe is let through", || {
        (gateway.client().post("/close", "").status() == 502).then_some(())
    });
    for _ in 0..2 {
        eventually("a probe is answered", || (gateway.get("/").status() == 200).then_some(()));
    }
    assert_eq!(open(), 0.0);
    // What failed before is forgotten: one more failure is too few to judge by.
    assert_eq!(gateway.client().post("/close", "").status(), 502);
    assert_eq!((open(), gateway.get("/").status()), (0.0, 200));
}

#[test]
fn without_a_breaker_failures_never_keep_a_request_from_the_only_server() {
    let upstream = Upstream::start();
    let gateway = before(&[&upstream], "");
    for _ in 0..50 {
        assert_eq!(gateway.client().post("/close", "").status(), 502);
    }
    assert_eq!((gateway.get("/").status(), upstream.requests()), (200, 51));
    assert!(!gateway.metrics().contains("portcullis_upstream_circuit{"));
}
