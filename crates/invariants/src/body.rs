//! Chunked bodies: splits make no difference, and a body ends where plain reading line by line ends it.

use portcullis_wire::{Advance, ChunkError, Chunks};

/// The first byte is the size of pieces; the rest is a body and what follows it.
pub fn chunked(data: &[u8]) {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let whole = Chunks::new().advance(bytes);
    assert_eq!(in_pieces(bytes, 1), whole, "byte by byte");
    assert_eq!(in_pieces(bytes, usize::from(piece) + 1), whole, "in pieces");
    match whole {
        Ok(Advance { consumed, done: true }) => {
            assert_eq!(read_plainly(bytes), Some(consumed));
            let shorter = Chunks::new().advance(&bytes[..consumed - 1]);
            assert_eq!(shorter, Ok(Advance { consumed: consumed - 1, done: false }), "it ends no sooner");
        }
        Ok(Advance { consumed, done: false }) => assert_eq!(consumed, bytes.len()),
        Err(_) => {}
    }
}

fn in_pieces(bytes: &[u8], piece: usize) -> Result<Advance, ChunkError> {
    let mut chunks = Chunks::new();
    let mut consumed = 0;
    for part in bytes.chunks(piece) {
        let step = chunks.advance(part)?;
        consumed += step.consumed;
        if step.done {
            break;
        }
    }
    Ok(Advance { consumed, done: chunks.is_done() })
}

/// The length of the body for a reader that knows nothing but lines.
fn read_plainly(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
        at += end + 2 + size;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
        if size == 0 {
            return Some(at);
        }
    }
}
