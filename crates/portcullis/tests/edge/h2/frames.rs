//! Frames, streams and flow control (RFC 9113, sections 3 to 7), and the extensions that must be ignored.

use super::cases::{get, request};
use super::wire::*;
use super::{Accept, H2Case, run};
use crate::ground::Ground;

const PROTOCOL: Accept = Accept::Connection(&[PROTOCOL_ERROR]);
/// The library names the kind of few errors of a connection, and says PROTOCOL_ERROR for the others: less to
/// learn for the client, the same end for the connection.
const SIZE: Accept = Accept::Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
const FLOW: Accept = Accept::Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]);
const COMPRESSION: Accept = Accept::Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);
const STREAM_IS_CLOSED: [Accept; 2] =
    [Accept::Stream(1, &[STREAM_CLOSED]), Accept::Connection(&[STREAM_CLOSED, PROTOCOL_ERROR])];

/// HEADERS of a GET that is whole.
fn whole(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("/frames"))
}

/// HEADERS of a POST that goes on.
fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", "/frames", &[]))
}

fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

fn served(name: &str, steps: Vec<Vec<u8>>) -> H2Case {
    H2Case::new(name, steps, &[Accept::Answer(1, 200)]).with_requests(1, 1)
}

/// An error of the connection before any request.
fn fatal(name: &str, steps: Vec<Vec<u8>>, accept: Accept) -> H2Case {
    H2Case::new(name, steps, &[accept])
}

/// An error of the connection after a request began.
fn breaks(name: &str, steps: Vec<Vec<u8>>, accept: Accept) -> H2Case {
    fatal(name, steps, accept).with_requests(0, 1)
}

fn lives(name: &str, steps: Vec<Vec<u8>>) -> H2Case {
    H2Case::new(name, steps, &[Accept::Lives]).idle()
}

/// Answers that wait, so that the stream stays half-closed on the client's side.
fn held() -> Vec<u8> {
    settings(&[(4, 0)])
}

