//! The HTTP/2 meter: splits make no difference, and what it says is possible.

use portcullis_wire::frames::{Flood, MAX_STREAMS, Meter};

const MIN_RATE: u32 = 240;

/// Steps of a connection: a byte for direction and milliseconds, a byte for the length, and so many bytes.
pub fn frames(data: &[u8]) {
    let mut whole = Meter::new(MIN_RATE, 0);
    let mut split = whole.clone();
    let (mut now_ms, mut rest) = (0, data);
    while let [step, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = tail;
        now_ms += u64::from(step >> 1) * 8;
        let answer = follow(&mut whole, step & 1 == 0, bytes, bytes.len().max(1), now_ms);
        let in_pieces = follow(&mut split, step & 1 == 0, bytes, 1 + usize::from(step % 5), now_ms);
        assert_eq!(answer, in_pieces);
        if answer.is_err() {
            return;
        }
        check(&whole, now_ms);
        assert_eq!(observed(&whole), observed(&split));
    }
}

fn follow(meter: &mut Meter, is_inbound: bool, bytes: &[u8], piece: usize, now_ms: u64) -> Result<(), Flood> {
    let mut parts = bytes.chunks(piece);
    if is_inbound {
        return parts.try_for_each(|part| meter.inbound(part, now_ms));
    }
    parts.for_each(|part| meter.outbound(part, now_ms));
    Ok(())
}

fn check(meter: &Meter, now_ms: u64) {
    assert!(meter.streams_open() <= MAX_STREAMS);
    assert!(meter.streams_open() as u64 + meter.streams_refused() <= meter.streams_opened());
    assert!(meter.unfinished_since().is_none_or(|since| since <= now_ms));
    assert!(meter.stalled().is_none_or(|stall| stall.since_ms <= now_ms));
}

fn observed(meter: &Meter) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        meter.preface(),
        meter.stalled(),
        meter.unfinished_since(),
        meter.streams_opened(),
        meter.streams_open(),
        meter.streams_refused(),
        meter.last_error(),
    )
}
