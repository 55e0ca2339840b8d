//! The published keys of an issuer, from a file that may change or from a URL. What was good last stays until
//! something better is there, also across a restart. Fetching has a thread of its own for as long as it takes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use portcullis_config::{Config, FileStamp, KeySetSettings, KeySetSource};
use portcullis_fetch::{Fetcher, Request, Settings, masked};
use portcullis_identity::{KeySet, MAX_JWKS_BYTES, Verifier};
use portcullis_model::UnixMs;
use portcullis_proxy::Edge;
use serde::{Deserialize, Serialize};

use super::files;

/// The last good key set of a URL.
const CACHE_FILE: &str = "jwks.json";
/// What JSON makes of a key set within a document, at most.
const MAX_CACHE_BYTES: u64 = 8 * MAX_JWKS_BYTES;
/// The issuer is not asked more often, whatever tokens say and however it fails.
const MIN_PAUSE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);

/// How it stands with the key set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeySetState {
    /// The file, or the URL without what may be secret.
    pub(crate) source: String,
    pub(crate) keys: usize,
    /// When the keys that are in use were read or fetched.
    pub(crate) read_at: Option<i64>,
    /// Why the last try failed; `None`: it did not.
    pub(crate) problem: Option<String>,
    /// Since the start.
    pub(crate) refreshed: u64,
    /// Since the start.
    pub(crate) failed: u64,
}

/// Shared with whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct KeySetStats(Mutex<KeySetState>);

impl KeySetStats {
    pub(crate) fn get(&self) -> KeySetState {
        self.0.lock().clone()
    }

    fn begin(&self, source: String) {
        let mut state = self.0.lock();
        if state.source != source {
            *state = KeySetState {
                source,
                refreshed: state.refreshed,
                failed: state.failed,
                ..KeySetState::default()
            };
        }
    }

    fn good(&self, keys: usize, at: UnixMs) {
        let mut state = self.0.lock();
        (state.keys, state.read_at, state.problem) = (keys, Some(at.0), None);
        state.refreshed += 1;
    }

    /// Returns whether it is another problem than before.
    fn bad(&self, problem: String) -> bool {
        let mut state = self.0.lock();
        state.failed += 1;
        let is_new = state.problem.as_ref() != Some(&problem);
        state.problem = Some(problem);
        is_new
    }
}

/// What is kept on disk.
#[derive(Serialize, Deserialize)]
struct Cached {
    url: String,
    fetched_at: i64,
    /// As the issuer sent it.
    body: String,
}

/// Puts in force what is there at the start.
pub(super) fn open(edge: &Edge, config: &Config, stats: &KeySetStats, now: UnixMs) {
    let (Some(settings), Some(verifier)) = (settings(config), edge.verifier()) else { return };
    stats.begin(name(&settings.source));
    match &settings.source {
        KeySetSource::File(path) => read_file(path, &verifier, stats, now),
        KeySetSource::Url(url) => {
            if let Some((keys, fetched_at)) = cached(&config.data, url) {
                stats.good(keys.keys().len(), fetched_at);
                verifier.publish(keys);
            }
        }
    }
}

fn settings(config: &Config) -> Option<&KeySetSettings> {
    config.identity.tokens.as_ref()?.key_set.as_ref()
}

fn name(source: &KeySetSource) -> String {
    match source {
        KeySetSource::File(path) => path.display().to_string(),
        KeySetSource::Url(url) => masked(url),
    }
}

fn read_file(path: &Path, verifier: &Verifier, stats: &KeySetStats, now: UnixMs) {
    let read = || -> anyhow::Result<KeySet> {
        let text = files::read(path, MAX_JWKS_BYTES)?.context("there is no such file")?;
        Ok(KeySet::parse(&text)?)
    };
    take_over(read(), &path.display().to_string(), verifier, stats, now);
}

