//! More than one request on a connection before the first was answered.
//!
//! The rule: the first is served, its answer says `Connection: close`, and what followed is thrown away. One
//! connection, one row, one request at the upstream.

use std::time::Duration;

use crate::ground::Ground;
use crate::suite::{Case, Step, run};

const FIRST: &[(&str, &str, &str, &str)] = &[
    ("GET", "GET /first HTTP/1.1\r\nHost: a\r\n\r\n", "GET /first HTTP/1.1", ""),
    ("HEAD", "HEAD /first HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /first HTTP/1.1", ""),
    (
        "a length",
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /first HTTP/1.1",
        "hello",
    ),
    (
        "a length of 0",
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST /first HTTP/1.1",
        "",
    ),
    (
        "chunks",
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST /first HTTP/1.1",
        "hello",
    ),
    (
        "a GET with a body",
        "GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "GET /first HTTP/1.1",
        "hello",
    ),
];

const REST: &[(&str, &str)] = &[
    ("a request", "GET /second HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two requests", "GET /second HTTP/1.1\r\nHost: a\r\n\r\nGET /third HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a request with a body", "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
    ("half a request", "GET /second HT"),
    ("a bad request", "broken\r\n\r\n"),
    ("bytes", "\x01\x02\x03"),
    ("one byte", "x"),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &(first_name, first, line, body) in FIRST {
        for &(rest_name, rest) in REST {
            let name = format!("{first_name}, then {rest_name}");
            let case = Case::served(name, format!("{first}{rest}"), line).body(body).closing();
            cases.extend(case.and_over_tls());
        }
    }
    // An empty line after a body that was not counted is what old clients do; it is no request.
    let (_, first, line, body) = FIRST[2];
    cases.push(Case::served("a length, then CR LF", format!("{first}\r\n"), line).body(body).either_end());
    // What comes before the answer is discarded, even if it comes on its own.
    let slow = Case::served("in two writes", first, line).body(body).closing();
    cases.push(slow.steps(vec![
        Step::Send(first.as_bytes()[..40].to_vec()),
        Step::Pause(Duration::from_millis(30)),
        Step::Send([&first.as_bytes()[40..], REST[0].1.as_bytes()].concat()),
    ]));
    let refused = format!("GET /bad%00 HTTP/1.1\r\nHost: a\r\n\r\n{}", REST[0].1);
    cases.push(Case::refused("a refused request, then a request", refused, "target"));
    cases
}

#[test]
fn what_follows_a_request_before_its_answer_is_thrown_away() {
    run("pipelining", &Ground::direct(), &cases());
}
