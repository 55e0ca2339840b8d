//! A log from its first byte to its last: unpacked, cut into lines, read as the format that its beginning is in.
//!
//! Owns what is counted and when a log is given up. Must not hold more than a batch and a sample.

use std::io::Read;

use crate::decompress::unpack;
use crate::lines::{Line, Lines};
use crate::map::FieldMap;
use crate::{BadLine, Batch, Choice, Compression, Format, LogError, Parser, Reason};

/// Lines by which the format is told, and the bytes that they may have.
pub const SAMPLE_LINES: usize = 200;
const SAMPLE_BYTES: usize = 1 << 20;
/// After so many lines, or at the end of a shorter log, it is given up if more than this share of them is bad.
pub const PROBE_LINES: u64 = 1_000;
pub const MAX_BAD_SHARE: f64 = 0.5;
/// Bad lines that are kept to be shown.
pub const MAX_SHOWN: usize = 5;
const SHOWN_CHARS: usize = 160;
/// A batch is full with so many records, or so many bytes of text.
pub const BATCH_RECORDS: usize = 2_048;
pub const BATCH_BYTES: usize = 1 << 20;

/// What has been read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blank ones included.
    pub lines: u64,
    pub records: u64,
    /// Of the records, those that were no HTTP requests.
    pub malformed: u64,
    /// Lines that could not be read.
    pub bad: u64,
    /// Lines about no request, as Caddy and Traefik write them.
    pub other: u64,
    /// Records by format, in the order of [`Format::ALL`].
    pub formats: [u64; Format::ALL.len()],
    /// The first bad lines.
    pub shown: Vec<BadLine>,
    /// The end of a compressed log is missing.
    pub is_truncated: bool,
}

/// An access log that is being read.
pub struct Log {
    lines: Lines,
    parser: Parser,
    compression: Compression,
    format: Option<Format>,
    /// Lines that were read to tell the format, the next one last.
    sample: Vec<Sampled>,
    counts: Counts,
    is_probed: bool,
}

struct Sampled {
    number: u64,
    bytes: Box<[u8]>,
    is_too_long: bool,
}

impl Log {
    /// Looks at the beginning of a log.
    ///
    /// # Errors
    /// It cannot be read, or its beginning is in no format that may be tried.
    pub fn open(
        reader: Box<dyn Read + Send>,
        choice: Choice,
        map: Option<&FieldMap>,
    ) -> Result<Self, LogError> {
        let (compression, plain) = unpack(reader)?;
        let mut log = Self {
            lines: Lines::new(plain),
            parser: Parser::new(choice, map),
            compression,
            format: None,
            sample: Vec::new(),
            counts: Counts::default(),
            is_probed: false,
        };
        log.take_sample()?;
        let lines = log.sample.iter().filter(|line| !line.is_too_long);
        log.format = log.parser.detect(lines.map(|line| &*line.bytes)).or(match choice {
            Choice::Only(format) => Some(format),
            Choice::Auto => None,
        });
        if log.format.is_none() {
            log.refuse_unknown()?;
        }
        Ok(log)
    }

    fn take_sample(&mut self) -> Result<(), LogError> {
        let mut bytes = 0;
        while self.sample.len() < SAMPLE_LINES && bytes < SAMPLE_BYTES {
            let Some(line) = self.lines.next()? else { break };
            let Line { number, is_too_long, .. } = line;
            bytes += line.bytes.len();
            self.sample.push(Sampled { number, bytes: line.bytes.into(), is_too_long });
        }
        self.sample.reverse();
        Ok(())
    }

    /// An empty log has no format, and that is no error.
    fn refuse_unknown(&mut self) -> Result<(), LogError> {
        let first = self.sample.iter().rev().find(|line| line.is_too_long || !is_blank(&line.bytes));
        let Some(first) = first else { return Ok(()) };
        let reason = match first.is_too_long {
            true => Reason::TooLong,
            false => self.parser.parse(&first.bytes).err().unwrap_or(Reason::NoRequest),
        };
        // Nothing but messages of a program is no log of another format.
        let all_other = self.sample.iter().all(|line| {
            is_blank(&line.bytes) || self.parser.parse(&line.bytes).is_err_and(|r| r == Reason::Other)
        });
        if all_other {
            return Ok(());
        }
        let first = bad_line(first.number, reason, &first.bytes);
        Err(LogError::Unknown { lines: self.sample.len() as u64, first })
    }

    /// The format that most of the first lines are in, or that was asked for; `None` without a request.
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    pub fn compression(&self) -> Compression {
        self.compression
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Appends records until the batch is full; false at the end of the log.
    ///
    /// # Errors
    /// It cannot be read on, or too many of its first lines are bad.
    pub fn fill(&mut self, batch: &mut Batch) -> Result<bool, LogError> {
        while batch.len() < BATCH_RECORDS && batch.text_bytes() < BATCH_BYTES {
            let is_more = match self.sample.pop() {
                Some(line) => {
                    self.take(line.number, &line.bytes, line.is_too_long, batch);
                    true
                }
                None => self.take_next(batch)?,
            };
            if !self.is_probed && (!is_more || self.counts.lines >= PROBE_LINES) {
                self.probe()?;
            }
            if !is_more {
                self.counts.is_truncated = self.lines.is_truncated;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_next(&mut self, batch: &mut Batch) -> Result<bool, LogError> {
        let Self { lines, parser, counts, .. } = self;
        let Some(line) = lines.next()? else { return Ok(false) };
        take(parser, counts, batch, line);
        Ok(true)
    }

    fn take(&mut self, number: u64, bytes: &[u8], is_too_long: bool, batch: &mut Batch) {
        take(&mut self.parser, &mut self.counts, batch, Line { number, bytes, is_too_long });
    }

    fn probe(&mut self) -> Result<(), LogError> {
        self.is_probed = true;
        let Counts { bad, records, shown, .. } = &self.counts;
        let lines = bad + records;
        match (self.format, shown.first()) {
            (Some(format), Some(first)) if *bad as f64 > lines as f64 * MAX_BAD_SHARE => {
                Err(LogError::TooManyBad { format, lines, bad: *bad, first: first.clone() })
            }
            _ => Ok(()),
        }
    }
}

fn take(parser: &mut Parser, counts: &mut Counts, batch: &mut Batch, line: Line<'_>) {
    counts.lines += 1;
    if is_blank(line.bytes) {
        return;
    }
    let read = if line.is_too_long { Err(Reason::TooLong) } else { parser.parse(line.bytes) };
    match read {
        Ok((record, format)) => {
            counts.records += 1;
            counts.malformed += u64::from(record.is_malformed);
            counts.formats[format.index()] += 1;
            batch.push(&record);
        }
        Err(Reason::Other) => counts.other += 1,
        Err(reason) => {
            counts.bad += 1;
            if counts.shown.len() < MAX_SHOWN {
                counts.shown.push(bad_line(line.number, reason, line.bytes));
            }
        }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|b| b.is_ascii_whitespace() || *b == 0)
}

fn bad_line(number: u64, reason: Reason, bytes: &[u8]) -> BadLine {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_CHARS)]);
    BadLine { number, reason, text: text.chars().take(SHOWN_CHARS).collect() }
}