fn cached(data: &Path, url: &str) -> Option<(KeySet, UnixMs)> {
    let text = files::read(&data.join(CACHE_FILE), MAX_CACHE_BYTES).ok()??;
    let cached: Cached = serde_json::from_slice(&text).ok()?;
    let keys = KeySet::parse(cached.body.as_bytes()).ok()?;
    (cached.url == url).then_some((keys, UnixMs(cached.fetched_at)))
}

fn take_over(
    keys: anyhow::Result<KeySet>,
    source: &str,
    verifier: &Verifier,
    stats: &KeySetStats,
    now: UnixMs,
) {
    match keys {
        Ok(keys) => {
            stats.good(keys.keys().len(), now);
            verifier.publish(keys);
        }
        Err(why) => {
            let why = format!("{why:#}");
            if stats.bad(why.clone()) {
                tracing::warn!("the keys of {source} stay as they were: {why}");
            }
        }
    }
}

/// Looks after one source at a time, the one of the configuration.
pub(super) struct KeySets {
    stats: Arc<KeySetStats>,
    watched: Option<Watched>,
    fetching: Option<Fetching>,
}

/// A file, in the state in which it was read.
struct Watched {
    path: PathBuf,
    stamp: Option<FileStamp>,
}

/// A URL that is fetched now and then.
struct Fetching {
    settings: KeySetSettings,
    tried_at: Option<UnixMs>,
    /// Held by the thread that fetches, which leaves here what came of it. Whoever ticks puts it in force: only that
    /// one knows what the configuration asks for by then.
    result: Slot,
}

type Slot = Arc<Mutex<Option<anyhow::Result<Fetched>>>>;

struct Fetched {
    keys: KeySet,
    /// As the issuer sent it.
    body: String,
    at: UnixMs,
}

impl KeySets {
    pub(super) fn new(stats: Arc<KeySetStats>) -> Self {
        Self { stats, watched: None, fetching: None }
    }

    pub(super) fn tick(&mut self, edge: &Edge, config: &Config, now: UnixMs) {
        let (Some(settings), Some(verifier)) = (settings(config), edge.verifier()) else {
            (self.watched, self.fetching) = (None, None);
            return;
        };
        match &settings.source {
            KeySetSource::File(path) => {
                self.fetching = None;
                self.watch(path, &verifier, now);
            }
            KeySetSource::Url(url) => {
                self.watched = None;
                self.fetch_when_due(settings, url, &verifier, &config.data, now);
            }
        }
    }

    fn watch(&mut self, path: &Path, verifier: &Verifier, now: UnixMs) {
        let stamp = FileStamp::of(path);
        let is_seen = |watched: &Watched| watched.path == path && watched.stamp == stamp;
        // A new verifier, after a reload, has to be given the keys too.
        if self.watched.as_ref().is_some_and(is_seen) && !verifier.published().keys().is_empty() {
            return;
        }
        self.stats.begin(path.display().to_string());
        self.watched = Some(Watched { path: path.to_owned(), stamp });
        read_file(path, verifier, &self.stats, now);
    }

    fn fetch_when_due(
        &mut self,
        settings: &KeySetSettings,
        url: &str,
        verifier: &Arc<Verifier>,
        data: &Path,
        now: UnixMs,
    ) {
        if self.fetching.as_ref().is_none_or(|fetching| fetching.settings != *settings) {
            self.stats.begin(masked(url));
            self.fetching =
                Some(Fetching { settings: settings.clone(), tried_at: None, result: Slot::default() });
        }
        let Some(fetching) = &mut self.fetching else { return };
        if Arc::strong_count(&fetching.result) > 1 {
            return;
        }
        if let Some(fetched) = fetching.result.lock().take() {
            if let Ok(fetched) = &fetched {
                fetched.save(url, data);
            }
            take_over(fetched.map(|fetched| fetched.keys), &masked(url), verifier, &self.stats, now);
        }
        if !fetching.is_due(verifier, &self.stats.get(), now) {
            return;
        }
        fetching.tried_at = Some(now);
        let (settings, url, slot) = (settings.clone(), url.to_owned(), Arc::clone(&fetching.result));
        let work = move || {
            let fetched = fetch(&settings, &url, now);
            *slot.lock() = Some(fetched);
        };
        let started = std::thread::Builder::new().name("portcullis-jwks".to_owned()).spawn(work);
        if let Err(error) = started {
            tracing::warn!("no keys are fetched: {error}");
        }
    }
}

