//! One MMDB file: read, verified, and asked.
//!
//! Owns the file's bytes and the test whether the file on disk is still the one that was read.
//! Must not decide what happens to a bad file; that is the handle's business.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use maxminddb::{MaxMindDbError, Reader};
use portcullis_model::{Location, UnixMs};

use crate::GeoError;
use crate::record::Value;

/// Largest file that is read, in bytes. The largest databases on the market have about 1 GiB.
pub const MAX_DATABASE_BYTES: u64 = 2 << 30;

/// Files that can be layered.
pub const MAX_DATABASES: usize = 16;

/// Records from the start of the tree that must decode before a file is used.
const VERIFIED_RECORDS: usize = 2_000;

/// What tells one state of a file from another. The change time is part of it because a copy can keep
/// the size and the modification time of the file that it overwrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The state of the file on disk; `None` when there is no such file or it cannot be examined.
    pub(crate) fn on_disk(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// A database in memory.
///
/// The bytes are read and not memory-mapped, although that costs resident memory of the file's size:
/// an updater that overwrites or truncates a mapped file in place kills the process with SIGBUS or
/// changes bytes under the decoder, and mapping needs `unsafe`, which this workspace forbids.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    fingerprint: Fingerprint,
    reader: Reader<Vec<u8>>,
    complained: AtomicBool,
}

impl Database {
    /// Reads and verifies a file.
    pub(crate) fn open(path: &Path) -> Result<Self, GeoError> {
        let (bytes, fingerprint) = read(path)?;
        let corrupt = |source| GeoError::Corrupt { path: path.to_owned(), source: Box::new(source) };
        let reader = Reader::from_source(bytes).map_err(corrupt)?;
        let database =
            Self { path: path.to_owned(), fingerprint, reader, complained: AtomicBool::new(false) };
        if database.verify().map_err(corrupt)? {
            Ok(database)
        } else {
            Err(GeoError::UnknownSchema { path: path.to_owned(), kind: database.kind().to_owned() })
        }
    }

    /// Decodes the first records and some that are spread over the address space. Says whether any
    /// of them has a known field; a database without records passes.
    fn verify(&self) -> Result<bool, MaxMindDbError> {
        let mut records = 0;
        let mut known = false;
        for network in self.reader.networks(Default::default())?.take(VERIFIED_RECORDS) {
            if let Some(record) = network?.decode::<Value<'_>>()? {
                records += 1;
                known |= !record.to_location().is_unknown();
            }
        }
        for octet in 0..=u8::MAX {
            let v4 = Ipv4Addr::new(octet, octet.wrapping_mul(151), 1, 1);
            let v6 = Ipv6Addr::new(0x2000 | u16::from(octet) << 4, 0x0db8, 0, 0, 0, 0, 0, 1);
            for ip in [IpAddr::V4(v4), IpAddr::V6(v6)] {
                known |= !self.read_record(ip)?.is_unknown();
            }
        }
        Ok(known || records == 0)
    }

    fn read_record(&self, ip: IpAddr) -> Result<Location, MaxMindDbError> {
        if ip.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(Location::default());
        }
        let record = self.reader.lookup(ip)?.decode::<Value<'_>>()?;
        Ok(record.map(|value| value.to_location()).unwrap_or_default())
    }

    /// What this file knows about an address. A record that cannot be decoded counts as nothing known
    /// and is reported once for each loaded file.
    pub(crate) fn lookup(&self, ip: IpAddr) -> Location {
        self.read_record(ip).unwrap_or_else(|error| {
            if !self.complained.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    path = %self.path.display(), %error,
                    "a record of the geo database cannot be decoded; download the file again"
                );
            }
            Location::default()
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The publisher's name of the schema, such as `DBIP-City-Lite`.
    pub(crate) fn kind(&self) -> &str {
        &self.reader.metadata().database_type
    }

    pub(crate) fn built(&self) -> UnixMs {
        let seconds = i64::try_from(self.reader.metadata().build_epoch).unwrap_or(i64::MAX);
        UnixMs(seconds.saturating_mul(1_000))
    }

    pub(crate) fn nodes(&self) -> u32 {
        self.reader.metadata().node_count
    }

    pub(crate) fn ip_version(&self) -> u16 {
        self.reader.metadata().ip_version
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.fingerprint.bytes
    }
}

/// The whole file, and the state that it had both before and after it was read.
fn read(path: &Path) -> Result<(Vec<u8>, Fingerprint), GeoError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => GeoError::Missing { path: path.to_owned() },
        _ => GeoError::Read { path: path.to_owned(), source },
    };
    // Opening a FIFO would wait for a writer, so the kind of file is asked for before.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(GeoError::NotAFile { path: path.to_owned() });
    }
    let mut file = File::open(path).map_err(failed)?;
    let before = Fingerprint::of(&file.metadata().map_err(failed)?);
    if before.bytes > MAX_DATABASE_BYTES {
        return Err(GeoError::TooLarge {
            path: path.to_owned(),
            bytes: before.bytes,
            max: MAX_DATABASE_BYTES,
        });
    }
    let out_of_memory = || GeoError::OutOfMemory { path: path.to_owned(), bytes: before.bytes };
    let length = usize::try_from(before.bytes).map_err(|_| out_of_memory())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| out_of_memory())?;
    (&mut file).take(before.bytes).read_to_end(&mut bytes).map_err(failed)?;
    let after = Fingerprint::of(&file.metadata().map_err(failed)?);
    if before != after || bytes.len() != length {
        return Err(GeoError::BeingWritten { path: path.to_owned() });
    }
    Ok((bytes, before))
}
