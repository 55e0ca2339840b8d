//! The handle that the rest of the gateway asks: layers, cache, replacing of files, counters.
//!
//! Owns which databases are in force. Must not schedule its own checks; the caller does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use moka::Expiry;
use moka::sync::Cache;
use portcullis_model::{ClientIp, Location, UnixMs};

use crate::GeoError;
use crate::database::{Database, Fingerprint, MAX_DATABASES};
use crate::sources::{Field, Questions, SourceSettings, SourceStats, is_missing};

/// Upper bound of `Settings::cache_entries`; an entry of a city database takes about 540 bytes.
pub const MAX_CACHE_ENTRIES: u64 = 4_000_000;

/// Upper bound of `Settings::cache_ttl`.
pub const MAX_CACHE_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const DEFAULT_CACHE_ENTRIES: u64 = 100_000;
const DEFAULT_CACHE_TTL: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_NEGATIVE_TTL: Duration = Duration::from_secs(60 * 60);
/// How long a location that lacks something is kept while sources are asked about it.
const WAITING_TTL: Duration = Duration::from_secs(60);

/// Which files, and how much of their answers is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// MMDB files. For each field of a location, the first file that knows it wins.
    pub databases: Vec<PathBuf>,
    /// More MMDB files, asked after those, which need not be there yet.
    pub downloads: Vec<PathBuf>,
    /// Asked about addresses of which the files do not know everything that is wanted, off the request path.
    pub sources: Vec<SourceSettings>,
    /// What has to be missing for a source to be asked.
    pub wanted: Vec<Field>,
    /// Sources are asked about the network of an address (/24, /48 of IPv6) and never hear of the address itself.
    pub networks_only: bool,
    /// Addresses in the cache, at most `MAX_CACHE_ENTRIES`.
    pub cache_entries: u64,
    /// How long an answer is kept, at most `MAX_CACHE_TTL`.
    pub cache_ttl: Duration,
    /// The same for a source's answer that lacks something wanted.
    pub negative_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            databases: Vec::new(),
            downloads: Vec::new(),
            sources: Vec::new(),
            wanted: vec![Field::Country],
            networks_only: false,
            cache_entries: DEFAULT_CACHE_ENTRIES,
            cache_ttl: DEFAULT_CACHE_TTL,
            negative_ttl: DEFAULT_NEGATIVE_TTL,
        }
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
    /// Files on disk that were found bad, by layer. Its lock also keeps two reloads apart.
    rejected: Mutex<Vec<Option<Rejected>>>,
    /// What sources said. Apart from `Loaded`, since it stays true when a file is replaced.
    learned: Cache<IpAddr, Entry>,
    questions: Questions,
    source_stats: SourceStats,
    unknown: Arc<Location>,
    hits: AtomicU64,
    misses: AtomicU64,
    unknowns: AtomicU64,
}

/// The databases and the answers that came from them. They are replaced together, so that a look-up
/// that began before a reload cannot leave an old answer in the new cache.
#[derive(Debug)]
struct Loaded {
    layers: Vec<Layer>,
    cache: Cache<IpAddr, Entry>,
}

/// A file that is asked in its turn.
#[derive(Clone, Debug)]
struct Layer {
    path: PathBuf,
    /// `None` when a file that need not be there has not come yet.
    database: Option<Arc<Database>>,
}

#[derive(Debug)]
struct Rejected {
    /// `None`: the file was gone.
    fingerprint: Option<Fingerprint>,
    says: String,
}

#[derive(Clone, Debug)]
struct Entry {
    location: Arc<Location>,
    ttl: Duration,
}

/// Each entry says how long it is kept.
struct ByEntry;

