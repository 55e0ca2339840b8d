//! What the bytes on a client's connection mean: request heads, chunked bodies, PROXY headers, frames.
//!
//! Owns the strict reading of the wire: what two servers could read in two ways is an error here. Must not
//! do I/O, know tokio or Pingora, or read a clock: bytes and time are passed in.

mod chunked;
mod escape;
mod fields;
pub mod frames;
mod head;
mod path;
pub mod proxy_protocol;
mod request_line;

pub use chunked::{Advance, ChunkError, Chunks, MAX_EXTENSION, MAX_EXTENSION_EXCESS};
pub use escape::escaped;
pub use fields::is_authority;
pub use head::{Framing, Head, HeadError, HeadLimits, MAX_METHOD, scan};
pub use path::{PathError, check_path};
pub use request_line::is_method;
