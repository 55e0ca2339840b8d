//! Fetches the feeds that are due, and puts what is good in the place of the last copy. Whatever goes wrong
//! leaves the copy as it is, and is said once: when it begins, and when it is over.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use portcullis_config::{Config, Feed, FeedSource, FileStamp};
use portcullis_fetch::{Fetcher, Request, Settings, masked};
use portcullis_lists::{Format, Limits, Screen, Summary, read};
use portcullis_model::UnixMs;
use portcullis_notify::{Digest, Event};
use portcullis_store::State;

use crate::alerts;
use crate::machine::own_addresses;
use crate::sentence::sentence;

use super::files::{FOLDER, Files, Status, remove_others};

/// The name of the task.
pub(crate) const TASK_NAME: &str = "feeds";

/// The wait after a first failure; it doubles with each further one, up to the feed's interval.
const FIRST_RETRY: Duration = Duration::from_secs(300);
/// Characters of an error that is kept.
const MAX_ERROR: usize = 500;
const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// What became of one feed.
pub(crate) struct Updated {
    pub(crate) name: String,
    pub(crate) outcome: Result<Change, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    New {
        entries: u64,
    },
    /// What is published is what is there.
    Same,
}

/// When a feed is fetched next.
pub(crate) fn next_due(feed: &Feed, status: &Status) -> UnixMs {
    let Some(checked) = status.checked_at else { return UnixMs(0) };
    let wait = match status.failing {
        0 => feed.interval,
        failures => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(feed.interval),
    };
    checked.plus(wait)
}

/// Fetches the feeds that are due at `now`, or all of `only`, due or not.
///
/// # Errors
/// The data folder or the state database cannot be used; a feed that fails is no error.
pub(crate) fn update(
    config: &Config,
    only: Option<&str>,
    now: UnixMs,
    is_stopping: &dyn Fn() -> bool,
) -> anyhow::Result<Vec<Updated>> {
    let feeds = Shelf { folder: FOLDER, what: "feed", lists: config.feeds.iter().collect() };
    update_shelf(config, &feeds, only, now, is_stopping)
}

/// Lists that lie in one folder of the data folder, and nothing besides.
pub(crate) struct Shelf<'a> {
    pub(crate) folder: &'static str,
    /// What one of them is called.
    pub(crate) what: &'static str,
    pub(crate) lists: Vec<&'a Feed>,
}

/// Does for any lists what [`update`] does for feeds.
///
/// # Errors
/// The data folder or the state database cannot be used; a list that fails is no error.
pub(crate) fn update_shelf(
    config: &Config,
    shelf: &Shelf<'_>,
    only: Option<&str>,
    now: UnixMs,
    is_stopping: &dyn Fn() -> bool,
) -> anyhow::Result<Vec<Updated>> {
    remove_others(&config.data, shelf.folder, &shelf.lists);
    let mut updated = Vec::new();
    let mut shared = None;
    for &feed in &shelf.lists {
        let files = Files::in_folder(&config.data, shelf.folder, feed);
        let mut status = files.status().unwrap_or_default();
        // A clock that was put back must not keep a feed from being fetched.
        let is_due = now >= next_due(feed, &status) || status.checked_at.is_some_and(|at| at > now);
        if !only.map_or(is_due, |only| only == &*feed.name) {
            continue;
        }
        if is_stopping() {
            break;
        }
        let shared = match &mut shared {
            Some(shared) => shared,
            empty => empty.insert(Shared::new(config)?),
        };
        let outcome = shared.fetch(feed, &files, &mut status, now);
        let outcome = outcome.map_err(|error| sentence(&error).chars().take(MAX_ERROR).collect::<String>());
        if let (Err(error), 0) = (&outcome, status.failing) {
            alert(config, feed, error, now);
        }
        note(shelf.what, feed, &mut status, &outcome, now);
        files.write_status(&status)?;
        updated.push(Updated { name: feed.name.to_string(), outcome });
    }
    Ok(updated)
}

/// What was done in a sentence; as an error when a feed failed, whatever came of the others.
pub(crate) fn judge(updated: &[Updated]) -> Result<String, String> {
    if updated.is_empty() {
        return Ok("nothing was due".to_owned());
    }
    // What failed first: the record of a run is cut.
    let mut words: Vec<(bool, String)> = updated
        .iter()
        .map(|Updated { name, outcome }| match outcome {
            Ok(Change::New { entries }) => (true, format!("{name}: {entries} networks")),
            Ok(Change::Same) => (true, format!("{name}: unchanged")),
            Err(error) => (false, format!("{name} failed, its last copy stays: {error}")),
        })
        .collect();
    words.sort_by_key(|(is_good, _)| *is_good);
    let is_good = words.iter().all(|(is_good, _)| *is_good);
    let words = words.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join("; ");
    if is_good { Ok(words) } else { Err(words) }
}

/// Tells people, once for as long as the feed fails.
fn alert(config: &Config, feed: &Feed, error: &str, now: UnixMs) {
    let event = Event::FeedFailure { feed: feed.name.to_string(), problem: error.to_owned() };
    if !config.alerts.wants(event.kind()) {
        return;
    }
    let stored = State::open_existing(&config.data)
        .and_then(|mut state| alerts::store(&mut state, config, &Digest::of(&event, now)));
    if let Err(error) = stored {
        tracing::warn!("nobody is told that feed {:?} fails: {error}", feed.name);
    }
}