impl Fetching {
    fn is_due(&self, verifier: &Verifier, state: &KeySetState, now: UnixMs) -> bool {
        let Some(tried_at) = self.tried_at else { return true };
        if now.since(tried_at) < MIN_PAUSE {
            return false;
        }
        let is_old = state.read_at.is_none_or(|at| now.since(UnixMs(at)) >= self.settings.refresh);
        // Asked last, since asking takes the wish.
        is_old || verifier.take_wish_for_keys()
    }
}

fn fetch(settings: &KeySetSettings, url: &str, at: UnixMs) -> anyhow::Result<Fetched> {
    let user_agent = format!("portcullis/{}", env!("CARGO_PKG_VERSION"));
    let fetcher = Fetcher::new(Settings { timeout: TIMEOUT, user_agent, ca: settings.ca.clone() })?;
    let response = fetcher.send(&Request::get(url, MAX_JWKS_BYTES).header("Accept", "application/json"))?;
    if !response.is_success() {
        bail!("the issuer answered {}", response.status);
    }
    let keys = KeySet::parse(&response.body)?;
    Ok(Fetched { keys, body: String::from_utf8_lossy(&response.body).into_owned(), at })
}

impl Fetched {
    /// For a restart while the issuer is out of reach.
    fn save(&self, url: &str, data: &Path) {
        let cached = Cached { url: url.to_owned(), fetched_at: self.at.0, body: self.body.clone() };
        let path = data.join(CACHE_FILE);
        let saved = serde_json::to_vec(&cached)
            .map_err(io::Error::from)
            .and_then(|text| files::replace(&path, &text));
        // The keys are good all the same.
        if let Err(error) = saved {
            tracing::warn!(
                "{} cannot be written: {error}; a restart would have to wait for the issuer",
                path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_identity::{ClaimPath, ClaimRules, TokenRules, TokenStats};
    use portcullis_testkit::{Signer, key_set};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_issuer_is_asked_at_its_interval_and_at_an_unknown_key_but_at_most_once_a_minute() {
        let claims = ClaimRules {
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::ZERO,
            user: ClaimPath::new("sub"),
            roles: None,
        };
        let verifier = Verifier::new(TokenRules { keys: Vec::new(), claims }).unwrap();
        let signer = Signer::ed();
        verifier.publish(KeySet::parse(key_set(&[signer.jwk("old")]).as_bytes()).unwrap());
        let settings = KeySetSettings {
            source: KeySetSource::Url("https://issuer.example/".to_owned()),
            ca: None,
            refresh: Duration::from_secs(3_600),
        };
        let at = |seconds: i64| UnixMs(seconds * 1_000);
        let mut fetching = Fetching { settings, tried_at: None, result: Slot::default() };
        let good = KeySetState { read_at: Some(0), ..KeySetState::default() };
        assert!(fetching.is_due(&verifier, &good, at(0)), "at the start");
        fetching.tried_at = Some(at(0));
        let ask_for_another = || {
            let token = signer.token_of_key("new", &json!({ "sub": "a", "exp": 9_000_000_000_i64 }));
            verifier.verify(token.as_bytes(), at(0), &TokenStats::default()).unwrap_err();
        };
        assert!(!fetching.is_due(&verifier, &good, at(3_599)));
        assert!(fetching.is_due(&verifier, &good, at(3_600)));
        ask_for_another();
        assert!(!fetching.is_due(&verifier, &good, at(59)));
        assert!(fetching.is_due(&verifier, &good, at(60)));
        assert!(!fetching.is_due(&verifier, &good, at(60)), "the wish has been heard");
        // Without any keys it is tried each minute.
        let none = KeySetState::default();
        assert!(!fetching.is_due(&verifier, &none, at(59)) && fetching.is_due(&verifier, &none, at(60)));
    }
}
