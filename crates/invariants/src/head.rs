//! Request heads: splits make no difference, and whatever is taken has one reading for another parser, too.

use portcullis_wire::{Framing, Head, HeadError, HeadLimits, scan};

const LIMITS: [HeadLimits; 4] = [
    HeadLimits { max_bytes: 32 * 1024, max_headers: 100, max_target: 8 * 1024, escaped_slashes: false },
    HeadLimits { max_bytes: 256, max_headers: 100, max_target: 8 * 1024, escaped_slashes: false },
    HeadLimits { max_bytes: 4096, max_headers: 3, max_target: 16, escaped_slashes: false },
    HeadLimits { max_bytes: 40, max_headers: 1, max_target: 1, escaped_slashes: false },
];

/// The first byte chooses limits and the size of pieces; the rest is what a client sends.
pub fn request_head(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let limits = &LIMITS[usize::from(choice % 4)];
    let whole = scan(bytes, 0, limits);
    assert_eq!(in_pieces(bytes, 1, limits), whole, "byte by byte");
    assert_eq!(in_pieces(bytes, usize::from(choice / 4) + 1, limits), whole, "in pieces");
    if let Ok(Some(head)) = whole {
        check(bytes, &head, limits);
    }
}

fn in_pieces(bytes: &[u8], piece: usize, limits: &HeadLimits) -> Result<Option<Head>, HeadError> {
    let mut known = 0;
    while known < bytes.len() {
        let len = bytes.len().min(known + piece);
        match scan(&bytes[..len], known, limits) {
            Ok(None) => known = len,
            answer => return answer,
        }
    }
    Ok(None)
}

fn check(bytes: &[u8], head: &Head, limits: &HeadLimits) {
    assert!(head.len <= bytes.len() && head.len <= limits.max_bytes);
    let bytes = &bytes[..head.len];
    assert!(bytes.ends_with(b"\r\n\r\n"));
    assert_eq!(scan(bytes, 0, limits), Ok(Some(*head)), "what follows is not read");
    assert_eq!(scan(&bytes[..head.len - 1], 0, limits), Ok(None), "it ends no sooner");
    let line_feeds = bytes.iter().filter(|&&b| b == b'\n').count();
    assert_eq!(bytes.windows(2).filter(|pair| pair == b"\r\n").count(), line_feeds);
    assert!(!bytes.contains(&0));

    let mut lines = [httparse::EMPTY_HEADER; 100];
    let mut other = httparse::Request::new(&mut lines);
    let read = other.parse(bytes).map(|status| status.is_complete());
    assert_eq!(read, Ok(true), "another parser takes it, too");
    assert_eq!(other.version, Some(head.version_minor));
    assert!(other.path.is_some_and(|target| target.len() <= limits.max_target));
    assert!(other.headers.len() <= limits.max_headers);

    let values = |name: &str| -> Vec<&[u8]> {
        let same = |line: &&httparse::Header<'_>| line.name.replace('_', "-").eq_ignore_ascii_case(name);
        other.headers.iter().filter(same).map(|line| line.value).collect()
    };
    match (head.framing, &values("content-length")[..], &values("transfer-encoding")[..]) {
        (Framing::None, [], []) => {}
        (Framing::Length(length), [value], []) => assert_eq!(length.to_string().as_bytes(), *value),
        (Framing::Chunked, [], [value]) => assert!(value.eq_ignore_ascii_case(b"chunked")),
        (framing, lengths, codings) => panic!("{framing:?} of {lengths:?} and {codings:?}"),
    }
    assert!(values("host").len() == 1 || (head.version_minor == 0 && values("host").is_empty()));
    assert!(!head.upgrade || (other.method == Some("GET") && values("sec-websocket-key").len() == 1));
    assert!(!head.expects_continue || head.framing != Framing::None);
}
