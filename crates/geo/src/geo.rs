//! The handle that the rest of the gateway asks: layers, cache, replacing of files, counters.
//!
//! Owns which databases are in force. Must not schedule its own checks; the caller does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::sync::Cache;
use portcullis_model::{ClientIp, Location, UnixMs};

use crate::GeoError;
use crate::database::{Database, Fingerprint, MAX_DATABASES};

/// Upper bound of `Settings::cache_entries`; an entry of a city database takes about 540 bytes.
pub const MAX_CACHE_ENTRIES: u64 = 4_000_000;

/// Upper bound of `Settings::cache_ttl`.
pub const MAX_CACHE_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const DEFAULT_CACHE_ENTRIES: u64 = 100_000;
const DEFAULT_CACHE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Which files, and how much of their answers is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// MMDB files. For each field of a location, the first file that knows it wins.
    pub databases: Vec<PathBuf>,
    /// Addresses in the cache, at most `MAX_CACHE_ENTRIES`.
    pub cache_entries: u64,
    /// How long an answer is kept, at most `MAX_CACHE_TTL`.
    pub cache_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { databases: Vec::new(), cache_entries: DEFAULT_CACHE_ENTRIES, cache_ttl: DEFAULT_CACHE_TTL }
    }
}

/// A database in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseStatus {
    pub path: PathBuf,
    /// The publisher's name of the schema. Comes from the file: escape it before printing.
    pub kind: String,
    /// When the publisher built it.
    pub built: UnixMs,
    /// Nodes of the search tree.
    pub nodes: u32,
    /// 4 or 6; a database of version 6 usually answers for IPv4 too.
    pub ip_version: u16,
    /// Size of the file, and of the memory that it takes.
    pub bytes: u64,
    /// Why the file that is on disk now is not the one in force; `None` when it is.
    pub rejected: Option<String>,
}

/// Look-ups since the start; each is counted in exactly one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GeoStats {
    /// A location from the cache.
    pub hits: u64,
    /// A location from the files.
    pub misses: u64,
    /// No location: a private address, no database, or none that knows the address.
    pub unknown: u64,
}

/// Cheap to clone; all clones share the databases and the cache.
#[derive(Clone, Debug)]
pub struct Geo {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    loaded: ArcSwap<Loaded>,
    /// Files on disk that were found bad, by position in `settings.databases`. Its lock also keeps
    /// two reloads apart.
    rejected: Mutex<Vec<Option<Rejected>>>,
    unknown: Arc<Location>,
    hits: AtomicU64,
    misses: AtomicU64,
    unknowns: AtomicU64,
}

/// The databases and the answers that came from them. They are replaced together, so that a look-up
/// that began before a reload cannot leave an old answer in the new cache.
#[derive(Debug)]
struct Loaded {
    databases: Vec<Arc<Database>>,
    cache: Cache<IpAddr, Arc<Location>>,
}

#[derive(Debug)]
struct Rejected {
    /// `None`: the file was gone.
    fingerprint: Option<Fingerprint>,
    says: String,
}

impl Loaded {
    fn new(settings: &Settings, databases: Vec<Arc<Database>>) -> Self {
        let cache = Cache::builder()
            .max_capacity(settings.cache_entries.min(MAX_CACHE_ENTRIES))
            .time_to_live(settings.cache_ttl.min(MAX_CACHE_TTL))
            .build();
        Self { databases, cache }
    }
}

impl Geo {
    /// Reads and verifies all files. With none listed, every address is unknown.
    ///
    /// # Errors
    /// The first file that is missing, unreadable, too large, corrupt or of an unknown schema.
    pub fn open(settings: &Settings) -> Result<Self, GeoError> {
        let given = settings.databases.len();
        if given > MAX_DATABASES {
            return Err(GeoError::TooManyDatabases { given, max: MAX_DATABASES });
        }
        let databases = settings
            .databases
            .iter()
            .map(|path| Database::open(path).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::with(settings.clone(), databases))
    }

    /// Without any database: every address is unknown.
    pub fn none() -> Self {
        Self::with(Settings::default(), Vec::new())
    }

