//! HTTP/2 connections that flood, stall or break the protocol: frames written by hand, over TLS.

use std::time::Duration;

use portcullis_testkit::{Client, Gateway, GatewayConfig, H2Request, Upstream, client_config};

use crate::config;
use crate::tls::{Certificates, with_tls};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block without compression: method (0x82 is GET, 0x83 POST), path, and more lines.
fn block(method: u8, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let text = |block: &mut Vec<u8>, text: &str| {
        block.push(u8::try_from(text.len()).unwrap());
        block.extend_from_slice(text.as_bytes());
    };
    let mut block = vec![method, 0x87, 0x04];
    text(&mut block, path);
    block.push(0x01);
    text(&mut block, "a.example");
    for (name, value) in more {
        block.push(0x00);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

struct Site {
    gateway: Gateway,
    certificates: Certificates,
    upstream: Upstream,
}

impl Site {
    fn start(settings: impl FnOnce(GatewayConfig) -> GatewayConfig) -> Self {
        let upstream = Upstream::start();
        let certificates = Certificates::new();
        let gateway = with_tls(settings(config().upstream(&upstream)), &certificates, &["a.example"]);
        Self { gateway, certificates, upstream }
    }

    /// A connection on which `bytes` were sent.
    fn connection(&self, bytes: &[u8]) -> Client {
        let tls = client_config(&self.certificates.authority, &["h2"]);
        let mut client = Client::connect_tls(self.gateway.tls_address(), "a.example", &tls);
        let _ = client.try_write(bytes);
        client
    }

    /// The same after preface and settings.
    fn speaking(&self, bytes: &[u8]) -> Client {
        self.connection(
            &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..], bytes].concat(),
        )
    }

    /// The only row, as reason and path.
    fn only_row(&self) -> (String, String) {
        self.gateway.data().wait_for_count(1);
        let row = self.gateway.data().rows().remove(0);
        assert_eq!(row.protocol, "HTTP/2");
        (row.reason, row.path)
    }
}

/// The error codes of the frames of this kind.
fn codes(bytes: &[u8], kind: u8) -> Vec<u8> {
    let mut codes = Vec::new();
    let mut rest = bytes;
    while let Some((head, tail)) = rest.split_at_checked(9) {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, tail) = tail.split_at(length.min(tail.len()));
        if head[3] == kind {
            codes.push(payload[if kind == GOAWAY { 7 } else { 3 }]);
        }
        rest = tail;
    }
    codes
}

#[test]
fn floods_of_control_frames_end_the_connection_with_a_word_and_a_row() {
    for (name, flood) in [
        ("ping", frame(PING, 0, 0, &[0; 8]).repeat(2_000)),
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(2_000)),
        ("window update", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(3_000)),
        (
            "reset",
            (0..1_000_u32)
                .flat_map(|n| {
                    let get =
                        frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(0x82, "/slow/1000", &[]));
                    [get, frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()
                })
                .collect(),
        ),
        (
            "empty data",
            [
                frame(HEADERS, END_HEADERS, 1, &block(0x83, "/upload", &[])),
                frame(DATA, 0, 1, &[]).repeat(1_000),
            ]
            .concat(),
        ),
    ] {
        let site = Site::start(|config| config);
        let mut client = site.speaking(&flood);
        let told = client.read_to_end();
        let data = site.gateway.data();
        let row = data.row_where(name, |row| row.reason == "malformed:http2_flood");
        assert_eq!((row.verdict.as_str(), row.protocol.as_str()), ("malformed", "HTTP/2"), "{name}");
        // The word may be lost when the client has sent more than was read.
        assert!(told.is_empty() || codes(&told, GOAWAY).iter().all(|&code| code == 11), "{name}");
        let floods = data.rows().into_iter().filter(|row| row.reason == "malformed:http2_flood").count();
        assert_eq!(floods, 1, "{name}");
        // Others are served on.
        let other = site.certificates.h2_client(&site.gateway, "a.example");
        assert_eq!(other.send(H2Request::get("/")).unwrap().status(), 200, "{name}");
    }
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_given_up() {
    let settings = |config: GatewayConfig| config.server("head_timeout = \"1s\"");
    let half = frame(HEADERS, END_STREAM, 1, &block(0x82, "/half", &[]));
    for (name, bytes) in [
        ("half a preface", b"PRI * HTTP/2.0\r\n".to_vec()),
        (
            "half a block",
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[]), &half].concat(),
        ),
        (
            "half a frame",
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])[..5]].concat(),
        ),
    ] {
        let site = Site::start(settings);
        site.connection(&bytes).read_to_end();
        assert_eq!(site.only_row().0, "malformed:incomplete_head", "{name}");
        assert_eq!(site.upstream.requests(), 0);
    }
}

#[test]
fn a_connection_that_asks_for_nothing_leaves_one_row() {
    let site = Site::start(|config| config);
    let client = site.speaking(&[]);
    std::thread::sleep(Duration::from_millis(100));
    drop(client);
    assert_eq!(site.only_row().0, "malformed:incomplete_head");
}

