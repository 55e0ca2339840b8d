//! An address in, a [`Location`](portcullis_model::Location) out: layered MMDB files behind a cache, and HTTP
//! sources that are asked later about what the files do not know.
//!
//! Owns the files, their schemas, the caches, the replacing of a file while the gateway runs, and the thread
//! that asks sources. Must not know what a location is for, nor open sockets or databases.

mod database;
mod error;
mod geo;
mod record;
mod sources;

pub use database::{MAX_DATABASE_BYTES, MAX_DATABASES};
pub use error::GeoError;
pub use geo::{
    DatabaseStatus, Geo, GeoStats, MAX_CACHE_ENTRIES, MAX_CACHE_TTL, Settings, inspect, is_public,
};
pub use sources::{
    Answer, AnswerKind, Ask, Asked, Circuit, Effort, Field, MAX_LEFT_ALONE, MAX_WAITING, OnLocation, Outcome,
    Parts, Reply, Shelf, SourceKind, SourceReport, SourceSettings, SourceState, SourceStats, SourcesThread,
    Transport, Unavailable, ask,
};
