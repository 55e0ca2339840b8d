//! An address in, a [`Location`](portcullis_model::Location) out: layered MMDB files behind a cache.
//!
//! Owns the files, their schemas, the cache and the replacing of a file while the gateway runs.
//! Must not be asked on the request path unless a rule needs it, and must not know what a location is for.

mod database;
mod error;
mod geo;
mod record;

pub use database::{MAX_DATABASE_BYTES, MAX_DATABASES};
pub use error::GeoError;
pub use geo::{DatabaseStatus, Geo, GeoStats, MAX_CACHE_ENTRIES, MAX_CACHE_TTL, Settings};
