//! The HTTP/2 meter: floods, stalls, refused streams, and that splits make no difference.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use portcullis_wire::frames::*;
use proptest::prelude::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const MIN_RATE: u32 = 1000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, b"x")
}

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, b"x")
}

fn answer(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, b"x")
}

fn data(stream: u32, length: usize) -> Vec<u8> {
    frame(DATA, 0, stream, &vec![0; length])
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn initial_window(size: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 3, 0, 0, 0, 9, 0, 4][..], &size.to_be_bytes()].concat())
}

/// A meter behind its preface, at 0 ms.
fn meter() -> Meter {
    let mut meter = Meter::new(MIN_RATE, 0);
    meter.inbound(PREFACE, 0).unwrap();
    meter
}

fn stall(stream: u32, kind: StallKind, since_ms: u64) -> Option<Stall> {
    Some(Stall { stream, kind, since_ms })
}

#[test]
fn a_meter_is_small() {
    assert!(size_of::<Meter>() <= 512, "{}", size_of::<Meter>());
}

#[test]
fn the_preface_comes_first_and_is_owed_until_it_is_whole() {
    let mut meter = Meter::new(MIN_RATE, 7);
    assert_eq!(meter.unfinished_since(), Some(7));
    meter.inbound(&PREFACE[..10], 8).unwrap();
    assert_eq!((meter.preface(), meter.unfinished_since()), (Preface::Unfinished(10), Some(7)));
    meter.inbound(&[&PREFACE[10..], &get(1)].concat(), 9).unwrap();
    assert_eq!((meter.preface(), meter.unfinished_since()), (Preface::Complete, None));
    assert_eq!(meter.streams_opened(), 1);

    let mut meter = Meter::new(MIN_RATE, 0);
    meter.inbound(b"GET / HTTP/1.1\r\n\r\n", 1).unwrap();
    assert_eq!((meter.preface(), meter.unfinished_since()), (Preface::Wrong, None));
    meter.inbound(&get(1), 1).unwrap();
    assert_eq!(meter.streams_opened(), 0);
}

/// Sends `frame` until the meter has enough of it.
fn flood(meter: &mut Meter, frame: &[u8], now_ms: u64) -> (u32, Flood) {
    for sent in 1..20_000 {
        if let Err(flood) = meter.inbound(frame, now_ms) {
            return (sent, flood);
        }
    }
    panic!("no end to it");
}

#[test]
fn floods_end_at_their_bounds() {
    for (frame, max, kind) in [
        (frame(PING, 0, 0, &[0; 8]), MAX_PINGS, Flood::Ping),
        (frame(SETTINGS, 0, 0, &[]), MAX_SETTINGS, Flood::Settings),
        (initial_window(10), MAX_SETTINGS, Flood::Settings),
        (frame(RST_STREAM, 0, 1, &[0; 4]), MAX_RESETS, Flood::Reset),
        ([post(1), frame(RST_STREAM, 0, 1, &[0; 4])].concat(), MAX_RESETS, Flood::Reset),
        (frame(PRIORITY, 0, 1, &[0; 5]), MAX_PRIORITIES, Flood::Priority),
        (frame(16, 0, 0, b"u=1"), MAX_PRIORITIES, Flood::Priority),
        (frame(DATA, 0, 1, &[]), MAX_EMPTY_DATA, Flood::EmptyData),
        (frame(DATA, PADDED, 1, &[4, 0, 0, 0, 0]), MAX_EMPTY_DATA, Flood::EmptyData),
        (frame(PING, 1, 0, &[0; 8]), MAX_OTHER, Flood::Other),
        (frame(SETTINGS, 1, 0, &[]), MAX_OTHER, Flood::Other),
        (frame(GOAWAY, 0, 0, &[0; 8]), MAX_OTHER, Flood::Other),
        (frame(0xfa, 0, 0, b"grease"), MAX_OTHER, Flood::Other),
    ] {
        assert_eq!(flood(&mut meter(), &frame, 0), (max + 1, kind), "{kind}");
    }
    // A few are free at the start.
    let (sent, kind) = flood(&mut meter(), &window_update(0, 1), 0);
    assert_eq!(kind, Flood::WindowUpdate);
    assert!((MAX_IDLE_WINDOW_UPDATES + 1..MAX_IDLE_WINDOW_UPDATES + 20).contains(&sent), "{sent}");
}

