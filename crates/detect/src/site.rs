//! What a site is like in ordinary times: which paths it owns, how busy it is at which hour, how many errors are
//! normal, where people log in. Owns learning it from requests; must not judge clients.

mod baseline;
mod paths;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis_model::UnixMs;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::observation::{Answer, is_client_error};
use crate::path::{is_asset, is_routine, normalise, sends_login};
use crate::{Observation, Settings};

pub use baseline::{Expected, HourTotals, MAX_HOURS};
pub use paths::{DAYS_TO_OWN, MAX_PATHS, NETWORKS_TO_OWN, OwnedPath};

use paths::Paths;

/// Clients of one hour that can teach; the others of that hour are passed over.
const MAX_PENDING_CLIENTS: usize = 20_000;
/// Distinct paths that one client can teach in one hour.
const MAX_PENDING_PATHS: usize = 32;
/// Hosts of which it is known whether they answer everything.
const MAX_HOSTS: usize = 256;
/// Names that no site publishes, each seen on a host: from this many on that were answered 2xx, and more than were
/// not, the host answers 2xx to whatever it is asked for.
const SOFT_PROBES: usize = 5;
/// Such names that are kept apart for each host and answer.
const MAX_PROBES: usize = 16;
/// After so many days what a host was seen to answer to such names is learned anew.
const PROBES_LAST_DAYS: i64 = 30;
/// Paths where logins were seen.
const MAX_LOGIN_PATHS: usize = 32;
/// The longest path that is kept by name, in characters.
const NAME_CHARS: usize = 120;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const FORMAT: u32 = 1;

/// Why stored knowledge of a site cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored knowledge of the site cannot be used ({0}); it is learned anew")]
pub struct SiteError(String);

/// What is known of a site; about 2 MB at most.
///
/// Learning: [`Site::observe`] for each request, and at the end of each hour [`Site::settle`] with who of that hour
/// was flagged: these teach nothing. A path is the site's own when it was served to clients of
/// [`NETWORKS_TO_OWN`] networks (a verified user counts for all of them) on [`DAYS_TO_OWN`] days. A host that
/// answers 2xx to names that no site publishes owns nothing: there, being served proves nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Site {
    format: u32,
    /// Keys the hashes of paths and networks, so that nobody can make a path that is taken for another one.
    seed: (u64, u64),
    since: Option<UnixMs>,
    /// Requests before this time have taught already.
    learned_until: UnixMs,
    paths: Paths,
    hosts: BTreeMap<u64, Host>,
    hours: baseline::Hours,
    logins: BTreeMap<Box<str>, LoginPath>,
    #[serde(skip)]
    pending: HashMap<IpAddr, Pending>,
    /// Whether there is anything in `pending` and `current`.
    #[serde(skip)]
    has_seen: bool,
    #[serde(skip)]
    current: HourTotals,
    /// Changes of what is owned, and hosts that answer everything, at the end of the last hour.
    #[serde(skip)]
    told: (u64, usize),
}

/// An hour with far more requests than usual.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spike {
    /// When the hour began.
    pub at: UnixMs,
    pub requests: u64,
    pub expected: Expected,
}

/// What a host answered to names that no site publishes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Host {
    name: Box<str>,
    since_day: i64,
    /// Short hashes of such names, by answer.
    served: Vec<u32>,
    missing: Vec<u32>,
}

impl Host {
    fn new(seen: &Observation<'_>) -> Self {
        Self {
            name: host_name(seen.host)
                .to_ascii_lowercase()
                .chars()
                .take(NAME_CHARS)
                .collect::<String>()
                .into(),
            since_day: seen.time.0.div_euclid(DAY_MS),
            ..Self::default()
        }
    }

    fn answers_everything(&self) -> bool {
        self.served.len() >= SOFT_PROBES && self.served.len() > self.missing.len()
    }
}

/// A path where logins were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginPath {
    /// Logins that were sent there.
    pub attempts: u64,
    /// Of these, the ones that the site refused.
    pub refused: u64,
    pub last: UnixMs,
}

/// What one client of the hour may teach, if nothing is said against it.
#[derive(Clone, Debug, Default)]
struct Pending {
    is_user: bool,
    totals: HourTotals,
    paths: Vec<u64>,
}

impl Default for Site {
    fn default() -> Self {
        Self::new((0, 0))
    }
}