fn starting() -> Vec<H2Case> {
    let preface = |bytes: &[u8]| vec![bytes.to_vec()];
    let refused = [PROTOCOL, Accept::Closed];
    vec![
        H2Case::new("3.4: a preface", vec![PREFACE.to_vec(), settings(&[])], &[Accept::Acknowledged(1)])
            .without_handshake()
            .idle(),
        H2Case::new("3.4: another preface", preface(b"INVALID CONNECTION PREFACE\r\n\r\n"), &refused)
            .without_handshake(),
        H2Case::new("3.4: HTTP/1.1", preface(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), &refused)
            .without_handshake(),
        H2Case::new(
            "3.4: a preface with one wrong byte",
            preface(b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n"),
            &refused,
        )
        .without_handshake(),
        // The library does not insist that SETTINGS come first. Nothing depends on it: what they would say has
        // defaults, and later ones are read.
        H2Case::new(
            "3.4: PING in place of SETTINGS",
            vec![PREFACE.to_vec(), frame(PING, 0, 0, &[0; 8])],
            &[refused[0].clone(), refused[1].clone(), Accept::Ping([0; 8])],
        )
        .without_handshake()
        .reason("malformed:incomplete_head"),
        H2Case::new(
            "3.4: HEADERS in place of SETTINGS",
            vec![PREFACE.to_vec(), whole(1)],
            &[refused[0].clone(), refused[1].clone(), Accept::Answer(1, 200)],
        )
        .without_handshake()
        .with_requests(0, 1),
        H2Case::new(
            "3.4: a request with the preface",
            vec![[PREFACE, &settings(&[]), &whole(1)].concat()],
            &[Accept::Answer(1, 200)],
        )
        .without_handshake()
        .with_requests(1, 1),
        H2Case::new(
            "3.4: a request byte by byte",
            [PREFACE, &settings(&[]), &whole(1)].concat().into_iter().map(|byte| vec![byte]).collect(),
            &[Accept::Answer(1, 200)],
        )
        .without_handshake()
        .with_requests(1, 1),
    ]
}

fn frame_format() -> Vec<H2Case> {
    let large = |kind, flags, stream| frame(kind, flags, stream, &vec![0; MAX_FRAME_SIZE + 1]);
    let post = frame(HEADERS, END_HEADERS, 1, &request("POST", "/frames", &[]));
    vec![
        lives("4.1: an unknown type is ignored", vec![frame(0xff, 0, 0, &[0; 8])]),
        lives("4.1: an unknown type on a stream is ignored", vec![frame(0x16, 0xff, 7, &[0; 8])]),
        H2Case::new(
            "4.1: an undefined flag is ignored",
            vec![frame(PING, 0x16, 0, b"undefine")],
            &[Accept::Ping(*b"undefine")],
        )
        .idle(),
        H2Case::new(
            "4.1: the reserved bit is ignored",
            vec![frame(PING, 0, 0x8000_0000, b"reserved")],
            &[Accept::Ping(*b"reserved")],
        )
        .idle(),
        served("4.2: DATA of 2^14 bytes", vec![post.clone(), data(1, END_STREAM, &[b'x'; MAX_FRAME_SIZE])]),
        breaks("4.2: DATA larger than SETTINGS_MAX_FRAME_SIZE", vec![post, large(DATA, END_STREAM, 1)], SIZE),
        breaks(
            "4.2: HEADERS larger than SETTINGS_MAX_FRAME_SIZE",
            vec![large(HEADERS, END_STREAM | END_HEADERS, 1)],
            SIZE,
        ),
        fatal(
            "4.2: SETTINGS larger than SETTINGS_MAX_FRAME_SIZE",
            vec![frame(SETTINGS, 0, 0, &vec![0; 16_386])],
            SIZE,
        ),
        fatal("4.2: PING larger than SETTINGS_MAX_FRAME_SIZE", vec![large(PING, 0, 0)], SIZE),
        fatal("4.2: an unknown frame larger than SETTINGS_MAX_FRAME_SIZE", vec![large(0xff, 0, 0)], SIZE),
        breaks(
            "4.3: a header block that cannot be decoded",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x3f, 0xff, 0xff, 0xff, 0xff, 0xff])],
            COMPRESSION,
        ),
        breaks(
            "4.3: a block that ends in the middle of a field",
            vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&get("/")[..], &[0, 10, b'x']].concat())],
            COMPRESSION,
        ),
        breaks(
            "4.3: PRIORITY inside of a header block",
            vec![
                frame(HEADERS, END_STREAM, 1, &get("/")),
                priority(1, 0, 255),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
            ],
            PROTOCOL,
        ),
        breaks(
            "4.3: HEADERS of another stream inside of a header block",
            vec![frame(HEADERS, END_STREAM, 1, &get("/")), whole(3)],
            PROTOCOL,
        ),
        breaks(
            "4.3: an unknown frame inside of a header block",
            vec![frame(HEADERS, END_STREAM, 1, &get("/")), frame(0x16, 0, 0, &[])],
            PROTOCOL,
        ),
    ]
}

