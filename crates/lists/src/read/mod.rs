//! From the bytes of a list to its entries. Bad lines are counted and some are shown; whether the rest is
//! used is decided here, once, for all formats.

mod cells;
mod csv;
mod json;
mod nginx;
mod plain;

use std::fmt;

use ipnet::IpNet;
use portcullis_model::UnixMs;

use crate::{Format, ListError};

/// Bad lines that are shown at most.
pub const MAX_SHOWN: usize = 10;
/// Characters of a bad line that are shown.
const MAX_EXCERPT: usize = 80;
/// Characters of what is wrong with it.
const MAX_PROBLEM: usize = 300;
/// Characters of a reason that are kept.
const MAX_REASON: usize = 500;

/// One network of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Without host bits.
    pub network: IpNet,
    /// What the list says about it: one line, without control characters.
    pub reason: Option<String>,
    /// When the list says that it ends.
    pub expires: Option<UnixMs>,
}

/// What a list may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub max_entries: usize,
    /// The share of lines that may be no entries, 0 to 1.
    pub max_bad: f64,
}

/// A line that is no entry. For JSON arrays, "line" is the number of the item.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BadLine {
    pub line: u64,
    /// The beginning of the line, as it came: escape it before it is printed.
    pub excerpt: String,
    pub problem: String,
}

impl BadLine {
    /// Keeps the beginnings of both texts.
    pub fn new(line: u64, text: &str, problem: &str) -> Self {
        let cut = |text: &str, max| text.chars().take(max).collect();
        Self { line, excerpt: cut(text, MAX_EXCERPT), problem: cut(problem, MAX_PROBLEM) }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let excerpt = format!("{:?}", self.excerpt);
        write!(f, "line {}: {}", self.line, self.problem)?;
        if self.problem.contains(excerpt.trim_matches('"')) { Ok(()) } else { write!(f, " ({excerpt})") }
    }
}

/// What was in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines or items that are neither empty nor comments.
    pub lines: u64,
    pub entries: u64,
    pub bad: u64,
    /// The first [`MAX_SHOWN`] of the bad ones.
    pub shown: Vec<BadLine>,
    /// `allow` lines of nginx, which are left out.
    pub allows: u64,
}

/// Reads a list, and hands each entry to `sink` in the order of the text. When it returns an error the
/// entries that were handed over must not be used.
///
/// # Errors
/// The list has no entries, too many of them, or too many lines that are none.
pub fn read(
    format: Format,
    bytes: &[u8],
    limits: Limits,
    sink: &mut dyn FnMut(Entry),
) -> Result<Summary, ListError> {
    let mut reading = Reading { limits, sink, summary: Summary::default() };
    match format {
        Format::Plain => plain::read(bytes, &mut reading)?,
        Format::Csv => csv::read(bytes, &mut reading)?,
        Format::Json => json::read(bytes, &mut reading)?,
        Format::Nginx => nginx::read(bytes, &mut reading)?,
    }
    reading.finish(format)
}

/// A list on its way.
pub(crate) struct Reading<'a> {
    limits: Limits,
    sink: &'a mut dyn FnMut(Entry),
    summary: Summary,
}

impl Reading<'_> {
    /// One more line that is neither empty nor a comment.
    fn line(&mut self) {
        self.summary.lines += 1;
    }

    fn entry(&mut self, entry: Entry) -> Result<(), ListError> {
        if self.summary.entries >= self.limits.max_entries as u64 {
            return Err(ListError::TooManyEntries { max: self.limits.max_entries });
        }
        self.summary.entries += 1;
        (self.sink)(entry);
        Ok(())
    }

    fn allow(&mut self) {
        self.summary.allows += 1;
    }

    fn bad(&mut self, line: u64, text: &str, problem: impl Into<String>) {
        self.summary.bad += 1;
        if self.summary.shown.len() < MAX_SHOWN {
            self.summary.shown.push(BadLine::new(line, text, &problem.into()));
        }
    }

    fn finish(self, format: Format) -> Result<Summary, ListError> {
        let Summary { lines, entries, bad, .. } = self.summary;
        if let Some(first) = self.summary.shown.first()
            && bad as f64 > self.limits.max_bad * lines as f64
        {
            let percent = (self.limits.max_bad * 10_000.0).round() / 100.0;
            return Err(ListError::TooManyBad { bad, lines, percent, first: first.clone() });
        }
        if entries == 0 {
            return Err(ListError::Empty { format: format.as_str() });
        }
        Ok(self.summary)
    }
}

/// The lines of a text with their numbers, from 1. Bytes that are no UTF-8 are shown as such.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (u64, std::borrow::Cow<'_, str>)> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut from = 0;
    let ends = memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]);
    let pieces = ends.map(move |end| {
        let piece = &bytes[from..end];
        from = end + 1;
        piece
    });
    (1..).zip(pieces.map(String::from_utf8_lossy))
}

/// One line of a bounded length, or nothing.
fn reason(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    Some(text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON).collect())
}
