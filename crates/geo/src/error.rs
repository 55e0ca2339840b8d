//! What can be wrong with a geo database, as sentences that name the file and the remedy.
//!
//! Owns the error type only; must not log.

use std::io;
use std::path::PathBuf;

use maxminddb::MaxMindDbError;

/// Why a database cannot be used. Each variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    #[error(
        "geo database {} does not exist; correct the path in geo.databases or download the file", path.display()
    )]
    Missing { path: PathBuf },

    #[error("geo database {} is not a regular file; name an .mmdb file in geo.databases", path.display())]
    NotAFile { path: PathBuf },

    #[error("geo database {} cannot be read: {source}; make it readable for the gateway's user", path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("geo database {} has {bytes} bytes, more than the {max} that are supported", path.display())]
    TooLarge { path: PathBuf, bytes: u64, max: u64 },

    #[error("geo database {} needs {bytes} bytes of memory, which the system does not give", path.display())]
    OutOfMemory { path: PathBuf, bytes: u64 },

    #[error("geo database {} is still being written; put the finished file in place by a rename", path.display())]
    BeingWritten { path: PathBuf },

    #[error(
        "geo database {} is corrupt or no MMDB file ({source}); download it again", path.display()
    )]
    Corrupt { path: PathBuf, source: Box<MaxMindDbError> },

    #[error(
        "geo database {} of type {kind:?} has no field that is known here; \
         use a city, country, ASN or ISP database", path.display()
    )]
    UnknownSchema { path: PathBuf, kind: String },

    #[error("geo.databases lists {given} files, more than the {max} that are supported")]
    TooManyDatabases { given: usize, max: usize },

    #[error("what sources of locations said cannot be kept: {why}")]
    Shelf { why: String },
}

impl GeoError {
    pub(crate) fn shelf(why: String) -> Self {
        Self::Shelf { why }
    }
}