fn stream_states() -> Vec<H2Case> {
    let idle = |name: &str, bytes: Vec<u8>| fatal(name, vec![bytes], PROTOCOL);
    // The stream is half-closed: the client has said all, the answer waits for a window.
    let half_closed = |name: &str, bytes: Vec<u8>, accept: &[Accept]| {
        H2Case::new(name, vec![held(), whole(1), bytes], accept).with_requests(0, 1)
    };
    let closed_error = STREAM_IS_CLOSED;
    let continuation_error =
        [Accept::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]), Accept::Stream(1, &[STREAM_CLOSED])];
    let reset = |name: &str, bytes: Vec<u8>, accept: &[Accept]| {
        H2Case::new(name, vec![held(), whole(1), rst_stream(1, 8), bytes], accept).with_requests(0, 1)
    };
    let answered = |name: &str, bytes: Vec<u8>, accept: &[Accept]| {
        H2Case::new(name, vec![whole(1)], accept)
            .waiting(Accept::Answer(1, 200))
            .sending(bytes)
            .with_requests(1, 1)
    };
    let trailers = || frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-trailer", "1")]));
    vec![
        idle("5.1: idle, DATA", data(1, END_STREAM, b"test")),
        idle("5.1: idle, RST_STREAM", rst_stream(1, 8)),
        idle("5.1: idle, WINDOW_UPDATE", window_update(1, 100)),
        idle("5.1: idle, CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, &get("/"))),
        lives("5.1: idle, PRIORITY", vec![priority(1, 0, 255)]),
        half_closed("5.1: half-closed, DATA", data(1, END_STREAM, b"test"), &closed_error),
        half_closed("5.1: half-closed, HEADERS", trailers(), &closed_error),
        half_closed(
            "5.1: half-closed, CONTINUATION",
            frame(CONTINUATION, END_HEADERS, 1, &get("/")),
            &continuation_error,
        ),
        half_closed("5.1: half-closed, WINDOW_UPDATE", window_update(1, 100), &[Accept::Answer(1, 200)]),
        half_closed("5.1: half-closed, PRIORITY", priority(1, 0, 7), &[Accept::Lives]),
        half_closed("5.1: half-closed, RST_STREAM", rst_stream(1, 8), &[Accept::Lives]),
        reset(
            "5.1: reset, DATA",
            data(1, END_STREAM, b"test"),
            &[closed_error[0].clone(), closed_error[1].clone(), Accept::Lives],
        ),
        reset(
            "5.1: reset, HEADERS",
            trailers(),
            &[
                closed_error[0].clone(),
                closed_error[1].clone(),
                Accept::Connection(&[PROTOCOL_ERROR]),
                Accept::Stream(1, &[PROTOCOL_ERROR]),
            ],
        ),
        reset(
            "5.1: reset, CONTINUATION",
            frame(CONTINUATION, END_HEADERS, 1, &get("/")),
            &continuation_error,
        ),
        reset("5.1: reset, PRIORITY", priority(1, 0, 7), &[Accept::Lives]),
        reset("5.1: reset, WINDOW_UPDATE", window_update(1, 7), &[Accept::Lives, closed_error[0].clone()]),
        reset("5.1: reset, RST_STREAM", rst_stream(1, 8), &[Accept::Lives]),
        answered("5.1: closed, DATA", data(1, END_STREAM, b"test"), &closed_error),
        answered("5.1: closed, HEADERS", trailers(), &closed_error),
        answered(
            "5.1: closed, CONTINUATION",
            frame(CONTINUATION, END_HEADERS, 1, &get("/")),
            &continuation_error,
        ),
        answered("5.1: closed, PRIORITY", priority(1, 0, 7), &[Accept::Lives]),
        answered("5.1: closed, RST_STREAM", rst_stream(1, 8), &[Accept::Lives]),
        answered("5.1: closed, WINDOW_UPDATE", window_update(1, 7), &[Accept::Lives]),
        fatal(
            "5.1.1: a stream with an even number",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 2, &get("/"))],
            PROTOCOL,
        ),
        breaks("5.1.1: a stream with a smaller number", vec![whole(5), whole(3)], PROTOCOL).reason(""),
        served("5.1.1: a number is skipped", vec![whole(1), whole(7)])
            .waiting(Accept::Answer(7, 200))
            .with_requests(2, 2),
        H2Case::new(
            "5.1.2: more streams than are allowed",
            (0..140).map(|n| if n == 0 { held() } else { whole(2 * n - 1) }).collect(),
            &[
                Accept::Stream(277, &[REFUSED_STREAM, PROTOCOL_ERROR]),
                Accept::Connection(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM]),
            ],
        )
        .with_requests(1, 139)
        .reason("malformed:http2_flood"),
        lives("5.3: PRIORITY with weight 1", vec![priority(1, 0, 0)]),
        lives("5.3: PRIORITY with weight 256", vec![priority(1, 0, 255)]),
        lives("5.3: PRIORITY that depends on another stream", vec![priority(1, 5, 15)]),
        lives("5.3: PRIORITY, exclusive", vec![priority(1, 0x8000_0005, 15)]),
        served("5.3: PRIORITY of a later stream, then a request", vec![priority(5, 0, 15), whole(1)]),
        H2Case::new(
            "5.3: HEADERS that depend on their own stream",
            vec![frame(
                HEADERS,
                END_HEADERS | END_STREAM | WITH_PRIORITY,
                1,
                &[&[0, 0, 0, 1, 15][..], &get("/")].concat(),
            )],
            &[Accept::Stream(1, &[PROTOCOL_ERROR]), PROTOCOL, Accept::Answer(1, 200)],
        )
        .with_requests(0, 1),
        H2Case::new(
            "5.3: PRIORITY that depends on its own stream",
            vec![priority(1, 1, 15)],
            &[Accept::Stream(1, &[PROTOCOL_ERROR]), PROTOCOL, Accept::Lives],
        )
        .reason("malformed:incomplete_head"),
        fatal("5.4.1: the connection ends after an error", vec![frame(PING, 0, 3, &[0; 8])], PROTOCOL),
        lives(
            "5.5: an unknown extension is ignored",
            vec![frame(0x20, 0, 0, &[1; 64]), frame(0x21, 0xff, 1, &[])],
        ),
        breaks(
            "5.5: an unknown extension inside of a header block",
            vec![
                frame(HEADERS, END_STREAM, 1, &get("/")),
                frame(0x20, 0, 1, &[1; 8]),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
            ],
            PROTOCOL,
        ),
    ]
}