impl Expiry<IpAddr, Entry> for ByEntry {
    fn expire_after_create(&self, _: &IpAddr, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &IpAddr,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

fn cache(settings: &Settings) -> Cache<IpAddr, Entry> {
    let entries = settings.cache_entries.min(MAX_CACHE_ENTRIES);
    Cache::builder().max_capacity(entries).expire_after(ByEntry).build()
}

impl Loaded {
    fn new(settings: &Settings, layers: Vec<Layer>) -> Self {
        Self { layers, cache: cache(settings) }
    }

    fn databases(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.layers.iter().filter_map(|layer| layer.database.as_ref())
    }
}

impl Geo {
    /// Reads and verifies all files. With none listed, every address is unknown until a source has answered.
    ///
    /// # Errors
    /// The first file that is unreadable, too large, corrupt or of an unknown schema, or missing though it is
    /// not one that is downloaded.
    pub fn open(settings: &Settings) -> Result<Self, GeoError> {
        let given = settings.databases.len() + settings.downloads.len();
        if given > MAX_DATABASES {
            return Err(GeoError::TooManyDatabases { given, max: MAX_DATABASES });
        }
        let required = settings.databases.iter().map(|path| (path, Database::open(path).map(Some)));
        let downloads = settings.downloads.iter().map(|path| match Database::open(path) {
            Err(GeoError::Missing { .. }) => (path, Ok(None)),
            other => (path, other.map(Some)),
        });
        let layer = |(path, opened): (&PathBuf, Result<Option<Database>, GeoError>)| {
            Ok(Layer { path: path.clone(), database: opened?.map(Arc::new) })
        };
        Ok(Self::with(settings.clone(), required.chain(downloads).map(layer).collect::<Result<_, _>>()?))
    }

    /// Without any database: every address is unknown.
    pub fn none() -> Self {
        Self::with(Settings::default(), Vec::new())
    }

    fn with(mut settings: Settings, layers: Vec<Layer>) -> Self {
        settings.cache_ttl = settings.cache_ttl.min(MAX_CACHE_TTL);
        settings.negative_ttl = settings.negative_ttl.min(settings.cache_ttl);
        let rejected = layers.iter().map(|_| None).collect();
        let inner = Inner {
            loaded: ArcSwap::from_pointee(Loaded::new(&settings, layers)),
            learned: cache(&settings),
            settings,
            rejected: Mutex::new(rejected),
            questions: Questions::default(),
            source_stats: SourceStats::default(),
            unknown: Arc::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            unknowns: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where an address is. Never fails and never waits for anything but memory; private, loopback
    /// and link-local addresses are unknown without a look-up. When the files do not know enough and there are
    /// sources, these are asked later, and a later look-up knows more.
    pub fn lookup(&self, client: ClientIp) -> Arc<Location> {
        let inner = &*self.inner;
        let ip = client.ip();
        let loaded = inner.loaded.load();
        if (loaded.layers.is_empty() && inner.settings.sources.is_empty()) || is_local(ip) {
            inner.unknowns.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(&inner.unknown);
        }
        let (location, counter) = match loaded.cache.get(&ip) {
            Some(entry) => (entry.location, &inner.hits),
            None => (inner.find(&loaded, client), &inner.misses),
        };
        let counter = if Arc::ptr_eq(&location, &inner.unknown) { &inner.unknowns } else { counter };
        counter.fetch_add(1, Ordering::Relaxed);
        location
    }

    /// What each file says about an address, in their order, past the cache.
    pub fn files_say(&self, client: ClientIp) -> Vec<(PathBuf, Location)> {
        let loaded = self.inner.loaded.load();
        let say = |database: &Arc<Database>| {
            let location =
                if is_local(client.ip()) { Location::default() } else { database.lookup(client.ip()) };
            (database.path().to_owned(), location)
        };
        loaded.databases().map(say).collect()
    }

    /// What the files together know about an address.
    pub fn files_know(&self, client: ClientIp) -> Location {
        self.files_say(client).into_iter().fold(Location::default(), |known, (_, says)| known.or(says))
    }

    /// Takes over what sources have said, `age` ago. Returns what is known together with the files.
    pub(crate) fn learn(&self, client: ClientIp, said: &Location, age: Duration) -> Location {
        let inner = &*self.inner;
        let location = self.files_know(client).or(said.clone());
        let lacks = is_missing(&inner.settings.wanted, &location);
        let ttl = if lacks { inner.settings.negative_ttl } else { inner.settings.cache_ttl };
        let ttl = ttl.saturating_sub(age);
        let ip = client.ip();
        inner.learned.insert(ip, Entry { location: inner.shared(said.clone()), ttl });
        let known = Entry { location: inner.shared(location.clone()), ttl };
        inner.loaded.load().cache.insert(ip, known);
        location
    }

    /// Has the sources asked about an address as soon as they have time, if the files do not know enough.
    /// `false` when too many wait.
    pub fn ask_later(&self, client: ClientIp) -> bool {
        !is_public(client.ip()) || self.inner.questions.push(self.inner.subject(client))
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(crate) fn questions(&self) -> &Questions {
        &self.inner.questions
    }

    pub fn source_stats(&self) -> &SourceStats {
        &self.inner.source_stats
    }

    /// Addresses that wait for a source.
    pub fn waiting(&self) -> usize {
        self.inner.questions.len()
    }

    /// Files that are to be downloaded and are not there yet.
    pub fn not_there_yet(&self) -> Vec<PathBuf> {
        let loaded = self.inner.loaded.load();
        let missing = loaded.layers.iter().filter(|layer| layer.database.is_none());
        missing.map(|layer| layer.path.clone()).collect()
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
        let mut layers = inner.loaded.load().layers.clone();
        let mut changed = false;
        let mut failure = None;
        for (layer, rejected) in layers.iter_mut().zip(rejected.iter_mut()) {
            let on_disk = Fingerprint::on_disk(&layer.path);
            // Also: a file that has not come yet has not come yet.
            if on_disk == layer.database.as_ref().map(|database| database.fingerprint()) {
                *rejected = None;
                continue;
            }
            let known_bad = rejected.as_ref().is_some_and(|bad| bad.fingerprint == on_disk);
            if known_bad || failure.is_some() {
                continue;
            }
            match Database::open(&layer.path) {
                Ok(fresh) => {
                    layer.database = Some(Arc::new(fresh));
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
            inner.loaded.store(Arc::new(Loaded::new(&inner.settings, layers)));
        }
        failure.map_or(Ok(changed), Err)
    }

    /// The databases in force, in their order.
    pub fn status(&self) -> Vec<DatabaseStatus> {
        let rejected = self.inner.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = self.inner.loaded.load();
        let in_force = |(layer, rejected): (&Layer, &Option<Rejected>)| {
            let database = layer.database.as_ref()?;
            Some(describe(database, rejected.as_ref()))
        };
        loaded.layers.iter().zip(rejected.iter()).filter_map(in_force).collect()
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
    /// Asks the layers in order, then what sources have said; questions that are left go to the sources.
    fn find(&self, loaded: &Loaded, client: ClientIp) -> Arc<Location> {
        let ip = client.ip();
        let found = loaded.databases().fold(Location::default(), |found, file| found.or(file.lookup(ip)));
        let is_enough = self.settings.sources.is_empty() || !is_missing(&self.settings.wanted, &found);
        if is_enough || !is_public(ip) {
            let location = self.shared(found);
            loaded.cache.insert(ip, Entry { location: Arc::clone(&location), ttl: self.settings.cache_ttl });
            return location;
        }
        let subject = self.subject(client);
        let learned = self.learned.get(&subject.ip());
        let is_asked = learned.is_none();
        let said = learned.map(|entry| Location::clone(&entry.location)).unwrap_or_default();
        let location = self.shared(found.or(said));
        // What sources said runs out in `learned` alone, so that it is not kept for longer here.
        loaded.cache.insert(ip, Entry { location: Arc::clone(&location), ttl: WAITING_TTL });
        // After the entry is there: the answer takes its place.
        if is_asked && !self.questions.push(subject) {
            self.source_stats.count_dropped();
        }
        location
    }

    /// What sources are asked about in the place of an address.
    fn subject(&self, client: ClientIp) -> ClientIp {
        if !self.settings.networks_only {
            return client;
        }
        ClientIp::new(match client.ip() {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80))),
        })
    }

    /// All unknown locations are one allocation, because a scan from addresses that nobody knows would
    /// otherwise fill the cache with copies of nothing.
    fn shared(&self, location: Location) -> Arc<Location> {
        if location.is_unknown() { Arc::clone(&self.unknown) } else { Arc::new(location) }
    }
}

fn describe(database: &Database, rejected: Option<&Rejected>) -> DatabaseStatus {
    DatabaseStatus {
        path: Path::to_owned(database.path()),
        kind: database.kind().to_owned(),
        built: database.built(),
        nodes: database.nodes(),
        ip_version: database.ip_version(),
        bytes: database.bytes(),
        rejected: rejected.map(|bad| bad.says.clone()),
    }
}

/// Opens a file as a gateway would, and says what is in it.
///
/// # Errors
/// Why it cannot be used.
pub fn inspect(path: &Path) -> Result<DatabaseStatus, GeoError> {
    Database::open(path).map(|database| describe(&database, None))
}

/// Whether an address may be named to a source: one that is in use in the public Internet. Private and
/// reserved ones tell a third party about the operator's own network, and nobody knows where they are.
pub fn is_public(ip: IpAddr) -> bool {
    if is_local(ip) {
        return false;
    }
    match ip {
        IpAddr::V4(v4) => match v4.octets() {
            // RFC 6890: protocol assignments and documentation; RFC 2544: benchmarks.
            [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18 | 19, ..] => false,
            _ => true,
        },
        IpAddr::V6(v6) => match v6.segments() {
            // RFC 3849 and RFC 9637: documentation; RFC 5180: benchmarks; RFC 4843, RFC 7343: no addresses.
            [0x2001, 0xdb8, ..] | [0x2001, 2, 0, ..] | [0x2001, 0x10..=0x2f, ..] => false,
            [0x3fff, second, ..] if second < 0x1000 => false,
            // RFC 4291: what is in use as global unicast.
            [first, ..] => first & 0xe000 == 0x2000,
        },
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
    fn only_addresses_that_are_in_use_are_named_to_anybody() {
        for text in [
            "10.0.0.1",
            "127.0.0.1",
            "100.64.0.1",
            "192.0.2.1",
            "192.0.0.8",
            "198.51.100.9",
            "203.0.113.9",
            "198.19.0.1",
            "240.0.0.1",
            "2001:db8::1",
            "2001:2::1",
            "2001:20::1",
            "3fff:fff::1",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "100::1",
            "4000::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "192.0.1.1", "198.17.0.1", "198.51.101.1", "2001:4860:4860::8888", "2a00::1"]
        {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn where_addresses_are_to_stay_unknown_sources_are_asked_about_networks() {
        let settings = Settings { networks_only: true, ..Settings::default() };
        let geo = Geo::open(&settings).unwrap();
        for (ip, network) in [("8.8.4.7", "8.8.4.0"), ("2a00:1:2:3::9", "2a00:1:2::")] {
            assert_eq!(geo.inner.subject(ip.parse().unwrap()).to_string(), network);
        }
    }

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