/// Keeps what came of a try, and says it when it is news.
fn note(what: &str, feed: &Feed, status: &mut Status, outcome: &Result<Change, String>, now: UnixMs) {
    status.checked_at = Some(now);
    match outcome {
        Ok(change) => {
            if status.failing > 0 {
                tracing::info!("{what} {:?} can be fetched again", feed.name);
            }
            if let Change::New { entries } = change {
                tracing::info!("{what} {:?}: {entries} networks", feed.name);
            }
            status.fetched_at = Some(now);
            (status.failing, status.failing_since, status.error) = (0, None, None);
        }
        Err(error) => {
            if status.error.as_ref() != Some(error) {
                let copy = match status.fetched_at {
                    Some(_) => "the last good copy stays in force",
                    None => "there is no copy of it yet",
                };
                tracing::warn!("{what} {:?} was not updated, {copy}: {error}", feed.name);
            }
            status.failing = status.failing.saturating_add(1);
            status.failing_since.get_or_insert(now);
            status.failures = status.failures.saturating_add(1);
            status.error = Some(error.clone());
        }
    }
}

/// What all feeds of one run are fetched with.
struct Shared {
    fetcher: Fetcher,
    screen: Screen,
}

/// A list as it was published.
struct Published {
    bytes: Vec<u8>,
    etag: Option<String>,
    last_modified: Option<String>,
    stamp: Option<String>,
}

impl Shared {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let timeout = Duration::from_secs(60);
        let fetcher = Fetcher::new(Settings { timeout, user_agent: USER_AGENT.to_owned(), ca: None })?;
        let allows = State::open_existing(&config.data)?.allows()?;
        let proxies = config.server.trusted_proxies.iter().copied();
        let screen = Screen::new(own_addresses(), proxies, allows.into_iter().map(|allow| allow.network));
        Ok(Self { fetcher, screen })
    }

    fn fetch(&self, feed: &Feed, files: &Files, status: &mut Status, now: UnixMs) -> anyhow::Result<Change> {
        // Without a copy it does not help to hear that nothing has changed.
        let known = if files.list.exists() { Some(&*status) } else { None };
        let published = match &feed.source {
            FeedSource::Url(url) => self.download(feed, url.expose(), known)?,
            FeedSource::File(path) => read_file(feed, path, known)?,
        };
        let Some(published) = published else { return Ok(Change::Same) };
        let limits = Limits { max_entries: feed.max_entries, max_bad: feed.max_bad };
        let format = feed.format.unwrap_or_else(|| Format::detect(&published.bytes));
        let mut networks = Vec::new();
        let mut refused = 0;
        let summary = read(format, &published.bytes, limits, &mut |entry| {
            if self.screen.refuses(&entry.network).is_some() {
                refused += 1;
            } else if entry.expires.is_none_or(|end| end > now) {
                networks.push(entry.network);
            }
        });
        let Summary { bad, shown, .. } =
            summary.with_context(|| format!("the list, read as {format}, is not used"))?;
        networks.sort_unstable();
        networks.dedup();
        if networks.is_empty() {
            bail!("none of its {refused} networks may be blocked by a list");
        }
        files.write_list(&networks)?;
        let entries = networks.len() as u64;
        (status.entries, status.refused, status.bad) = (entries, refused, bad);
        status.format = format.to_string();
        status.show_bad(&shown);
        (status.etag, status.last_modified, status.stamp) =
            (published.etag, published.last_modified, published.stamp);
        Ok(Change::New { entries })
    }

    /// `None`: what is published is what is known.
    fn download(&self, feed: &Feed, url: &str, known: Option<&Status>) -> anyhow::Result<Option<Published>> {
        let mut request = Request::get(url, feed.max_bytes);
        request.timeout = Some(feed.timeout);
        if let Some(status) = known {
            for (name, value) in
                [("If-None-Match", &status.etag), ("If-Modified-Since", &status.last_modified)]
            {
                if let Some(value) = value {
                    request = request.header(name, value.as_str());
                }
            }
        }
        let response = self.fetcher.send(&request)?;
        if response.status == 304 && known.is_some() {
            return Ok(None);
        }
        if !response.is_success() {
            bail!("{} answered with {}", masked(url), response.status);
        }
        let header = |name| response.header(name).map(str::to_owned);
        let (etag, last_modified) = (header("etag"), header("last-modified"));
        Ok(Some(Published { bytes: response.body, etag, last_modified, stamp: None }))
    }
}

fn read_file(
    feed: &Feed,
    path: &std::path::Path,
    known: Option<&Status>,
) -> anyhow::Result<Option<Published>> {
    let stamp = FileStamp::of(path).map(|stamp| format!("{stamp:?}"));
    if stamp.is_some() && known.is_some_and(|status| status.stamp == stamp) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(feed.max_bytes + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > feed.max_bytes {
        bail!("{} is larger than the {} bytes of max_size", path.display(), feed.max_bytes);
    }
    Ok(Some(Published { bytes, etag: None, last_modified: None, stamp }))
}

/// The networks of a list that may be in force, whatever was true when it was fetched.
pub(super) fn screen(config: &Config) -> Screen {
    // Allows are asked before feeds, so they need not be taken out.
    Screen::new(own_addresses(), config.server.trusted_proxies.iter().copied(), std::iter::empty::<IpNet>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_a_feed_that_failed_is_a_failure_that_names_it_first() {
        let updated = |name: &str, outcome| Updated { name: name.to_owned(), outcome };
        assert_eq!(judge(&[]), Ok("nothing was due".to_owned()));
        let mut all = vec![updated("drop", Ok(Change::New { entries: 3 })), updated("tor", Ok(Change::Same))];
        assert_eq!(judge(&all), Ok("drop: 3 networks; tor: unchanged".to_owned()));
        all.push(updated("ours", Err("answered with 503".to_owned())));
        assert_eq!(
            judge(&all).unwrap_err(),
            "ours failed, its last copy stays: answered with 503; drop: 3 networks; tor: unchanged"
        );
    }
}