fn data_and_headers() -> Vec<H2Case> {
    let padded = |kind, flags, pad: u8, bytes: &[u8], padding: usize| {
        frame(kind, flags | PADDED, 1, &[&[pad][..], bytes, &vec![0; padding]].concat())
    };
    let end = END_HEADERS | END_STREAM;
    let closed = STREAM_IS_CLOSED;
    vec![
        served("6.1: DATA", vec![open(1), data(1, END_STREAM, b"test")]),
        served(
            "6.1: several DATA",
            vec![open(1), data(1, 0, b"te"), data(1, 0, b"st"), data(1, END_STREAM, b"")],
        ),
        served("6.1: DATA with padding", vec![open(1), padded(DATA, END_STREAM, 6, b"test", 6)]),
        served("6.1: DATA of padding alone", vec![open(1), padded(DATA, END_STREAM, 6, b"", 6)]),
        fatal("6.1: DATA on stream 0", vec![data(0, END_STREAM, b"test")], PROTOCOL),
        H2Case::new(
            "6.1: DATA on a stream that is not open",
            vec![held(), whole(1), data(1, END_STREAM, b"test")],
            &closed,
        )
        .with_requests(0, 1),
        breaks(
            "6.1: DATA with more padding than bytes",
            vec![open(1), padded(DATA, END_STREAM, 7, b"test", 2)],
            PROTOCOL,
        ),
        breaks(
            "6.1: DATA with as much padding as bytes",
            vec![open(1), frame(DATA, END_STREAM | PADDED, 1, &[5, 0, 0, 0, 0])],
            PROTOCOL,
        ),
        breaks(
            "6.1: padded DATA without a byte",
            vec![open(1), frame(DATA, END_STREAM | PADDED, 1, &[])],
            Accept::Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        served("6.2: HEADERS", vec![whole(1)]),
        served("6.2: HEADERS with padding", vec![padded(HEADERS, end, 6, &get("/"), 6)]),
        served(
            "6.2: HEADERS with a priority",
            vec![frame(HEADERS, end | WITH_PRIORITY, 1, &[&[0, 0, 0, 0, 15][..], &get("/")].concat())],
        ),
        served(
            "6.2: HEADERS with padding and a priority",
            vec![frame(
                HEADERS,
                end | WITH_PRIORITY | PADDED,
                1,
                &[&[2, 0, 0, 0, 0, 15][..], &get("/"), &[0, 0]].concat(),
            )],
        ),
        breaks(
            "6.2: PRIORITY after HEADERS without END_HEADERS",
            vec![frame(HEADERS, END_STREAM, 1, &get("/")), priority(1, 0, 15)],
            PROTOCOL,
        ),
        breaks(
            "6.2: other HEADERS after HEADERS without END_HEADERS",
            vec![frame(HEADERS, END_STREAM, 1, &get("/")), whole(3)],
            PROTOCOL,
        ),
        fatal("6.2: HEADERS on stream 0", vec![frame(HEADERS, end, 0, &get("/"))], PROTOCOL),
        breaks(
            "6.2: HEADERS with more padding than bytes",
            vec![padded(HEADERS, end, 255, &get("/"), 2)],
            PROTOCOL,
        ),
        breaks(
            "6.2: HEADERS too short for their priority",
            vec![frame(HEADERS, end | WITH_PRIORITY, 1, &[0, 0])],
            Accept::Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        fatal("6.3: PRIORITY on stream 0", vec![priority(0, 1, 15)], PROTOCOL),
        H2Case::new(
            "6.3: PRIORITY of 4 bytes",
            vec![frame(PRIORITY, 0, 1, &[0; 4])],
            &[Accept::Stream(1, &[FRAME_SIZE_ERROR]), SIZE],
        ),
        H2Case::new(
            "6.3: PRIORITY of 6 bytes",
            vec![frame(PRIORITY, 0, 1, &[0; 6])],
            &[Accept::Stream(1, &[FRAME_SIZE_ERROR]), SIZE],
        ),
    ]
}

fn control() -> Vec<H2Case> {
    let bad_setting =
        |name: &str, id: u16, value: u32, accept: Accept| fatal(name, vec![settings(&[(id, value)])], accept);
    vec![
        H2Case::new("6.4: RST_STREAM", vec![held(), whole(1), rst_stream(1, 8)], &[Accept::Lives])
            .with_requests(0, 1),
        fatal("6.4: RST_STREAM on stream 0", vec![rst_stream(0, 8)], PROTOCOL),
        fatal("6.4: RST_STREAM of an idle stream", vec![rst_stream(1, 8)], PROTOCOL),
        breaks("6.4: RST_STREAM of 3 bytes", vec![open(1), frame(RST_STREAM, 0, 1, &[0; 3])], SIZE),
        breaks("6.4: RST_STREAM of 5 bytes", vec![open(1), frame(RST_STREAM, 0, 1, &[0; 5])], SIZE),
        H2Case::new("6.5: SETTINGS", vec![settings(&[(3, 100)])], &[Accept::Acknowledged(1)]).idle(),
        fatal("6.5: an acknowledgement with a payload", vec![frame(SETTINGS, ACK, 0, &[0; 6])], SIZE),
        fatal("6.5: SETTINGS on a stream", vec![frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])], PROTOCOL),
        fatal("6.5: SETTINGS of 3 bytes", vec![frame(SETTINGS, 0, 0, &[0, 3, 0])], SIZE),
        fatal("6.5: SETTINGS of 7 bytes", vec![frame(SETTINGS, 0, 0, &[0; 7])], SIZE),
        bad_setting("6.5.2: ENABLE_PUSH of 2", 2, 2, PROTOCOL),
        bad_setting("6.5.2: INITIAL_WINDOW_SIZE of 2^31", 4, 0x8000_0000, FLOW),
        bad_setting("6.5.2: INITIAL_WINDOW_SIZE of 2^32 - 1", 4, u32::MAX, FLOW),
        bad_setting("6.5.2: MAX_FRAME_SIZE of 2^14 - 1", 5, 16_383, PROTOCOL),
        bad_setting("6.5.2: MAX_FRAME_SIZE of 2^24", 5, 16_777_216, PROTOCOL),
        H2Case::new(
            "6.5.2: an unknown setting is ignored",
            vec![settings(&[(0xff, 1)])],
            &[Accept::Acknowledged(1)],
        )
        .idle(),
        H2Case::new(
            "6.5.3: of several values the last counts",
            vec![settings(&[(4, 100), (4, 1)]), whole(1)],
            &[Accept::Bytes(1, 1)],
        )
        .with_requests(1, 1),
        H2Case::new(
            "6.5.3: SETTINGS are acknowledged",
            vec![settings(&[]), settings(&[])],
            &[Accept::Acknowledged(2)],
        )
        .idle(),
        H2Case::new("6.7: PING", vec![frame(PING, 0, 0, b"12345678")], &[Accept::Ping(*b"12345678")]).idle(),
        lives("6.7: the answer to no PING", vec![frame(PING, ACK, 0, b"invalid!")]),
        fatal("6.7: PING on a stream", vec![frame(PING, 0, 1, &[0; 8])], PROTOCOL),
        fatal("6.7: PING of 6 bytes", vec![frame(PING, 0, 0, &[0; 6])], SIZE),
        fatal("6.7: PING of 9 bytes", vec![frame(PING, 0, 0, &[0; 9])], SIZE),
        H2Case::new(
            "6.8: GOAWAY",
            vec![frame(GOAWAY, 0, 0, &[0; 8])],
            &[Accept::Lives, Accept::Closed, Accept::Connection(&[NO_ERROR])],
        )
        .idle(),
        H2Case::new(
            "6.8: GOAWAY after a request",
            vec![whole(1), frame(GOAWAY, 0, 0, &[0; 8])],
            &[Accept::Answer(1, 200)],
        )
        .with_requests(1, 1),
        fatal("6.8: GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], PROTOCOL),
        fatal("6.8: GOAWAY of 7 bytes", vec![frame(GOAWAY, 0, 0, &[0; 7])], SIZE),
        H2Case::new(
            "7: GOAWAY with an unknown code",
            vec![frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff])],
            &[Accept::Lives, Accept::Closed, Accept::Connection(&[NO_ERROR])],
        )
        .idle(),
        H2Case::new(
            "7: RST_STREAM with an unknown code",
            vec![held(), whole(1), rst_stream(1, 0xff)],
            &[Accept::Lives],
        )
        .with_requests(0, 1),
        fatal(
            "8.4: PUSH_PROMISE by a client",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[&2u32.to_be_bytes()[..], &get("/")].concat())],
            PROTOCOL,
        ),
        breaks(
            "8.4: PUSH_PROMISE on an open stream",
            vec![
                open(1),
                frame(PUSH_PROMISE, END_HEADERS, 1, &[&2u32.to_be_bytes()[..], &get("/")].concat()),
            ],
            PROTOCOL,
        ),
    ]
}