#[test]
fn what_is_spread_over_time_is_no_flood() {
    let mut meter = meter();
    for n in 0..10 * u64::from(MAX_PINGS) {
        let now = n * COUNTED_MS / u64::from(MAX_PINGS);
        assert_eq!(meter.inbound(&frame(PING, 0, 0, &[0; 8]), now), Ok(()), "at {now}");
    }
}

#[test]
fn data_that_was_sent_earns_window_updates() {
    let mut meter = meter();
    meter.inbound(&get(1), 0).unwrap();
    meter.outbound(&answer(1), 0);
    for _ in 0..5000 {
        meter.outbound(&data(1, 4096), 0);
        let update = [window_update(0, 4096), window_update(1, 4096)].concat();
        assert_eq!(meter.inbound(&update, 0), Ok(()));
    }
}

#[test]
fn a_header_block_may_have_a_few_continuations() {
    let start = frame(HEADERS, END_STREAM, 1, b"x");
    let mut meter = meter();
    meter.inbound(&start, 0).unwrap();
    for _ in 0..MAX_CONTINUATIONS {
        assert_eq!(meter.inbound(&frame(CONTINUATION, 0, 1, b"x"), 0), Ok(()));
    }
    assert_eq!(meter.inbound(&frame(CONTINUATION, END_HEADERS, 1, b"x"), 0), Err(Flood::Continuation));
}

#[test]
fn what_is_short_and_half_sent_is_owed() {
    let mut meter = meter();
    assert_eq!(meter.unfinished_since(), None);
    let ping = frame(PING, 0, 0, &[0; 8]);
    meter.inbound(&ping[..1], 10).unwrap();
    assert_eq!(meter.unfinished_since(), Some(10), "in the header of a frame");
    meter.inbound(&ping[1..12], 20).unwrap();
    assert_eq!(meter.unfinished_since(), Some(10), "in its payload");
    meter.inbound(&ping[12..], 30).unwrap();
    assert_eq!(meter.unfinished_since(), None);

    let start = frame(HEADERS, END_STREAM, 1, b"x");
    meter.inbound(&start[..5], 40).unwrap();
    meter.inbound(&start[5..], 50).unwrap();
    assert_eq!(meter.unfinished_since(), Some(40), "the block has no end yet");
    meter.inbound(&frame(CONTINUATION, 0, 1, b"x"), 60).unwrap();
    assert_eq!(meter.unfinished_since(), Some(40));
    meter.inbound(&frame(CONTINUATION, END_HEADERS, 1, b"x"), 70).unwrap();
    assert_eq!(meter.unfinished_since(), None);

    meter.inbound(&post(3), 80).unwrap();
    let body = data(3, 100);
    meter.inbound(&body[..50], 90).unwrap();
    assert_eq!(meter.unfinished_since(), None, "a body's pace is judged as an upload");
    meter.outbound(&frame(RST_STREAM, 0, 3, &[0; 4]), 100);
    assert_eq!(meter.unfinished_since(), Some(90), "nobody waits for this body any more");
    meter.inbound(&body[50..60], 110).unwrap();
    assert_eq!(meter.unfinished_since(), Some(110));
}

#[test]
fn an_upload_that_could_go_on_and_does_not_is_a_stall() {
    let mut meter = meter();
    meter.inbound(&post(1), 100).unwrap();
    assert_eq!(meter.stalled(), stall(1, StallKind::Upload, 100));
    meter.inbound(&data(1, 5000), 2000).unwrap();
    assert_eq!(meter.stalled(), stall(1, StallKind::Upload, 2000), "5,000 bytes pay for 5 s");
    meter.inbound(&data(1, 1), 4000).unwrap();
    assert_eq!(meter.stalled(), stall(1, StallKind::Upload, 2001), "one byte pays for a millisecond");
    let body = data(1, 16_000);
    meter.inbound(&body[..10], 5000).unwrap();
    assert_eq!(meter.stalled(), stall(1, StallKind::Upload, 2002), "what is announced has not arrived");
    meter.inbound(&body[10..], 5000).unwrap();
    assert_eq!(meter.stalled(), stall(1, StallKind::Upload, 5000));
    meter.inbound(&frame(DATA, END_STREAM, 1, &[]), 6000).unwrap();
    assert_eq!(meter.stalled(), None);
}

