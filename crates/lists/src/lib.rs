//! Lists of addresses as other programs write and read them: plain text, CSV, JSON, nginx.
//!
//! Owns the formats, which lines are bad, and which networks no list may block. Pure: must not do I/O, read
//! clocks, or know where a list comes from.

mod error;
mod format;
mod ranges;
mod read;
mod screen;
mod write;

pub use error::ListError;
pub use format::Format;
pub use read::{BadLine, Entry, Limits, MAX_SHOWN, Summary, read};
pub use screen::{Refused, Screen, WIDEST_V4, WIDEST_V6};
pub use write::{Writable, write};