    fn with(settings: Settings, databases: Vec<Arc<Database>>) -> Self {
        let rejected = databases.iter().map(|_| None).collect();
        let inner = Inner {
            loaded: ArcSwap::from_pointee(Loaded::new(&settings, databases)),
            settings,
            rejected: Mutex::new(rejected),
            unknown: Arc::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            unknowns: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where an address is. Never fails and never waits for anything but memory; private, loopback
    /// and link-local addresses are unknown without a look-up.
    pub fn lookup(&self, client: ClientIp) -> Arc<Location> {
        let inner = &*self.inner;
        let ip = client.ip();
        let loaded = inner.loaded.load();
        if loaded.databases.is_empty() || is_local(ip) {
            inner.unknowns.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(&inner.unknown);
        }
        let (location, counter) = match loaded.cache.get(&ip) {
            Some(location) => (location, &inner.hits),
            None => {
                let location = inner.read(&loaded.databases, ip);
                loaded.cache.insert(ip, Arc::clone(&location));
                (location, &inner.misses)
            }
        };
        let counter = if Arc::ptr_eq(&location, &inner.unknown) { &inner.unknowns } else { counter };
        counter.fetch_add(1, Ordering::Relaxed);
        location
    }

    /// Takes files into force that changed on disk since they were read, and says whether there were
    /// any. A file that is bad or gone leaves the last good one in force. Without a change it costs one
    /// `stat` per file; a change is read on the calling thread, about a second per GiB, while the old
    /// file stays in memory beside the new one.
    ///
    /// # Errors
    /// A bad file, once for each state of that file: later checks of the same bad file are `Ok`, so
    /// that the caller may log every error. When several files are bad, each check tells of one more.
    /// Other files that changed are in force even when an error is returned.
    pub fn reload_if_changed(&self) -> Result<bool, GeoError> {
        let inner = &*self.inner;
        let mut rejected = inner.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut databases = inner.loaded.load().databases.clone();
        let mut changed = false;
        let mut failure = None;
        for (database, rejected) in databases.iter_mut().zip(rejected.iter_mut()) {
            let on_disk = Fingerprint::on_disk(database.path());
            if on_disk == Some(database.fingerprint()) {
                *rejected = None;
                continue;
            }
            let known_bad = rejected.as_ref().is_some_and(|bad| bad.fingerprint == on_disk);
            if known_bad || failure.is_some() {
                continue;
            }
            match Database::open(database.path()) {
                Ok(fresh) => {
                    *database = Arc::new(fresh);
                    *rejected = None;
                    changed = true;
                }
                // Not a fault yet: the check after the writer's last byte decides.
                Err(GeoError::BeingWritten { .. }) => {}
                Err(error) => {
                    *rejected = Some(Rejected { fingerprint: on_disk, says: error.to_string() });
                    failure = Some(error);
                }
            }
        }
        if changed {
            inner.loaded.store(Arc::new(Loaded::new(&inner.settings, databases)));
        }
        failure.map_or(Ok(changed), Err)
    }

    /// The databases in force, in their order.
    pub fn status(&self) -> Vec<DatabaseStatus> {
        let rejected = self.inner.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = self.inner.loaded.load();
        let describe = |(database, rejected): (&Arc<Database>, &Option<Rejected>)| DatabaseStatus {
            path: Path::to_owned(database.path()),
            kind: database.kind().to_owned(),
            built: database.built(),
            nodes: database.nodes(),
            ip_version: database.ip_version(),
            bytes: database.bytes(),
            rejected: rejected.as_ref().map(|bad| bad.says.clone()),
        };
        loaded.databases.iter().zip(rejected.iter()).map(describe).collect()
    }

    /// The counters of all clones together.
    pub fn stats(&self) -> GeoStats {
        GeoStats {
            hits: self.inner.hits.load(Ordering::Relaxed),
            misses: self.inner.misses.load(Ordering::Relaxed),
            unknown: self.inner.unknowns.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    /// Asks the layers in order. All unknown locations are one allocation, because a scan from
    /// addresses that nobody knows would otherwise fill the cache with copies of nothing.
    fn read(&self, databases: &[Arc<Database>], ip: IpAddr) -> Arc<Location> {
        let location =
            databases.iter().fold(Location::default(), |found, database| found.or(database.lookup(ip)));
        if location.is_unknown() { Arc::clone(&self.unknown) } else { Arc::new(location) }
    }
}

/// Addresses that are nowhere in the public Internet.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_local_v4(v4),
        IpAddr::V6(v6) => is_local_v6(v6),
    }
}

fn is_local_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // RFC 6598, the address space that carriers share among subscribers.
    let is_shared = a == 100 && (64..128).contains(&b);
    a == 0 || is_shared || ip.is_private() || ip.is_loopback() || ip.is_link_local() || a >= 224
}

fn is_local_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        || ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_networks_are_local_and_their_neighbours_are_not() {
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(is_local(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "11.0.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "223.255.255.255",
            "2001:db8::1",
            "2606:4700::1111",
            "fec0::1",
        ] {
            assert!(!is_local(text.parse().unwrap()), "{text}");
        }
    }
}