#[test]
fn a_stream_that_the_library_refuses_leaves_one_row() {
    let site = Site::start(|config| config);
    for (n, header) in [("X-Upper", "1"), ("connection", "close")].into_iter().enumerate() {
        let bad = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(0x82, "/bad", &[header]));
        let mut client = site.speaking(&bad);
        // It has to be told before it leaves.
        std::thread::sleep(Duration::from_millis(200));
        client.finish_writing();
        client.read_to_end();
        site.gateway.data().wait_for_count(n as u64 + 1);
    }
    for row in site.gateway.data().rows() {
        assert_eq!(row.reason, "malformed:http2");
        assert!(row.path.ends_with("PROTOCOL_ERROR"), "{}", row.path);
    }
    assert_eq!(site.upstream.requests(), 0);
}

#[test]
fn a_response_that_is_not_taken_is_given_up() {
    let site = Site::start(|config| config.server("body_timeout = \"1s\""));
    // An initial window of 0 for every stream.
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(0x82, "/bytes/5000000", &[]));
    let client = site.speaking(&[settings, get].concat());
    let (reason, path) = site.only_row();
    assert_eq!((&*reason, &*path), ("malformed:slow_read", "/bytes/5000000"));
    drop(client);
    site.gateway.data().wait_for_count(1);
}

#[test]
fn a_client_with_wide_windows_that_reads_nothing_counts_with_all_of_its_streams() {
    let site = Site::start(|config| config.server("max_stalled = 40"));
    let mut asked = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    asked.extend(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]));
    for n in 0..80 {
        let block = block(0x82, "/bytes/100000000", &[]);
        asked.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block));
    }
    let client = site.speaking(&asked);
    let row = site.gateway.data().row_where("a stalled one", |row| row.path == "/bytes/100000000");
    assert_eq!((row.verdict.as_str(), &*row.reason), ("limited", "connections:stalled"));
    drop(client);
}

#[test]
fn an_upload_that_stops_is_given_up() {
    let site = Site::start(|config| config.server("body_timeout = \"1s\""));
    let post = frame(HEADERS, END_HEADERS, 1, &block(0x83, "/upload", &[("content-length", "1000")]));
    let mut client = site.speaking(&[post, frame(DATA, 0, 1, b"some")].concat());
    client.read_to_end();
    let (reason, path) = site.only_row();
    assert_eq!((&*reason, &*path), ("malformed:incomplete_body", "/upload"));
}

#[test]
fn an_upload_that_stops_after_its_answer_is_given_up_whatever_else_the_client_asks_for() {
    let site = Site::start(|config| config.server("body_timeout = \"1s\""));
    let get = |n: u32, path: &str| frame(HEADERS, END_HEADERS | END_STREAM, n, &block(0x82, path, &[]));
    let post = frame(HEADERS, END_HEADERS, 1, &block(0x83, "/early", &[("content-length", "1000")]));
    let mut client = site.speaking(&post);
    for n in (3..).step_by(2).take(20) {
        std::thread::sleep(Duration::from_millis(200));
        let _ = client.try_write(&get(n, "/more"));
    }
    let rows = site.gateway.data().rows();
    assert!(rows.iter().any(|row| row.path == "/early"), "it is still open");
}

#[test]
fn a_client_that_is_blocked_keeps_no_stream_open_by_asking_on() {
    let site = Site::start(|config| config);
    let get = |n: u32, path: &str| frame(HEADERS, END_HEADERS | END_STREAM, n, &block(0x82, path, &[]));
    let mut client = site.speaking(&get(1, "/events"));
    site.gateway.cli_ok(&["block", "127.0.0.1", "--reason", "test", "--force"]);
    // More often than the watch looks again at a client that it has let in.
    let ended = (3..).step_by(2).take(60).any(|n| {
        std::thread::sleep(Duration::from_millis(200));
        client.try_write(&get(n, "/more")).is_err()
    });
    assert!(ended, "it stayed open");
    assert_eq!(site.gateway.data().row_of("/events").verdict.as_str(), "blocked");
}

#[test]
fn an_idle_connection_is_closed_and_leaves_no_row_of_its_own() {
    let site = Site::start(|config| config.server("keepalive_timeout = \"1s\""));
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(0x82, "/", &[]));
    let mut client = site.speaking(&get);
    let told = client.read_to_end();
    assert_eq!(codes(&told, GOAWAY), [0]);
    let (reason, path) = site.only_row();
    assert_eq!((&*reason, &*path), ("", "/"));
}

#[test]
fn a_hundred_streams_at_once_are_all_served() {
    let site = Site::start(|config| config);
    let client = site.certificates.h2_client(&site.gateway, "a.example");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    (0..5).all(|_| {
                        client.send(H2Request::get("/bytes/3000")).is_ok_and(|answer| answer.status() == 200)
                    })
                })
            })
            .collect();
        assert!(all.into_iter().all(|one| one.join().unwrap()));
    });
}