#[test]
fn an_upload_that_stops_is_a_stall_before_and_behind_its_answer_and_none_meanwhile() {
    let mut meter = meter();
    meter.inbound(&post(1), 100).unwrap();
    meter.outbound(&answer(1), 200);
    assert_eq!(meter.stalled(), None, "both directions may be open for hours");
    meter.outbound(&frame(DATA, END_STREAM, 1, &[0; 100]), 5000);
    assert_eq!((meter.stalled(), meter.streams_open()), (stall(1, StallKind::Upload, 4900), 1));
    meter.inbound(&frame(DATA, END_STREAM, 1, &[]), 6000).unwrap();
    assert_eq!((meter.stalled(), meter.streams_open()), (None, 0));
}

#[test]
fn an_upload_that_may_not_go_on_is_none() {
    let mut meter = meter();
    meter.outbound(&initial_window(1000), 0);
    meter.inbound(&post(1), 0).unwrap();
    meter.inbound(&data(1, 1000), 0).unwrap();
    assert_eq!(meter.stalled(), None, "the stream's window is used up");
    meter.outbound(&window_update(1, 100_000), 500);
    assert_eq!(meter.stalled(), stall(1, StallKind::Upload, 500));
    meter.inbound(&data(1, 64_535), 500).unwrap();
    assert_eq!(meter.stalled(), None, "the connection's window is used up");
    meter.outbound(&window_update(0, 1), 900);
    assert_eq!(meter.stalled(), stall(1, StallKind::Upload, 900));
    meter.outbound(&answer(1), 1000);
    assert_eq!(meter.stalled(), None, "the answer has begun");
}

#[test]
fn a_response_without_room_in_the_client_s_window_is_a_stall() {
    let mut meter = meter();
    meter.inbound(&[initial_window(100), get(1)].concat(), 0).unwrap();
    assert_eq!(meter.stalled(), None, "nothing was to be sent yet");
    meter.outbound(&[answer(1), data(1, 100)].concat(), 1000);
    assert_eq!(meter.stalled(), stall(1, StallKind::Read, 1000));

    meter.inbound(&window_update(1, 1), 3000).unwrap();
    assert_eq!(meter.stalled(), None);
    meter.outbound(&data(1, 1), 3000);
    assert_eq!(meter.stalled(), stall(1, StallKind::Read, 1001), "one byte is no new beginning");

    meter.inbound(&initial_window(50_000), 3000).unwrap();
    assert_eq!(meter.stalled(), None, "settings move open windows");
    meter.outbound(&data(1, 49_900), 3000);
    assert_eq!(meter.stalled(), stall(1, StallKind::Read, 3000), "so many bytes are");
    meter.inbound(&frame(RST_STREAM, 0, 1, &[0; 4]), 4000).unwrap();
    assert_eq!(meter.stalled(), None);
}

#[test]
fn a_zero_window_from_the_start_is_a_stall() {
    let mut meter = meter();
    meter.inbound(&[initial_window(0), get(1)].concat(), 0).unwrap();
    meter.outbound(&answer(1), 10);
    assert_eq!(meter.stalled(), stall(1, StallKind::Read, 10));
}

#[test]
fn an_exhausted_connection_window_stalls_all() {
    let mut meter = meter();
    meter.inbound(&[initial_window(1 << 20), get(1), get(3)].concat(), 0).unwrap();
    meter.outbound(&[answer(1), answer(3), data(1, 65_535)].concat(), 100);
    assert_eq!(meter.stalled(), stall(0, StallKind::Read, 100));
    meter.inbound(&window_update(0, 1), 200).unwrap();
    assert_eq!(meter.stalled(), None);
    meter.outbound(&data(3, 1), 300);
    assert_eq!(meter.stalled(), stall(0, StallKind::Read, 200 + 1), "100 ms of waiting, 1 ms paid back");
    meter.outbound(&[frame(DATA, END_STREAM, 1, &[]), frame(DATA, END_STREAM, 3, &[])].concat(), 400);
    assert_eq!(meter.stalled(), None, "no response is left that could wait");
}

