//! How large the parts of a request may be: 32 KiB of head, 100 header lines, 8 KiB of target, and here 64 KiB
//! of body. Each bound is tried at its edge.

use std::time::Duration;

use crate::ground::Ground;
use crate::suite::{Case, Step, run};

const MAX_HEAD: usize = 32 << 10;
const MAX_TARGET: usize = 8 << 10;
const MAX_BODY: usize = 64 << 10;

/// A head of exactly so many bytes.
fn head_of(bytes: usize) -> String {
    let (start, end) = ("GET /sizes HTTP/1.1\r\nHost: a\r\nX-Large: ", "\r\n\r\n");
    format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
}

fn lines_of(count: usize) -> String {
    let lines: String = (1..count).map(|n| format!("X-{n}: 1\r\n")).collect();
    format!("GET /sizes HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn target_of(bytes: usize) -> String {
    format!("/{}", "x".repeat(bytes - 1))
}

fn cases() -> Vec<Case> {
    let too_large = |name: &str, bytes: String| {
        Case::refused(name, bytes, "head_too_large").answers(&[431]).and_over_tls()
    };
    let too_long =
        |name: &str, bytes: String| Case::refused(name, bytes, "uri_too_long").answers(&[414]).and_over_tls();
    let served = |name: &str, bytes: String| Case::served(name, bytes, "GET /sizes HTTP/1.1").and_over_tls();
    let mut cases = Vec::new();
    cases.extend(served("a head of 30 KiB", head_of(30 << 10)));
    cases.extend(too_large("a head of 32 KiB and a byte", head_of(MAX_HEAD + 1)));
    cases.extend(too_large("a head of 33 KB", head_of(33_000)));
    cases.extend(too_large("a head of 1 MB", head_of(1_000_000)));
    cases.extend(too_large("a head of 300 KB that does not end", head_of(300_000).trim_end().to_owned()));
    cases.extend(too_large(
        "a name of 33 KB",
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}: 1\r\n\r\n", "x".repeat(33_000)),
    ));
    cases.extend(served("100 header lines", lines_of(100)));
    cases.extend(too_large("101 header lines", lines_of(101)));
    cases.extend(too_large("1,000 header lines", lines_of(1_000)));
    cases.extend(too_large(
        "5,000 header lines of one name",
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X:\r\n".repeat(5_000)),
    ));
    for (name, length) in [("8 KiB", MAX_TARGET), ("8 KiB less a byte", MAX_TARGET - 1)] {
        let line = format!("GET {} HTTP/1.1", target_of(length));
        let case = Case::served(format!("a target of {name}"), format!("{line}\r\nHost: a\r\n\r\n"), &line);
        cases.extend(case.and_over_tls());
    }
    for (name, length) in
        [("8 KiB and a byte", MAX_TARGET + 1), ("9 KB", 9_000), ("30 KB", 30_000), ("100 KB", 100_000)]
    {
        let target = target_of(length);
        cases.extend(too_long(
            &format!("a path of {name}"),
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ));
        let query = format!("/?{}", "x".repeat(length - 2));
        cases.extend(too_long(
            &format!("a query of {name}"),
            format!("GET {query} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ));
    }
    cases.extend(too_long("a target that does not end", format!("GET /{}", "x".repeat(20_000))));
    cases.extend(bodies());
    cases
}

fn bodies() -> Vec<Case> {
    let post = |length: usize, body: &str| {
        format!("POST /sizes HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let line = "POST /sizes HTTP/1.1";
    let full = "x".repeat(MAX_BODY);
    let chunked = |count: usize| {
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        format!(
            "POST /sizes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunk.repeat(count)
        )
    };
    let too_large = |name: &str, bytes: String| Case::refused(name, bytes, "body_too_large").answers(&[413]);
    vec![
        Case::served("a body of 64 KiB", post(MAX_BODY, &full), line).body(&full),
        Case::served("chunks of 64 KiB", chunked(4), line).body(&full),
        too_large("a body of 64 KiB and a byte", post(MAX_BODY + 1, &format!("{full}x"))),
        too_large("a body of 1 GB, announced", post(1_000_000_000, "")),
        too_large("a body of 1 GB, begun", post(1_000_000_000, &full)),
        too_large("a body of 8 EiB, announced", post(usize::MAX / 2, "")),
        too_large("chunks of 80 KiB", chunked(5)).perhaps_begun(line),
        too_large(
            "a chunk of 2 GB, announced",
            "POST /sizes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n".to_owned()
                + &full
                + "x",
        )
        .perhaps_begun(line),
        Case::served("a body in two parts", post(10, "hello"), line)
            .then(Step::Pause(Duration::from_millis(50)))
            .then(Step::Send(b"world".to_vec()))
            .body("helloworld"),
        Case::served(
            "100-continue",
            post(5, "").replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"),
            line,
        )
        .then(Step::Await(1))
        .then(Step::Send(b"hello".to_vec()))
        .answers(&[100, 200])
        .body("hello"),
        Case::served(
            "100-continue that does not wait",
            post(5, "hello").replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"),
            line,
        )
        .answers(&[100, 200])
        .or_answers(&[200])
        .body("hello"),
        too_large(
            "100-continue for too large a body",
            post(100_000, "").replace("\r\n\r\n", "\r\nExpect: 100-Continue\r\n\r\n"),
        ),
        Case::refused("half a body, then the end", post(10, "hello"), "incomplete_body")
            .then(Step::Finish)
            .or_reason("upstream:client_gone")
            .any_verdict()
            .answers(&[])
            .or_answers(&[400])
            .or_answers(&[408])
            .perhaps_begun(line),
        Case::refused(
            "half a chunk, then the end",
            "POST /sizes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            "incomplete_body",
        )
        .then(Step::Finish)
        .or_reason("upstream:client_gone")
        .any_verdict()
        .answers(&[])
        .or_answers(&[400])
        .or_answers(&[408])
        .perhaps_begun(line),
    ]
}

#[test]
fn what_is_too_large_is_refused_early() {
    let ground = Ground::with(|config| config.server("max_body = \"64KiB\""));
    run("sizes", &ground, &cases());
}
