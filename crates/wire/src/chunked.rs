//! Where a chunked body ends, read strictly.
//!
//! Owns the framing only: data is skipped, never kept. Trailer fields are refused: no browser sends them, and
//! servers disagree on whether they may change what the head said.

use portcullis_model::MalformedKind;

/// The longest extension of one chunk, in bytes after the size.
pub const MAX_EXTENSION: usize = 256;

/// How many bytes of extensions a body may hold beyond its bytes of data.
pub const MAX_EXTENSION_EXCESS: u64 = 16 * 1024;

/// More digits than a size of 64 bits needs.
const MAX_SIZE_DIGITS: u8 = 16;

/// Larger sizes become negative numbers in some servers.
const MAX_CHUNK: u64 = i64::MAX as u64;

/// Why a chunked body cannot be followed. All are answered with 400, and the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("a chunk's size is not 1 to 16 hexadecimal digits of at most 63 bits")]
    Size,
    #[error("a line of the chunked body does not end in CR LF")]
    LineEnding,
    #[error("a chunk extension holds a control character or a byte beyond ASCII")]
    ExtensionByte,
    #[error("chunk extensions are too long")]
    ExtensionTooLong,
    #[error("a chunk is longer than its size says")]
    Overrun,
    #[error("trailer fields are not accepted")]
    Trailer,
}

impl ChunkError {
    /// What the record says.
    pub fn kind(self) -> MalformedKind {
        MalformedKind::Framing
    }
}

/// How far a slice of the body led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Bytes that belong to the body; all of them unless `done`.
    pub consumed: usize,
    /// The body ended after `consumed` bytes; what follows is not part of it.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a size, with the number of digits read.
    Size(u8),
    /// In an extension, with its length so far.
    Extension(usize),
    /// After the CR of a size line.
    SizeLf,
    /// In data; so many bytes to come.
    Data(u64),
    DataCr,
    DataLf,
    /// At the final CR LF.
    EndCr,
    EndLf,
    Done,
}

