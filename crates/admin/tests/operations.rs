//! The operations listener over real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_admin::{AdminError, HealthError, MAX_CONNECTIONS, Operations, Probes, ask_ready};

const LOOPBACK: &str = "127.0.0.1:0";
const METRICS: &str = "# TYPE portcullis_requests counter\n# EOF\n";
/// Long enough for a slow day; only reached when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn probes(ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Probes {
    Probes { metrics: Box::new(|| METRICS.to_owned()), ready: Box::new(ready) }
}

fn start() -> Operations {
    Operations::start(LOOPBACK.parse().unwrap(), probes(|| Ok(()))).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    read_all(&mut stream)
}

/// What arrives until the other side closes, be it politely or by a reset.
fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no answer: {error}"),
        }
    }
    String::from_utf8(answer).unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn metrics_are_open_metrics_text() {
    let operations = start();
    let answer = get(operations.address(), "/metrics");
    assert_eq!(status(&answer), "200");
    assert!(
        answer.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n")
    );
    assert_eq!(body(&answer), METRICS);
}

#[test]
fn health_says_ok_and_the_index_names_the_paths() {
    let operations = start();
    assert_eq!(body(&get(operations.address(), "/healthz")), "ok\n");
    let index = get(operations.address(), "/");
    assert_eq!(status(&index), "200");
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert!(body(&index).contains(path), "{index}");
    }
}

#[test]
fn readiness_follows_the_gateway_and_gives_the_reason() {
    let ready = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ready);
    let probe = move || {
        if seen.load(Ordering::SeqCst) { Ok(()) } else { Err("the log cannot be written".to_owned()) }
    };
    let operations = Operations::start(LOOPBACK.parse().unwrap(), probes(probe)).unwrap();

    let answer = get(operations.address(), "/readyz");
    assert_eq!((status(&answer), body(&answer)), ("503", "the log cannot be written\n"));
    let error = ask_ready(operations.address(), PATIENCE).unwrap_err();
    assert!(matches!(&error, HealthError::NotReady { reason, .. } if reason == "the log cannot be written"));

    ready.store(true, Ordering::SeqCst);
    assert_eq!(status(&get(operations.address(), "/readyz")), "200");
    ask_ready(operations.address(), PATIENCE).unwrap();
}

#[test]
fn other_paths_and_methods_are_refused() {
    let operations = start();
    let address = operations.address();
    for path in ["/nothing", "/metrics/", "/../metrics", "//metrics", "/Metrics"] {
        assert_eq!(status(&get(address, path)), "404", "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let answer = send(address, &format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(status(&answer), "405", "{method}");
        assert!(answer.to_ascii_lowercase().contains("\r\nallow: get"), "{answer}");
    }
}

#[test]
fn head_gives_the_length_and_no_body() {
    let operations = start();
    let answer = send(operations.address(), "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status(&answer), "200");
    assert!(answer.contains(&format!("\r\ncontent-length: {}\r\n", METRICS.len())), "{answer}");
    assert_eq!(body(&answer), "");
}

#[test]
fn a_connection_serves_one_request_only() {
    let operations = start();
    let one = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";
    let answer = send(operations.address(), &one.repeat(3));
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[test]
fn a_body_is_never_waited_for() {
    let operations = start();
    let answer = send(
        operations.address(),
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nhello",
    );
    assert_eq!(status(&answer), "405");
}

#[test]
fn an_oversized_or_malformed_head_loses_its_connection() {
    let operations = start();
    let address = operations.address();
    let mut stream = connect(address);
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    // The other side may close while we still write.
    let _outcome = stream.write_all(head.as_bytes());
    let answer = read_all(&mut stream);
    assert!(["", "431"].contains(&status(&answer)), "{answer}");
    assert!(["", "400"].contains(&status(&send(address, "\u{16}\u{3}\u{1} not HTTP\r\n\r\n"))));
    assert_eq!(status(&get(address, "/healthz")), "200");
}

#[test]
fn idle_connections_up_to_the_cap_do_not_shut_others_out_for_good() {
    let operations = start();
    let address = operations.address();
    let idle: Vec<TcpStream> = (0..MAX_CONNECTIONS + 8).map(|_| connect(address)).collect();
    assert_eq!(status(&get(address, "/healthz")), "200");
    drop(idle);
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let operations = start();
    let mut stream = connect(operations.address());
    stream.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").unwrap();
    assert_eq!(status(&read_all(&mut stream)), "");
}

#[test]
fn a_panicking_probe_costs_one_connection_and_no_more() {
    let operations = Operations::start(LOOPBACK.parse().unwrap(), probes(|| panic!("on purpose"))).unwrap();
    assert_eq!(get(operations.address(), "/readyz"), "");
    assert_eq!(status(&get(operations.address(), "/healthz")), "200");
}

#[test]
fn an_address_in_use_is_named_together_with_the_remedy() {
    let taken = TcpListener::bind(LOOPBACK).unwrap();
    let address = taken.local_addr().unwrap();
    let error = Operations::start(address, probes(|| Ok(()))).unwrap_err();
    assert!(matches!(error, AdminError::AddressInUse { .. }));
    let says = error.to_string();
    assert!(says.contains(&address.to_string()) && says.contains("choose another address"), "{says}");
}

#[test]
fn after_a_shutdown_the_address_is_free_again() {
    let operations = start();
    let address = operations.address();
    assert_eq!(status(&get(address, "/healthz")), "200");
    let idle = connect(address);
    operations.shutdown();
    let again = Operations::start(address, probes(|| Ok(()))).unwrap();
    assert_eq!(status(&get(again.address(), "/healthz")), "200");
    drop(idle);
}

#[test]
fn dropping_the_handle_ends_the_listener() {
    let operations = start();
    let address = operations.address();
    drop(operations);
    let begun = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still listening");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_health_check_tells_a_dead_gateway_from_another_program() {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 256];
        let _length = stream.read(&mut request).unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
    });
    let error = ask_ready(address, PATIENCE).unwrap_err();
    assert!(matches!(error, HealthError::NotAGateway { .. }), "{error}");
    other.join().unwrap();

    let error = ask_ready(address, PATIENCE).unwrap_err();
    assert!(matches!(error, HealthError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn a_health_check_does_not_wait_for_ever() {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let error = ask_ready(listener.local_addr().unwrap(), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, HealthError::TooSlow { .. }), "{error}");
}
