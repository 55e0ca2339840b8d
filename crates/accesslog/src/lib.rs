//! Access logs as web servers and proxies write them: bytes in, one record per request out.
//!
//! Owns the formats, how they are told apart, decompression, and what a bad line is. Must not open files, read
//! clocks, or judge a request: readers are handed in, and times come from the lines.
//!
//! [`Log::open`] takes a reader; [`Log::fill`] gives the records of its next lines, [`Batch`] by [`Batch`].

mod batch;
mod clf;
mod clock;
mod decompress;
mod error;
mod format;
mod haproxy;
mod json;
mod lines;
mod log;
mod map;
mod parser;
mod proxy_manager;
mod record;
mod request;
mod text;

pub use batch::Batch;
pub use decompress::Compression;
pub use error::{BadLine, LogError, Reason};
pub use format::Format;
pub use lines::MAX_LINE;
pub use log::{BATCH_BYTES, BATCH_RECORDS, Counts, Log, MAX_BAD_SHARE, MAX_SHOWN, PROBE_LINES, SAMPLE_LINES};
pub use map::{FieldMap, MapError};
pub use parser::{Choice, Parser};
pub use record::Record;
