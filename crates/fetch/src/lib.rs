//! Outbound HTTP for what runs off the request path: feeds, geo sources, key sets, webhooks.
//!
//! Owns the bounds of time and size, where a redirect may lead, and whom TLS trusts. Blocking: must not be
//! called from the threads that serve requests, and must not know what the bytes mean.

mod addresses;
mod error;
mod fetcher;
mod message;
mod resolver;
mod trust;

pub use addresses::is_public;
pub use error::{FetchError, masked};
pub use fetcher::{Fetcher, MAX_REDIRECTS, Settings};
pub use message::{Method, Request, Response};
