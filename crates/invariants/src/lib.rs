//! What must hold for any bytes that a stranger sends, as functions that panic when it does not.
//!
//! Owns the invariants only. `fuzz/` drives them with new inputs, `tests/corpora.rs` with those that are kept.
//! Nobody may ship with this crate.

mod access_log;
mod addresses;
mod body;
mod frames;
mod head;
mod path;
mod proxy_header;
mod redaction;

pub use access_log::access_log;
pub use addresses::{cidr, forwarded};
pub use body::chunked;
pub use frames::frames;
pub use head::request_head;
pub use path::path;
pub use proxy_header::proxy_header;
pub use redaction::redaction;

/// Panics if something does not hold for the input.
pub type Check = fn(&[u8]);

/// One function for each fuzz target, by its name.
pub const TARGETS: [(&str, Check); 9] = [
    ("access_log", access_log),
    ("chunked", chunked),
    ("cidr", cidr),
    ("forwarded", forwarded),
    ("frames", frames),
    ("path", path),
    ("proxy_header", proxy_header),
    ("redaction", redaction),
    ("request_head", request_head),
];