fn flow_control() -> Vec<H2Case> {
    let max = 0x7fff_ffff;
    vec![
        lives("6.9: WINDOW_UPDATE of the connection", vec![window_update(0, 1)]),
        served(
            "6.9: WINDOW_UPDATE of a stream",
            vec![open(1), window_update(1, 1), data(1, END_STREAM, b"")],
        ),
        fatal("6.9: WINDOW_UPDATE by 0", vec![window_update(0, 0)], PROTOCOL),
        H2Case::new(
            "6.9: WINDOW_UPDATE of a stream by 0",
            vec![open(1), window_update(1, 0)],
            &[Accept::Stream(1, &[PROTOCOL_ERROR]), PROTOCOL],
        )
        .with_requests(0, 1),
        fatal("6.9: WINDOW_UPDATE of 3 bytes", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], SIZE),
        breaks(
            "6.9: WINDOW_UPDATE of a stream with 5 bytes",
            vec![open(1), frame(WINDOW_UPDATE, 0, 1, &[0; 5])],
            SIZE,
        ),
        H2Case::new(
            "6.9.1: a window of one byte",
            vec![settings(&[(4, 1)]), whole(1)],
            &[Accept::Bytes(1, 1)],
        )
        .with_requests(1, 1),
        H2Case::new(
            "6.9.1: a window that grows byte by byte",
            vec![settings(&[(4, 1)]), whole(1)],
            &[Accept::Bytes(1, 3)],
        )
        .waiting(Accept::Bytes(1, 1))
        .sending(window_update(1, 1))
        .sending(window_update(1, 1))
        .with_requests(1, 1),
        fatal("6.9.1: a window beyond 2^31 - 1", vec![window_update(0, max), window_update(0, max)], FLOW),
        H2Case::new(
            "6.9.1: a stream's window beyond 2^31 - 1",
            vec![open(1), window_update(1, max), window_update(1, max)],
            &[Accept::Stream(1, &[FLOW_CONTROL_ERROR]), FLOW],
        )
        .with_requests(0, 1),
        H2Case::new(
            "6.9.2: a window that is opened later",
            vec![held(), whole(1), settings(&[(4, 1)])],
            &[Accept::Bytes(1, 1)],
        )
        .with_requests(1, 1),
        H2Case::new(
            "6.9.2: a window that becomes negative",
            vec![settings(&[(4, 2)]), whole(1)],
            &[Accept::Bytes(1, 3)],
        )
        .waiting(Accept::Bytes(1, 2))
        .sending(settings(&[(4, 0)]))
        .sending(window_update(1, 2))
        .pausing()
        .sending(window_update(1, 1))
        .with_requests(1, 1),
        fatal("6.9.2: SETTINGS beyond 2^31 - 1", vec![settings(&[(4, max + 1)])], FLOW),
        H2Case::new(
            "6.9.2: SETTINGS that overflow a stream's window",
            vec![open(1), window_update(1, max - 65_535), settings(&[(4, 65_536)])],
            &[FLOW],
        )
        .with_requests(0, 1),
    ]
}