/// Follows one chunked body through slices of any length. After an error it must not be used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    size: u64,
    /// Bytes of extensions that no data stands against.
    excess: u64,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunks {
    pub fn new() -> Self {
        Self { state: State::Size(0), size: 0, excess: 0 }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Follows the next bytes. After the end nothing is consumed.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Advance, ChunkError> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if let State::Data(left) = self.state {
                let skipped = left.min((bytes.len() - at) as u64);
                at += skipped as usize;
                self.state = if skipped == left { State::DataCr } else { State::Data(left - skipped) };
            } else {
                self.state = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(Advance { consumed: at, done: self.is_done() })
    }

    /// The state after a byte that is not data.
    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        Ok(match (self.state, byte) {
            (State::Size(0), b'\r' | b'\n' | b';') => return Err(ChunkError::Size),
            (State::Size(_), b'\r') => State::SizeLf,
            (State::Size(_), b'\n') => return Err(ChunkError::LineEnding),
            (State::Size(_), b';') => State::Extension(0),
            (State::Size(digits), byte) => self.digit(digits, byte)?,
            (State::Extension(_), b'\r') => State::SizeLf,
            (State::Extension(_), b'\n') => return Err(ChunkError::LineEnding),
            (State::Extension(length), byte) => self.extension(length, byte)?,
            (State::SizeLf, b'\n') if self.size == 0 => State::EndCr,
            (State::SizeLf, b'\n') => {
                let size = self.size;
                self.size = 0;
                self.excess = self.excess.saturating_sub(size);
                State::Data(size)
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataCr, b'\n') => return Err(ChunkError::LineEnding),
            (State::DataCr, _) => return Err(ChunkError::Overrun),
            (State::DataLf, b'\n') => State::Size(0),
            (State::EndCr, b'\r') => State::EndLf,
            (State::EndCr, b'\n') => return Err(ChunkError::LineEnding),
            (State::EndCr, _) => return Err(ChunkError::Trailer),
            (State::EndLf, b'\n') => State::Done,
            (State::SizeLf | State::DataLf | State::EndLf, _) => return Err(ChunkError::LineEnding),
            (State::Data(_) | State::Done, _) => self.state,
        })
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<State, ChunkError> {
        let value = char::from(byte).to_digit(16).ok_or(ChunkError::Size)?;
        if digits == MAX_SIZE_DIGITS {
            return Err(ChunkError::Size);
        }
        self.size = (self.size << 4) | u64::from(value);
        if self.size > MAX_CHUNK { Err(ChunkError::Size) } else { Ok(State::Size(digits + 1)) }
    }

    fn extension(&mut self, length: usize, byte: u8) -> Result<State, ChunkError> {
        if !matches!(byte, b'\t' | b' '..=b'~') {
            return Err(ChunkError::ExtensionByte);
        }
        self.excess += 1;
        if length == MAX_EXTENSION || self.excess > MAX_EXTENSION_EXCESS {
            return Err(ChunkError::ExtensionTooLong);
        }
        Ok(State::Extension(length + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn follow(body: &[u8]) -> Result<Advance, ChunkError> {
        Chunks::new().advance(body)
    }

    #[test]
    fn a_body_ends_where_its_last_chunk_says() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"5\r\nhello\r\n0\r\n\r\n",
            b"A\r\n0123456789\r\n0000\r\n\r\n",
            b"1;a=b;c=\"d e\"\r\nx\r\n0;last\r\n\r\n",
            b"0000000000000001\r\nx\r\n0\r\n\r\n",
            b"2\r\n\r\n\r\n0\r\n\r\n",
        ] {
            let end = Advance { consumed: body.len(), done: true };
            assert_eq!(follow(body), Ok(end), "{}", body.escape_ascii());
            assert_eq!(follow(&[body, b"GET / HTTP/1.1"].concat()), Ok(end), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn an_unfinished_body_is_consumed_and_not_done() {
        for body in
            [&b""[..], b"5", b"5\r\nhel", b"5\r\nhello\r\n", b"0\r\n", b"0\r\n\r", b"5;ext", b"ffff\r\nx"]
        {
            let unfinished = Advance { consumed: body.len(), done: false };
            assert_eq!(follow(body), Ok(unfinished), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn what_two_servers_could_read_in_two_ways_is_refused() {
        let long = [b"1;", &[b'e'; MAX_EXTENSION + 1][..]].concat();
        for (body, error) in [
            (&b"\r\n"[..], ChunkError::Size),
            (b";a\r\n", ChunkError::Size),
            (b"\n", ChunkError::Size),
            (b"+5\r\n", ChunkError::Size),
            (b"-5\r\n", ChunkError::Size),
            (b"0x5\r\n", ChunkError::Size),
            (b" 5\r\n", ChunkError::Size),
            (b"5 \r\n", ChunkError::Size),
            (b"5 ;a\r\n", ChunkError::Size),
            (b"5_0\r\n", ChunkError::Size),
            (b"g\r\n", ChunkError::Size),
            (b"00000000000000001\r\n", ChunkError::Size),
            (b"ffffffffffffffff\r\n", ChunkError::Size),
            (b"8000000000000000\r\n", ChunkError::Size),
            (b"5\n", ChunkError::LineEnding),
            (b"5\rx", ChunkError::LineEnding),
            (b"5;a\n", ChunkError::LineEnding),
            (b"5;a\rb", ChunkError::LineEnding),
            (b"5;a\0", ChunkError::ExtensionByte),
            (b"5;\x7f", ChunkError::ExtensionByte),
            (b"5;\xc3\xa9", ChunkError::ExtensionByte),
            (&long, ChunkError::ExtensionTooLong),
            (b"5\r\nhello0", ChunkError::Overrun),
            (b"5\r\nhello\n", ChunkError::LineEnding),
            (b"5\r\nhello\rx", ChunkError::LineEnding),
            (b"0\r\n\n", ChunkError::LineEnding),
            (b"0\r\n\rx", ChunkError::LineEnding),
            (b"0\r\nContent-Length: 5\r\n\r\n", ChunkError::Trailer),
            (b"0\r\nX: y\r\n\r\n", ChunkError::Trailer),
        ] {
            assert_eq!(follow(body), Err(error), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn many_small_chunks_may_not_carry_endless_extensions() {
        let chunk = [b"1;", &[b'e'; 100][..], b"\r\nx\r\n"].concat();
        let mut chunks = Chunks::new();
        let refused = (0..1000).find_map(|_| chunks.advance(&chunk).err());
        assert_eq!(refused, Some(ChunkError::ExtensionTooLong));

        let chunk = [b"64;", &[b'e'; 100][..], b"\r\n", &[b'x'; 100][..], b"\r\n"].concat();
        let mut chunks = Chunks::new();
        assert!((0..1000).all(|_| chunks.advance(&chunk).is_ok()), "as much data as extensions");
    }

    #[test]
    fn nothing_is_consumed_after_the_end() {
        let mut chunks = Chunks::new();
        chunks.advance(b"0\r\n\r\n").unwrap();
        assert_eq!(chunks.advance(b"5\r\n"), Ok(Advance { consumed: 0, done: true }));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_split_makes_no_difference(
            body in "([0-9a-f]{1,2}(;[a-z]{0,3})?\r\n[a-z]{0,12}\r?\n?){0,3}(0\r\n\r\n)?.{0,4}",
            cuts in proptest::collection::vec(1usize..5, 0..40),
        ) {
            let bytes = body.as_bytes();
            let whole = follow(bytes);
            let mut chunks = Chunks::new();
            let mut at = 0;
            let mut cuts = cuts.into_iter();
            let split = loop {
                let end = cuts.next().map_or(bytes.len(), |cut| (at + cut).min(bytes.len()));
                match chunks.advance(&bytes[at..end]) {
                    Err(error) => break Err(error),
                    Ok(step) => at += step.consumed,
                }
                if chunks.is_done() || end == bytes.len() {
                    break Ok(Advance { consumed: at, done: chunks.is_done() });
                }
            };
            prop_assert_eq!(whole, split);
        }

        #[test]
        fn any_data_in_any_chunks_ends_where_it_should(
            data in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            rest: Vec<u8>,
        ) {
            let mut body = Vec::new();
            for chunk in &data {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let consumed = body.len();
            body.extend(rest);
            prop_assert_eq!(follow(&body), Ok(Advance { consumed, done: true }));
        }
    }
}
