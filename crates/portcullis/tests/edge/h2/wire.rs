//! HTTP/2 on the wire (RFC 9113, RFC 7541), as much as the tables need: frames are built by hand, so that they
//! can be wrong, and what comes back is read as events.

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const MAX_FRAME_SIZE: usize = 16_384;
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `stream` may have its reserved bit set.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let entries =
        entries.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &entries.collect::<Vec<u8>>())
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(crate) fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// Depends on `on`, with this weight less one.
pub(crate) fn priority(stream: u32, on: u32, weight: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[weight]].concat())
}

/// An integer with a prefix of so many bits (RFC 7541, 5.1); `first` holds the bits before it.
pub(crate) fn integer(first: u8, prefix: u8, value: usize) -> Vec<u8> {
    let max = (1usize << prefix) - 1;
    if value < max {
        return vec![first | u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![first | u8::try_from(max).unwrap()];
    let mut rest = value - max;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

fn string(text: &[u8]) -> Vec<u8> {
    [integer(0, 7, text.len()), text.to_vec()].concat()
}

/// A literal field with a name of its own; `first` says how it is indexed (0x00, 0x10 or 0x40).
pub(crate) fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![first], string(name), string(value)].concat()
}

/// A header block of literals that are not indexed.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(0, name.as_bytes(), value.as_bytes())).collect()
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Settings,
    SettingsAck,
    PingAck([u8; 8]),
    /// With the status, or 0 where it could not be read.
    Headers {
        stream: u32,
        status: u16,
        end: bool,
    },
    Data {
        stream: u32,
        length: usize,
        end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        code: u32,
    },
    Other(u8),
    Closed,
}

/// The first whole frame of the bytes and its length.
pub(crate) fn event(bytes: &[u8]) -> Option<(Event, usize)> {
    let head = bytes.get(..9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let payload = bytes.get(9..9 + length)?;
    let (kind, flags) = (head[3], head[4]);
    let number =
        |at: usize| payload.get(at..at + 4).map_or(0, |four| u32::from_be_bytes(four.try_into().unwrap()));
    let stream = u32::from_be_bytes(head[5..9].try_into().unwrap()) & 0x7fff_ffff;
    let end = flags & END_STREAM != 0;
    let event = match kind {
        SETTINGS if flags & ACK != 0 => Event::SettingsAck,
        SETTINGS => Event::Settings,
        PING if flags & ACK != 0 => Event::PingAck(payload.try_into().unwrap_or_default()),
        HEADERS => Event::Headers { stream, status: status(payload), end },
        DATA => Event::Data { stream, length, end },
        RST_STREAM => Event::Reset { stream, code: number(0) },
        GOAWAY => Event::GoAway { code: number(4) },
        other => Event::Other(other),
    };
    Some((event, 9 + length))
}

/// The status at the beginning of a header block: from the static table, or a literal of three digits.
fn status(block: &[u8]) -> u16 {
    let mut rest = block;
    // Changes of the table's size come first.
    while let [first, tail @ ..] = rest
        && first & 0xe0 == 0x20
    {
        rest = tail;
    }
    match rest {
        [first @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)],
        [0x48..=0x4e | 0x08..=0x0e, length, text @ ..] if length & 0x80 == 0 => {
            let digits = text.get(..usize::from(*length)).unwrap_or_default();
            std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
        }
        [0x48..=0x4e | 0x08..=0x0e, length, text @ ..] => {
            huffman_digits(text.get(..usize::from(length & 0x7f)).unwrap_or_default())
        }
        _ => 0,
    }
}

/// Three digits in the code of RFC 7541, appendix B: 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u16> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| u16::from(byte >> n & 1))).collect();
    let number = |bits: &[u16]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let digit = match bits.get(at..at + 5).map(number) {
            Some(digit @ 0..=2) => {
                at += 5;
                digit
            }
            _ => match bits.get(at..at + 6).map(number) {
                Some(code @ 0x19..=0x1f) => {
                    at += 6;
                    code - 0x19 + 3
                }
                _ => return 0,
            },
        };
        status = status * 10 + digit;
    }
    status
}
