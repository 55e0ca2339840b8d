//! What is wrong with a line, and with a log as a whole. Each message names the place and the remedy.

use std::fmt;
use std::io;

use crate::{Format, MAX_BAD_SHARE, MAX_LINE};

/// Why a line gave no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is longer than [`MAX_LINE`].
    TooLong,
    /// It has no quoted request where the format has one.
    NoRequest,
    /// No time in brackets, or one that cannot be read.
    Time,
    /// The client is no IP address.
    Client,
    /// No status after the request.
    Status,
    /// A quoted text does not end.
    Quote,
    /// No JSON, or a field of another kind than it should be.
    Json,
    /// A line of the same program about something else, such as its start.
    Other,
    /// Extra or missing fields for the format that was asked for.
    Shape,
}

impl Reason {
    /// A clause that says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "it is too long",
            Self::NoRequest => "it has no request in quotes",
            Self::Time => "its time is missing or cannot be read",
            Self::Client => "it has no client address (host names cannot be used)",
            Self::Status => "it has no status after the request",
            Self::Quote => "a quoted text in it does not end",
            Self::Json => "it is no valid JSON object",
            Self::Other => "it is about no request",
            Self::Shape => "it has other fields than this format",
        }
    }
}

/// A line that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub number: u64,
    pub reason: Reason,
    /// Its beginning.
    pub text: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::TooLong => write!(f, "line {}: it is longer than {MAX_LINE} bytes", self.number),
            reason => write!(f, "line {}: {}", self.number, reason.as_str()),
        }
    }
}

/// Why a log is not used, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(
        "{bad} of its first {lines} lines are no requests as {format}, more than the {percent:.0} % that may be; \
         {first}; name the format with --format, and the fields of JSON with --map",
        percent = MAX_BAD_SHARE * 100.0
    )]
    TooManyBad { format: Format, lines: u64, bad: u64, first: BadLine },
    #[error(
        "its first {lines} lines are in no known format; {first}; name the format with --format, and the fields \
         of JSON with --map"
    )]
    Unknown { lines: u64, first: BadLine },
}