#[test]
fn refused_streams_are_counted_and_named() {
    let mut meter = meter();
    let code = |code: u32| code.to_be_bytes();
    meter.inbound(&[get(1), get(3), post(5)].concat(), 0).unwrap();
    meter.outbound(&answer(1), 0);
    assert_eq!((meter.streams_opened(), meter.streams_open(), meter.streams_refused()), (3, 3, 0));
    meter.outbound(&frame(RST_STREAM, 0, 1, &code(2)), 0);
    assert_eq!((meter.streams_refused(), meter.last_error()), (0, Some(SentError { stream: 1, code: 2 })));
    meter.outbound(&frame(RST_STREAM, 0, 3, &code(7)), 0);
    assert_eq!((meter.streams_refused(), meter.last_error()), (1, Some(SentError { stream: 3, code: 7 })));
    meter.outbound(&frame(RST_STREAM, 0, 5, &code(0)), 0);
    assert_eq!(
        (meter.streams_refused(), meter.streams_open()),
        (1, 0),
        "no error, such as after an early answer"
    );
    meter.outbound(&frame(GOAWAY, 0, 0, &[&[0, 0, 0, 5][..], &code(11), b"calm"].concat()), 0);
    let error = meter.last_error().unwrap();
    assert_eq!((error.stream, error_name(error.code)), (0, "ENHANCE_YOUR_CALM"));
}

#[test]
fn streams_beyond_the_bound_are_counted_and_not_followed() {
    let mut meter = meter();
    for n in 0..2 * MAX_STREAMS as u32 {
        meter.inbound(&post(2 * n + 1), 0).unwrap();
    }
    assert_eq!(meter.streams_opened(), 2 * MAX_STREAMS as u64);
    assert_eq!(meter.streams_open(), MAX_STREAMS);
}

/// One step of a made-up connection: whether the client sends it, and when.
fn steps() -> impl Strategy<Value = Vec<(bool, Vec<u8>, u64)>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..20);
    let step = (any::<bool>(), 0u8..11, any::<u8>(), 0u32..8, payload, 0u64..3000).prop_map(
        |(inbound, kind, flags, stream, payload, ms)| (inbound, frame(kind, flags, stream, &payload), ms),
    );
    proptest::collection::vec(step, 0..60)
}

fn observed(meter: &Meter) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        meter.stalled(),
        meter.unfinished_since(),
        meter.streams_opened(),
        meter.streams_open(),
        meter.streams_refused(),
        meter.last_error(),
    )
}

proptest! {
    #[test]
    fn how_the_bytes_are_split_makes_no_difference(
            steps in steps(),
            piece in 1usize..9,
            min_rate in 0u32..100_000,
        ) {
        let mut whole = Meter::new(min_rate, 0);
        whole.inbound(PREFACE, 0).unwrap();
        let (mut split, mut now) = (whole.clone(), 0);
        for (inbound, bytes, ms) in steps {
            now += ms;
            if inbound {
                let expected = whole.inbound(&bytes, now);
                let got = bytes.chunks(piece).try_for_each(|part| split.inbound(part, now));
                prop_assert_eq!(&got, &expected);
                if expected.is_err() {
                    return Ok(());
                }
            } else {
                whole.outbound(&bytes, now);
                bytes.chunks(piece).for_each(|part| split.outbound(part, now));
            }
            prop_assert_eq!(observed(&whole), observed(&split));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(inbound: Vec<u8>, outbound: Vec<u8>, times: [u32; 3]) {
        let mut meter = meter();
        let _ = meter.inbound(&inbound, times[0].into());
        meter.outbound(&outbound, times[1].into());
        let _ = meter.inbound(&inbound, times[2].into());
        let _ = (meter.stalled(), meter.unfinished_since());
        prop_assert!(meter.streams_open() <= MAX_STREAMS);
    }
}
