//! Which requests are sent a second time when a server fails, by what the servers have seen.

use std::time::Duration;

use portcullis_testkit::{Gateway, RawUpstream, Refusing, Request, Upstream};

use crate::config;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Two servers that take turns whatever happens.
fn before_both(first: &str, second: &str) -> Gateway {
    Gateway::start(config().upstream_with(&format!("servers = [\"{first}\", \"{second}\"]\nmax_fails = 0")))
}

fn before(only: &str) -> Gateway {
    Gateway::start(config().upstream_with(&format!("servers = [\"{only}\"]")))
}

#[test]
fn a_request_without_side_effects_that_one_server_resets_is_answered_by_the_other() {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"] {
        let (resetting, good) = (RawUpstream::resetting(), Upstream::start());
        let gateway = before_both(&resetting.url(), &good.url());
        for _ in 0..6 {
            assert_eq!(gateway.client().send(&Request::new(method, "/")).status(), 200, "{method}");
        }
        assert_eq!(good.requests(), 6);
        // One each, however often it was tried.
        gateway.data().wait_for_count(6);
        assert!((2..=6).contains(&resetting.requests()), "{} of 6 {method}", resetting.requests());
    }
}

#[test]
fn a_request_that_may_have_changed_something_is_sent_once() {
    for request in [
        Request::post("/order", "one"),
        Request::post("/order", ""),
        Request::new("PATCH", "/order").body("one"),
        // It may be repeated, but its body is gone.
        Request::new("PUT", "/order").body("one"),
    ] {
        let (resetting, good) = (RawUpstream::resetting(), Upstream::start());
        let gateway = before_both(&resetting.url(), &good.url());
        let statuses: Vec<u16> = (0..6).map(|_| gateway.client().send(&request).status()).collect();
        let failed = statuses.iter().filter(|status| **status == 502).count();
        assert_eq!((failed, resetting.requests(), good.requests()), (3, 3, 3), "{request:?}: {statuses:?}");
    }
}

#[test]
fn both_servers_are_asked_once_when_both_reset() {
    let both = [RawUpstream::resetting(), RawUpstream::resetting()];
    let gateway = before_both(&both[0].url(), &both[1].url());
    let answer = gateway.get("/");
    assert_eq!(answer.status(), 502);
    assert_eq!(both.each_ref().map(RawUpstream::requests), [1, 1]);
    assert_eq!(gateway.data().row(&answer.decision_id()).reason, "upstream:broken");
}

#[test]
fn the_only_server_is_not_asked_again() {
    let only = RawUpstream::resetting();
    assert_eq!(before(&only.url()).get("/").status(), 502);
    assert_eq!(only.requests(), 1);
}

#[test]
fn a_kept_connection_that_breaks_costs_a_get_nothing_and_repeats_no_post() {
    let only = RawUpstream::resetting_kept_connections(OK);
    let gateway = before(&only.url());
    let mut client = gateway.client();
    assert_eq!(client.get("/first").status(), 200);
    assert_eq!(client.get("/second").status(), 200);
    assert_eq!(only.requests(), 3, "the second one on the kept connection and again on a new one");
    let order = client.post("/order", "one");
    assert_eq!((order.status(), only.requests()), (502, 4));
    // That says nothing about the server.
    let failures = format!(
        "portcullis_upstream_server_failures_total{{upstream=\"app\",server=\"{}\"}}",
        only.address()
    );
    assert!(gateway.metric(&failures) < 0.5);
}

#[test]
fn a_post_that_nobody_has_seen_goes_to_another_server() {
    let (nobody, good) = (Refusing::new(), Upstream::start());
    let gateway = before_both(&format!("http://{}", nobody.address()), &good.url());
    for n in 0..6 {
        let answer = gateway.client().post("/echo", &format!("body {n}"));
        assert_eq!((answer.status(), &answer.json()["body"]), (200, &format!("body {n}").into()));
    }
    assert_eq!(good.requests(), 6);
}

#[test]
fn an_answer_that_is_an_error_is_an_answer() {
    let error = RawUpstream::answering(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        Duration::ZERO,
    );
    let good = Upstream::start();
    let gateway = before_both(&error.url(), &good.url());
    let statuses: Vec<u16> = (0..6).map(|_| gateway.get("/").status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 3);
    assert_eq!((error.requests(), good.requests()), (3, 3));
}