fn continuations() -> Vec<H2Case> {
    let fields = get("/frames");
    let (first, rest) = fields.split_at(10);
    let (second, third) = rest.split_at(10);
    let begun = || frame(HEADERS, END_STREAM, 1, first);
    let last = |bytes: &[u8]| frame(CONTINUATION, END_HEADERS, 1, bytes);
    vec![
        served("6.10: one CONTINUATION", vec![begun(), last(rest)]),
        served("6.10: two CONTINUATIONs", vec![begun(), frame(CONTINUATION, 0, 1, second), last(third)]),
        served(
            "6.10: an empty HEADERS, then CONTINUATION",
            vec![frame(HEADERS, END_STREAM, 1, &[]), last(&fields)],
        ),
        served(
            "6.10: an empty CONTINUATION at the end",
            vec![frame(HEADERS, END_STREAM, 1, &fields), last(&[])],
        ),
        breaks("6.10: DATA inside of a header block", vec![begun(), data(1, END_STREAM, b"test")], PROTOCOL),
        breaks(
            "6.10: PING inside of a header block",
            vec![begun(), frame(PING, 0, 0, &[0; 8]), last(rest)],
            PROTOCOL,
        ),
        breaks("6.10: SETTINGS inside of a header block", vec![begun(), settings(&[]), last(rest)], PROTOCOL),
        breaks("6.10: RST_STREAM inside of a header block", vec![begun(), rst_stream(1, 8)], PROTOCOL),
        breaks("6.10: WINDOW_UPDATE inside of a header block", vec![begun(), window_update(0, 1)], PROTOCOL),
        breaks(
            "6.10: GOAWAY inside of a header block",
            vec![begun(), frame(GOAWAY, 0, 0, &[0; 8])],
            PROTOCOL,
        ),
        breaks(
            "6.10: CONTINUATION on stream 0",
            vec![begun(), frame(CONTINUATION, END_HEADERS, 0, rest)],
            PROTOCOL,
        ),
        breaks(
            "6.10: CONTINUATION on another stream",
            vec![begun(), frame(CONTINUATION, END_HEADERS, 3, rest)],
            PROTOCOL,
        ),
        breaks(
            "6.10: CONTINUATION after END_HEADERS",
            vec![open(1), last(&block(&[("x-one", "1")]))],
            PROTOCOL,
        ),
        breaks(
            "6.10: CONTINUATION after CONTINUATION with END_HEADERS",
            vec![frame(HEADERS, 0, 1, first), last(rest), last(&[])],
            PROTOCOL,
        ),
        breaks("6.10: CONTINUATION after DATA", vec![open(1), data(1, 0, b"test"), last(&[])], PROTOCOL),
        fatal("6.10: CONTINUATION first", vec![last(&fields)], PROTOCOL),
    ]
}

#[test]
fn frames_and_streams_keep_their_rules() {
    let cases = [
        starting(),
        frame_format(),
        stream_states(),
        data_and_headers(),
        control(),
        flow_control(),
        continuations(),
    ];
    run("h2 frames", &Ground::direct(), &cases.concat());
}

/// The mark of the end must reach the upstream once: a second one would begin the next request.
#[test]
fn an_empty_end_of_a_body_ends_it_once() {
    let padded = frame(DATA, END_STREAM | PADDED, 1, &[2, 0, 0]);
    let cases = [
        served("an empty last DATA", vec![open(1), data(1, END_STREAM, b"")]),
        served(
            "an empty last DATA after others",
            vec![open(1), data(1, 0, b"test"), data(1, END_STREAM, b"")],
        ),
        served("an empty DATA in the middle", vec![open(1), data(1, 0, b""), data(1, END_STREAM, b"test")]),
        served("a last DATA of padding", vec![open(1), data(1, 0, b"test"), padded]),
    ];
    let cases: Vec<H2Case> = std::iter::repeat_n(cases, 8).flatten().collect();
    run("h2 ends of bodies", &Ground::direct(), &cases);
}