impl Site {
    /// Knows nothing. `seed` keys its hashes; the same seed and the same requests give the same knowledge.
    pub fn new(seed: (u64, u64)) -> Self {
        Self {
            format: FORMAT,
            seed,
            since: None,
            learned_until: UnixMs(i64::MIN),
            paths: Paths::default(),
            hosts: BTreeMap::new(),
            hours: baseline::Hours::default(),
            logins: BTreeMap::new(),
            pending: HashMap::new(),
            has_seen: false,
            current: HourTotals::default(),
            told: (0, 0),
        }
    }

    /// Reads what [`Site::to_bytes`] wrote.
    ///
    /// # Errors
    /// The bytes are something else, or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SiteError> {
        let mut site: Self = serde_json::from_slice(bytes).map_err(|error| SiteError(error.to_string()))?;
        if site.format != FORMAT {
            return Err(SiteError(format!("format {}, expected {FORMAT}", site.format)));
        }
        site.paths.shrink();
        Ok(site)
    }

    /// The form in which it is stored. What was observed since the last [`Site::settle`] is not in it.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Numbers, strings and maps of them always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The key of a path for [`Site::owns`]: of the host in lower case without its port, and of the normalised
    /// path; a final slash makes no difference.
    pub fn path_hash(&self, host: &str, normal: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.seed.0, self.seed.1);
        for byte in host_name(host).bytes() {
            hasher.write_u8(byte.to_ascii_lowercase());
        }
        hasher.write_u8(0);
        hasher.write(without_slash(normal).as_bytes());
        hasher.finish()
    }

    /// Whether the site owns the path with this [`Site::path_hash`].
    pub fn owns(&self, path_hash: u64) -> bool {
        let path = self.paths.owned(path_hash);
        path.is_some_and(|path| self.hosts.get(&path.host).is_none_or(|host| !host.answers_everything()))
    }

    /// [`Site::owns`] for the path as it was sent.
    pub fn owns_path(&self, host: &str, path: &str) -> bool {
        self.owns(self.path_hash(host, &normalise(path)))
    }

    /// Takes one request. One from before [`Site::learned_until`] has taught already and is passed over; all others
    /// since the last [`Site::settle`] count as one hour's.
    pub fn observe(&mut self, settings: &Settings, seen: &Observation<'_>) {
        if seen.time < self.learned_until {
            return;
        }
        self.since = Some(self.since.map_or(seen.time, |since| since.min(seen.time)));
        self.has_seen = true;
        let answer = Answer::of(seen.verdict, seen.status);
        if answer == Answer::Refused {
            return;
        }
        let normal = normalise(seen.path);
        let is_asset = is_asset(&normal);
        let is_quiet = is_asset || is_routine(&normal);
        let totals = HourTotals {
            requests: 1,
            assets: u64::from(is_asset),
            judged: u64::from(!is_quiet),
            errors: u64::from(!is_quiet && answer == Answer::ClientError && is_client_error(seen.status)),
        };
        self.current.requests += 1;
        self.note_login(settings, seen, &normal, answer);
        if is_hidden(&normal) {
            self.note_probe(seen, &normal, answer);
        }
        let hash = (answer == Answer::Served && !is_quiet).then(|| self.path_hash(seen.host, &normal));
        if let Some(hash) = hash {
            self.paths.give_name(hash, || name(seen.host, &normal));
        }
        let key = seen.client.limit_key();
        if self.pending.len() >= MAX_PENDING_CLIENTS && !self.pending.contains_key(&key) {
            return;
        }
        let pending = self.pending.entry(key).or_default();
        pending.is_user |= !seen.user.is_empty();
        pending.totals.add(&totals);
        if let Some(hash) = hash
            && pending.paths.len() < MAX_PENDING_PATHS
            && !pending.paths.contains(&hash)
        {
            let host = host_hash(self.seed, seen.host);
            pending.paths.push(hash);
            self.paths.meet(hash, host);
            if self.hosts.len() < MAX_HOSTS {
                self.hosts.entry(host).or_insert_with(|| Host::new(seen));
            }
        }
    }

    /// Ends the hour before `until`: what its clients did is learned, unless `is_flagged` says that one of them (by
    /// [`portcullis_model::ClientIp::limit_key`]) attacks. Requests before `until` are passed over from now on.
    /// Returns whether other paths may be owned than before.
    pub fn settle(&mut self, until: UnixMs, is_flagged: impl Fn(IpAddr) -> bool) -> bool {
        self.learned_until = self.learned_until.max(until);
        if !std::mem::take(&mut self.has_seen) {
            return false;
        }
        let hour = until.0.saturating_sub(1).div_euclid(HOUR_MS);
        let day = hour.div_euclid(24);
        let mut totals = std::mem::take(&mut self.current);
        let mut clients: Vec<(IpAddr, Pending)> = std::mem::take(&mut self.pending).into_iter().collect();
        // In an order of its own, since there may be no room for all that they teach.
        clients.sort_unstable_by_key(|(key, _)| *key);
        for (key, client) in clients.into_iter().filter(|(key, _)| !is_flagged(*key)) {
            totals.assets += client.totals.assets;
            totals.judged += client.totals.judged;
            totals.errors += client.totals.errors;
            let network = self.network_hash(key);
            for hash in client.paths {
                self.paths.serve(hash, network, client.is_user, day);
            }
        }
        self.hours.add(hour, totals);
        self.paths.forget_old(day);
        let soft = self.soft_hosts().count();
        let now = (self.paths.changes(), soft);
        std::mem::replace(&mut self.told, now) != now
    }

    /// Requests before this time have been learned from.
    pub fn learned_until(&self) -> UnixMs {
        self.learned_until
    }

    /// When the first request came that it learned from.
    pub fn since(&self) -> Option<UnixMs> {
        self.since
    }

    /// Hours in which there were requests, of the last [`MAX_HOURS`].
    pub fn hours(&self) -> impl Iterator<Item = (UnixMs, &HourTotals)> {
        self.hours.iter().map(|(hour, totals)| (UnixMs(hour * HOUR_MS), totals))
    }

    /// How many requests are usual in the hour that holds this time; `None`: too little is known.
    pub fn expected(&self, at: UnixMs) -> Option<Expected> {
        self.hours.expected(at.0.div_euclid(HOUR_MS))
    }

    /// Hours with far more requests than was usual until then, the oldest first.
    pub fn spikes(&self) -> Vec<Spike> {
        let hours = self.hours.iter().filter_map(|(hour, totals)| {
            let expected = self.hours.expected(hour).filter(|usual| usual.is_far_below(totals.requests))?;
            Some(Spike { at: UnixMs(hour * HOUR_MS), requests: totals.requests, expected })
        });
        hours.collect()
    }

    /// The share of errors among the answers to clients that nothing is said against, without missing assets and
    /// icons; `None` before there were any.
    pub fn error_share(&self) -> Option<f64> {
        let all = self.hours.sum();
        (all.judged > 0).then(|| all.errors as f64 / all.judged as f64)
    }

    /// The share of assets among the requests of clients that nothing is said against.
    pub fn asset_share(&self) -> Option<f64> {
        let all = self.hours.sum();
        let requests = all.judged + all.assets;
        (requests > 0).then(|| all.assets as f64 / requests as f64)
    }

    /// How many paths the site owns, and how many more were served to somebody.
    pub fn path_counts(&self) -> (usize, usize) {
        self.paths.counts()
    }

    /// The paths of the site that are known by name, the most served first. Of hosts that answer everything too.
    pub fn named_paths(&self) -> Vec<&OwnedPath> {
        self.paths.named()
    }

    /// Hosts that answer 2xx to whatever they are asked for.
    pub fn soft_hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.values().filter(|host| host.answers_everything()).map(|host| &*host.name)
    }

    /// Where logins were seen.
    pub fn logins(&self) -> impl Iterator<Item = (&str, &LoginPath)> {
        self.logins.iter().map(|(path, login)| (&**path, login))
    }

    /// Forgets a path, given as `/path` (on every host) or `host/path`; how many it was.
    pub fn forget(&mut self, path: &str) -> usize {
        let (host, path) = match path.find('/') {
            Some(0) | None => (None, path),
            Some(at) => (Some(&path[..at]), &path[at..]),
        };
        let normal = normalise(path).into_owned();
        let named = self.named_paths().into_iter().filter_map(|known| known.name.split_once('/'));
        let mut hosts: Vec<String> = named.map(|(host, _)| host.to_owned()).collect();
        hosts.extend(self.hosts.values().map(|host| host.name.to_string()));
        hosts.push(String::new());
        hosts.sort_unstable();
        hosts.dedup();
        match host {
            Some(host) => usize::from(self.paths.remove(self.path_hash(host, &normal))),
            None => {
                let hashes: Vec<u64> = hosts.iter().map(|host| self.path_hash(host, &normal)).collect();
                hashes.into_iter().filter(|hash| self.paths.remove(*hash)).count()
            }
        }
    }

    fn note_login(&mut self, settings: &Settings, seen: &Observation<'_>, normal: &str, answer: Answer) {
        let is_login = seen.login.is_some() || sends_login(settings, seen.method, normal);
        // Where nothing is, nobody logs in.
        let is_there = matches!(answer, Answer::Served | Answer::Redirected)
            || matches!(seen.status, 401 | 403 | 422 | 429);
        if !is_login || !is_there {
            return;
        }
        let path = name(seen.host, normal);
        if !self.logins.contains_key(&path) && self.logins.len() >= MAX_LOGIN_PATHS {
            let least = self.logins.iter().min_by_key(|(_, login)| login.attempts);
            if let Some(least) = least.map(|(path, _)| path.clone()) {
                self.logins.remove(&least);
            }
        }
        let login = self.logins.entry(path).or_default();
        login.attempts += 1;
        let is_refused =
            answer == Answer::ClientError || seen.login == Some(portcullis_model::LoginOutcome::Failed);
        login.refused += u64::from(is_refused);
        login.last = login.last.max(seen.time);
    }

    fn note_probe(&mut self, seen: &Observation<'_>, normal: &str, answer: Answer) {
        let hash = host_hash(self.seed, seen.host);
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&hash) {
            return;
        }
        let day = seen.time.0.div_euclid(DAY_MS);
        let host = self.hosts.entry(hash).or_insert_with(|| Host::new(seen));
        if day - host.since_day > PROBES_LAST_DAYS {
            *host = Host::new(seen);
        }
        let seen_so = match answer {
            Answer::Served => &mut host.served,
            Answer::ClientError => &mut host.missing,
            // Says nothing of what is there.
            Answer::Redirected | Answer::Failed | Answer::Refused => return,
        };
        let short = short_hash(self.seed, normal.as_bytes());
        if seen_so.len() < MAX_PROBES && !seen_so.contains(&short) {
            seen_so.push(short);
        }
    }

    /// The network that one visitor commonly has: of public IPv4 addresses the /24, of IPv6 the /48; behind one
    /// private network there are many people.
    fn network_hash(&self, key: IpAddr) -> u32 {
        let network = match key {
            IpAddr::V4(v4) if v4.is_private() || v4.is_loopback() => key,
            IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & 0xFFFF_FF00).into(),
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_loopback() => key,
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 80 << 80).into(),
        };
        match network {
            IpAddr::V4(v4) => short_hash(self.seed, &v4.octets()),
            IpAddr::V6(v6) => short_hash(self.seed, &v6.octets()),
        }
    }
}

