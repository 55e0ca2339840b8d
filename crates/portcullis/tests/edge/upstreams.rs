//! Upstreams that fail: what the client gets, and how often a request is sent. Clients that go before the answer.
//!
//! The rule: two tries at most, and one for what was sent and is not safe to repeat; our page with 502.

use std::time::Duration;

use crate::ground::Ground;
use crate::suite::{Case, Step, run};

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH"] {
        let line = format!("{method} /drop HTTP/1.1");
        // A kept connection may have ended by itself: what is idempotent is tried once more.
        let is_idempotent = !matches!(method, "POST" | "PATCH");
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        let case = Case::served(format!("{method} that the upstream drops"), bytes, &line);
        let case = case.failing("upstream:broken").times(1, if is_idempotent { 2 } else { 1 });
        cases.extend(case.and_over_tls());
        let bytes = format!("{line}\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        let case = Case::served(format!("{method} with a body that the upstream drops"), bytes, &line);
        cases.push(case.body("hello").failing("upstream:broken").times(1, 1));
        let bytes = format!("{line}\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let case = Case::served(format!("{method} with chunks that the upstream drops"), bytes, &line);
        cases.push(case.body("hello").failing("upstream:broken").times(1, 1));
        let bytes = format!("{method} /dead HTTP/1.1\r\nHost: dead.example\r\n\r\n");
        let case = Case::served(format!("{method} without an upstream"), bytes, &line);
        cases.push(case.failing("upstream:connect").or_reason("upstream:none_healthy").times(0, 0));
        let bytes = format!("{method} /none HTTP/1.1\r\nHost: none.example\r\n\r\n");
        let case = Case::served(format!("{method} without a route"), bytes, &line);
        cases.push(case.failing("upstream:no_route").times(0, 0));
    }
    cases
}

/// A client that closes its side of the connection before the answer is taken for gone, as by other proxies.
fn clients_that_go() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in ["GET", "POST"] {
        let line = format!("{method} /later HTTP/1.1");
        let bytes = format!("{line}\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        for (how, end) in [("closes its side", Step::Finish), ("resets", Step::Reset)] {
            let case = Case::served(format!("{method}, then the client {how}"), &bytes, &line).body("hello");
            let case = case.then(Step::Pause(Duration::from_millis(100))).then(end);
            cases.extend(case.answers(&[]).reason("upstream:client_gone").closing().and_over_tls());
        }
    }
    cases
}

#[test]
fn a_request_that_was_sent_is_not_sent_again() {
    let routes = "[[upstream]]\nname = \"dead\"\nservers = [\"http://127.0.0.1:1\"]\n\
        [[route]]\nhosts = [\"dead.example\"]\nupstream = \"dead\"\n\
        [[route]]\nhosts = [\"a\"]\nupstream = \"app\"";
    run("upstreams", &Ground::with(|config| config.section(routes)), &[cases(), clients_that_go()].concat());
}
