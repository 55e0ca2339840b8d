//! Clients that begin and do not go on, and listeners with TLS that are spoken to without.
//!
//! The rule: a head has its deadline as a whole, a body between two pieces, and a minimum of bytes per second;
//! a handshake has the deadline of a head. Whoever misses one is told where that is possible, and closed.

use std::time::Duration;

use crate::ground::{Ground, Over};
use crate::suite::{Case, Step, run};

const LINE: &str = "POST /slow HTTP/1.1";

/// The bytes one by one, so many milliseconds apart.
fn dripping(bytes: &str, every: u64) -> Vec<Step> {
    let steps =
        bytes.bytes().flat_map(|byte| [Step::Send(vec![byte]), Step::Pause(Duration::from_millis(every))]);
    steps.collect()
}

fn heads() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, half) in [
        ("a byte", "G"),
        ("a method", "GET "),
        ("half a request line", "GET /slow"),
        ("a request line", "GET /slow HTTP/1.1\r\n"),
        ("half a header", "GET /slow HTTP/1.1\r\nHost: a\r\nX-Sl"),
        ("all but the last byte", "GET /slow HTTP/1.1\r\nHost: a\r\n\r"),
        ("an empty line", "\r\n"),
    ] {
        let case = Case::refused(format!("{name}, then silence"), half, "incomplete_head").answers(&[408]);
        cases.extend(case.and_over_tls());
    }
    let head = format!("GET /slow HTTP/1.1\r\nHost: a\r\nX-Slow: {}", "x".repeat(30));
    let case = Case::refused("a byte every 100 ms", "", "incomplete_head").steps(dripping(&head, 100));
    cases.extend(case.answers(&[408]).and_over_tls());
    let lines = (0..30).flat_map(|n| {
        [Step::Send(format!("X-{n}: 1\r\n").into_bytes()), Step::Pause(Duration::from_millis(100))]
    });
    let start = Step::Send(b"GET /slow HTTP/1.1\r\nHost: a\r\n".to_vec());
    let case = Case::refused("a line every 100 ms", "", "incomplete_head");
    cases.extend(case.steps([start].into_iter().chain(lines).collect()).answers(&[408]).and_over_tls());
    cases
}

fn bodies() -> Vec<Case> {
    let mut cases = Vec::new();
    let length = "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
    let chunked = "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (name, bytes) in [
        ("a length, no body", length.to_owned()),
        ("a length, half a body", format!("{length}hello")),
        ("chunks, none", chunked.to_owned()),
        ("chunks, half a size", format!("{chunked}5")),
        ("chunks, half of one", format!("{chunked}5\r\nhel")),
        ("chunks, no last one", format!("{chunked}5\r\nhello\r\n")),
        ("chunks, half an end", format!("{chunked}5\r\nhello\r\n0\r\n")),
    ] {
        let case = Case::refused(format!("{name}, then silence"), bytes, "incomplete_body").answers(&[408]);
        cases.extend(case.perhaps_begun(LINE).and_over_tls());
    }
    let waits = length.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let case = Case::refused("100-continue, then silence", waits, "incomplete_body");
    cases.push(case.answers(&[100, 408]).or_answers(&[408]).perhaps_begun(LINE));
    cases
}

fn without_tls() -> Vec<Case> {
    let bare = |name: &str, bytes: &[u8]| {
        Case::refused(name, bytes, "tls_handshake").over(Over::Bare).answers(&[]).or_answers(&[400])
    };
    let hello = b"\x16\x03\x01\x00\x31\x01\x00\x00\x2d\x03\x03";
    vec![
        bare("a request where TLS is spoken", b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"),
        bare("half a request where TLS is spoken", b"GET /slow").then(Step::Finish),
        bare("HTTP/2 where TLS is spoken", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        bare("garbage where TLS is spoken", b"\x00\x01\x02\x03\x04\x05\x06\x07"),
        bare("words where TLS is spoken", b"hello\r\n"),
        bare("a PROXY header where TLS is spoken", b"PROXY TCP4 192.0.2.9 192.0.2.1 5000 80\r\n"),
        bare("half a hello, then silence", hello),
        bare("half a hello, then the end", hello).then(Step::Finish),
        bare("one byte of a hello, then the end", b"\x16").then(Step::Finish),
        bare("a hello of garbage", &[&hello[..], &[0xff; 64]].concat()),
        bare("a record that is too long", b"\x16\x03\x01\xff\xff\x01"),
        bare("SSL 3", b"\x16\x03\x00\x00\x04\x01\x00\x00\x00"),
        bare("an alert first", b"\x15\x03\x03\x00\x02\x02\x28"),
        bare("application data first", b"\x17\x03\x03\x00\x05hello"),
    ]
}

#[test]
fn who_does_not_go_on_is_told_and_closed() {
    let settings = "head_timeout = \"2s\"\nbody_timeout = \"1s\"";
    let cases = [heads(), bodies(), without_tls()].concat();
    run("slow", &Ground::with(|config| config.server(settings)), &cases);
}