/// Names that people hide or forget and no site publishes: hidden files, backups, dumps.
fn is_hidden(normal: &str) -> bool {
    const ENDINGS: [&str; 9] = [".bak", ".old", ".orig", ".save", ".swp", ".sql", ".env", ".ini", "~"];
    if normal.starts_with("/.well-known") {
        return false;
    }
    normal.contains("/.") || ENDINGS.iter().any(|ending| normal.ends_with(ending))
}

fn without_slash(normal: &str) -> &str {
    match normal.trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

/// The host without its port.
fn host_name(host: &str) -> &str {
    let end = match host.starts_with('[') {
        true => host.find(']').map(|at| at + 1),
        false => host.find(':'),
    };
    end.map_or(host, |end| &host[..end])
}

fn name(host: &str, normal: &str) -> Box<str> {
    let host = host_name(host).to_ascii_lowercase();
    let path = without_slash(normal);
    host.chars().chain(path.chars()).take(NAME_CHARS).collect::<String>().into()
}

fn host_hash(seed: (u64, u64), host: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed.0, seed.1);
    for byte in host_name(host).bytes() {
        hasher.write_u8(byte.to_ascii_lowercase());
    }
    hasher.finish()
}

fn short_hash(seed: (u64, u64), bytes: &[u8]) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(seed.0, seed.1);
    hasher.write(bytes);
    (hasher.finish() >> 32) as u32
}

#[cfg(test)]
mod tests;
