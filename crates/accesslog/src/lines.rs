//! Lines of a stream in bounded memory. Must not know what is in them.

use std::io::{self, Read};

use memchr::memchr;

/// The longest line, in bytes, its end not counted. Servers bound requests to far less.
pub const MAX_LINE: usize = 64 << 10;
const BUFFER: usize = 4 * MAX_LINE;
/// How much of a line that is too long is kept, to show it.
const KEPT: usize = 256;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// One line, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) bytes: &'a [u8],
    /// It is longer than [`MAX_LINE`]; `bytes` is its beginning.
    pub(crate) is_too_long: bool,
}

/// Cuts a stream into lines.
pub(crate) struct Lines {
    reader: Box<dyn Read + Send>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    number: u64,
    has_ended: bool,
    /// The stream was compressed, and its end is missing.
    pub(crate) is_truncated: bool,
}

impl Lines {
    pub(crate) fn new(reader: Box<dyn Read + Send>) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { reader, buffer, start: 0, end: 0, number: 0, has_ended: false, is_truncated: false }
    }

    /// The next line; the last one need not have an end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let mut looked = 0;
        loop {
            let waiting = &self.buffer[self.start + looked..self.end];
            if let Some(at) = memchr(b'\n', waiting) {
                let (from, to) = (self.start, self.start + looked + at);
                self.start = to + 1;
                return Ok(Some(self.line(from, to)));
            }
            looked = self.end - self.start;
            if looked > MAX_LINE + 1 {
                return self.pass_over().map(Some);
            }
            if self.has_ended {
                let (from, to) = (self.start, self.end);
                self.start = to;
                return Ok((from < to).then(|| self.line(from, to)));
            }
            self.read()?;
        }
    }

    fn line(&mut self, from: usize, to: usize) -> Line<'_> {
        self.number += 1;
        let bytes = &self.buffer[from..to];
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let bytes = if self.number == 1 { bytes.strip_prefix(BOM).unwrap_or(bytes) } else { bytes };
        match bytes.len() {
            0..=MAX_LINE => Line { number: self.number, bytes, is_too_long: false },
            _ => Line { number: self.number, bytes: &bytes[..KEPT], is_too_long: true },
        }
    }

    /// Goes on to the end of a line that does not fit.
    fn pass_over(&mut self) -> io::Result<Line<'_>> {
        // Its beginning is kept at the beginning of the buffer.
        self.buffer.copy_within(self.start..self.start + KEPT, 0);
        self.number += 1;
        loop {
            self.start = KEPT;
            self.end = KEPT;
            self.read()?;
            if let Some(at) = memchr(b'\n', &self.buffer[KEPT..self.end]) {
                self.start = KEPT + at + 1;
                break;
            }
            if self.has_ended {
                self.start = self.end;
                break;
            }
        }
        Ok(Line { number: self.number, bytes: &self.buffer[..KEPT], is_too_long: true })
    }

    /// Reads more behind what waits, which moves to the front when there is no room.
    fn read(&mut self) -> io::Result<()> {
        if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.has_ended = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A log that is still written, or a copy that was cut off: what came is good.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.has_ended = true;
                    self.is_truncated = true;
                }
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Hands out a few bytes at a time.
    struct Slow(Cursor<Vec<u8>>, usize);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = into.len().min(self.1);
            self.0.read(&mut into[..most])
        }
    }

    fn lines(bytes: &[u8], at_a_time: usize) -> Vec<(u64, usize, bool)> {
        let mut lines = Lines::new(Box::new(Slow(Cursor::new(bytes.to_vec()), at_a_time)));
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, line.bytes.len(), line.is_too_long));
        }
        all
    }

    #[test]
    fn lines_are_counted_whatever_ends_them_and_however_they_come() {
        for at_a_time in [1, 3, 1 << 20] {
            let text = b"\xef\xbb\xbfone\r\n\ntwo2\nlast";
            let expected = [(1, 3, false), (2, 0, false), (3, 4, false), (4, 4, false)];
            assert_eq!(lines(text, at_a_time), expected);
            assert_eq!(lines(b"", at_a_time), []);
        }
    }

    #[test]
    fn a_line_at_the_bound_is_whole_and_a_longer_one_is_passed_over() {
        for (length, is_too_long) in
            [(MAX_LINE, false), (MAX_LINE + 1, true), (3 * MAX_LINE, true), (20 * MAX_LINE, true)]
        {
            for end in [&b"\r\nnext"[..], b"\nnext"] {
                let mut text = vec![b'x'; length];
                text.extend_from_slice(end);
                let found = lines(&text, 70_000);
                assert_eq!(found.len(), 2, "{length}");
                assert_eq!((found[0].2, found[1]), (is_too_long, (2, 4, false)), "{length}");
            }
            let found = lines(&vec![b'x'; length], 1 << 20);
            assert_eq!((found.len(), found[0].2), (1, is_too_long), "{length}");
        }
    }
}
