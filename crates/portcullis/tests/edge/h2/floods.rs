//! Frames that only cost, far too many of them, and streams that do not go on: the connection or the stream
//! ends, one row says why, and other connections are served meanwhile.

use super::cases::{get, request};
use super::wire::*;
use super::{Accept, H2Case, run};
use crate::ground::Ground;

/// GOAWAY if there was time for it, and the end.
const ENDS: [Accept; 2] = [Accept::Connection(&[ENHANCE_YOUR_CALM, PROTOCOL_ERROR]), Accept::Closed];

fn times(count: u32, bytes: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(bytes).collect()
}

fn whole(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("/flood"))
}

fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", "/flood", &[]))
}

fn flood(name: &str, bytes: Vec<u8>) -> H2Case {
    // Where the library notices first, the row says what it told the client.
    H2Case::new(name, vec![bytes], &ENDS).reason("malformed:http2_flood")
}

fn too_many() -> Vec<H2Case> {
    let begun = frame(HEADERS, END_STREAM, 1, &get("/flood"));
    let continued =
        |count, bytes: &[u8]| [begun.clone(), times(count, |_| frame(CONTINUATION, 0, 1, bytes))].concat();
    let reset = |n: u32| [whole(2 * n + 1), rst_stream(2 * n + 1, 8)].concat();
    let opened_and_reset = |n: u32| [open(2 * n + 1), rst_stream(2 * n + 1, 8)].concat();
    vec![
        flood("3,000 PING", times(3_000, |_| frame(PING, 0, 0, &[0; 8]))),
        flood("3,000 answers to no PING", times(3_000, |_| frame(PING, ACK, 0, &[0; 8]))),
        flood("1,000 SETTINGS", times(1_000, |n| settings(&[(4, n)]))),
        flood("1,000 empty SETTINGS", times(1_000, |_| settings(&[]))),
        flood("3,000 acknowledgements of SETTINGS", times(3_000, |_| frame(SETTINGS, ACK, 0, &[]))),
        flood("5,000 PRIORITY", times(5_000, |n| priority(2 * n + 1, 0, 7))),
        flood("5,000 WINDOW_UPDATE", times(5_000, |_| window_update(0, 1))),
        flood("3,000 unknown frames", times(3_000, |_| frame(0x42, 0, 0, &[0; 8]))),
        flood("1,000 empty DATA", [open(1), times(1_000, |_| frame(DATA, 0, 1, &[]))].concat())
            .with_requests(0, 2),
        flood("1,000 DATA of padding", [open(1), times(1_000, |_| frame(DATA, PADDED, 1, &[1, 0]))].concat())
            .with_requests(0, 2),
        flood("5,000 WINDOW_UPDATE of a stream", [open(1), times(5_000, |_| window_update(1, 1))].concat())
            .with_requests(0, 2),
        // Each request that began has its row too.
        flood("1,000 requests that are reset", times(1_000, reset)).with_requests(0, 501),
        flood("1,000 uploads that are reset", times(1_000, opened_and_reset)).with_requests(0, 501),
        flood("1,000 empty CONTINUATION", continued(1_000, &[])),
        flood("1,000 CONTINUATION of a byte", continued(1_000, &[0x82])),
        flood("CONTINUATION of 1 MiB", continued(64, &[0x82; MAX_FRAME_SIZE])),
    ]
}

/// As much as good clients send.
fn not_too_many() -> Vec<H2Case> {
    let served = |name: &str, bytes: Vec<u8>| H2Case::new(name, vec![bytes], &[Accept::Lives]);
    let page = [settings(&[(4, 0)]), times(40, |n| whole(2 * n + 1))].concat();
    let left = times(40, |n| rst_stream(2 * n + 1, 8));
    let mut cases = vec![
        served("50 PING", times(50, |_| frame(PING, 0, 0, &[0; 8]))).idle(),
        served("10 SETTINGS", times(10, |_| settings(&[]))).idle(),
        served("100 PRIORITY", times(100, |n| priority(2 * n + 1, 0, 7))).idle(),
        served("100 WINDOW_UPDATE", times(100, |_| window_update(0, 1))).idle(),
        served("a page of 40 parts that is left", page).pausing().sending(left).with_requests(40, 40),
    ];
    // Others go on, whatever those do.
    let other = |n| H2Case::new(format!("a visitor, {n}"), vec![whole(1)], &[Accept::Answer(1, 200)]);
    cases.extend((0..40).map(|n| other(n).with_requests(1, 1)));
    cases
}

/// With deadlines of a second.
fn slow() -> Vec<H2Case> {
    let silent = |name: &str, bytes: Vec<u8>| {
        H2Case::new(name, vec![bytes], &[Accept::Closed, ENDS[0].clone(), Accept::Connection(&[NO_ERROR])])
            .reason("malformed:incomplete_head")
    };
    let stalled = |name: &str, bytes: Vec<u8>, kind: &str| {
        let any = Accept::Stream(1, &[NO_ERROR, PROTOCOL_ERROR, 2, 8, ENHANCE_YOUR_CALM]);
        let case =
            H2Case::new(name, vec![bytes], &[any, Accept::Answer(1, 408), ENDS[0].clone(), Accept::Closed]);
        case.with_requests(1, 1).reason(kind)
    };
    let head = whole(1);
    vec![
        silent("half a preface, then silence", PREFACE[..10].to_vec()).without_handshake(),
        silent("a preface, then silence", PREFACE.to_vec()).without_handshake(),
        silent("half a frame's head, then silence", head[..5].to_vec()),
        silent("half of HEADERS, then silence", head[..20].to_vec()),
        silent("HEADERS that are not continued", frame(HEADERS, END_STREAM, 1, &get("/flood"))),
        silent("half a PING", frame(PING, 0, 0, &[0; 8])[..12].to_vec()),
        stalled("an upload without a byte", open(1), "malformed:incomplete_body"),
        stalled(
            "half an upload",
            [open(1), frame(DATA, 0, 1, b"hello")].concat(),
            "malformed:incomplete_body",
        ),
        stalled("a window of 0", [settings(&[(4, 0)]), whole(1)].concat(), "malformed:slow_read"),
        stalled("a window of 1", [settings(&[(4, 1)]), whole(1)].concat(), "malformed:slow_read"),
    ]
}

#[test]
fn floods_end_and_others_go_on() {
    let cases = [too_many(), not_too_many()].concat();
    run("h2 floods", &Ground::direct(), &cases);
}

#[test]
fn streams_that_do_not_go_on_end() {
    let settings = "head_timeout = \"2s\"\nbody_timeout = \"1s\"\nkeepalive_timeout = \"2s\"";
    run("h2 slow", &Ground::with(|config| config.server(settings)), &slow());
}
