//! Keeps the lists that are in force in step with the copies on disk, whoever replaces these. Must not fetch.

use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use portcullis_config::{Config, Feed as Configured, FileStamp};
use portcullis_model::UnixMs;
use portcullis_policy::{AddressRanges, Feed, Feeds};

use super::files::{Files, Status};
use super::update::screen;

/// What the metrics show of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FeedState {
    pub(crate) name: Arc<str>,
    /// Networks in force; 0 when none are.
    pub(crate) entries: u64,
    pub(crate) fetched_at: Option<UnixMs>,
    pub(crate) failures: u64,
    pub(crate) is_failing: bool,
}

/// One per gateway.
#[derive(Default)]
pub(crate) struct LiveFeeds(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// With which the lists were screened.
    trusted: Vec<IpNet>,
    feeds: Vec<Loaded>,
}

/// A feed as it was looked at last.
struct Loaded {
    name: Arc<str>,
    files: Files,
    stamps: [Option<FileStamp>; 2],
    status: Status,
    /// How many networks the copy has, and the addresses.
    list: Option<(u64, Arc<AddressRanges>)>,
    in_force: Option<Arc<Feed>>,
}

impl LiveFeeds {
    /// What is in force from now on, if that has changed: a copy was replaced or is too old, or the
    /// configuration is another one.
    pub(crate) fn look(&self, config: &Config, now: UnixMs) -> Option<Feeds> {
        let mut seen = self.0.lock();
        if seen.feeds.is_empty() && config.feeds.is_empty() {
            return None;
        }
        let is_screened_alike = seen.trusted == config.server.trusted_proxies;
        let mut old = std::mem::take(&mut seen.feeds);
        let before: Vec<_> = old.iter().filter_map(|loaded| loaded.in_force.clone()).collect();
        for feed in &config.feeds {
            let files = Files::of(&config.data, feed);
            let known = old.iter().position(|loaded| loaded.files == files).map(|at| old.swap_remove(at));
            let mut loaded = match known.filter(|_| is_screened_alike) {
                Some(loaded) => loaded,
                None => Loaded {
                    name: Arc::clone(&feed.name),
                    files,
                    stamps: [None; 2],
                    status: Status::default(),
                    list: None,
                    in_force: None,
                },
            };
            loaded.refresh(feed, config);
            loaded.put_in_force(feed, now);
            seen.feeds.push(loaded);
        }
        seen.trusted.clone_from(&config.server.trusted_proxies);
        let after: Vec<_> = seen.feeds.iter().filter_map(|loaded| loaded.in_force.clone()).collect();
        let is_same =
            before.len() == after.len() && before.iter().zip(&after).all(|(a, b)| Arc::ptr_eq(a, b));
        (!is_same).then(|| Feeds::new(after))
    }

    /// Of the last look.
    pub(crate) fn states(&self) -> Vec<FeedState> {
        let seen = self.0.lock();
        let states = seen.feeds.iter().map(|loaded| FeedState {
            name: Arc::clone(&loaded.name),
            entries: loaded.in_force.as_ref().and(loaded.list.as_ref()).map_or(0, |(entries, _)| *entries),
            fetched_at: loaded.status.fetched_at,
            failures: loaded.status.failures,
            is_failing: loaded.status.failing > 0,
        });
        states.collect()
    }
}

impl Loaded {
    /// Reads what has changed on disk. A copy that cannot be read leaves what is in memory.
    fn refresh(&mut self, feed: &Configured, config: &Config) {
        let stamps = [FileStamp::of(&self.files.list), FileStamp::of(&self.files.status)];
        let [was_list, was_status] = std::mem::replace(&mut self.stamps, stamps);
        if stamps[1] != was_status {
            self.status = self.files.status().unwrap_or_default();
        }
        if stamps[0] == was_list {
            return;
        }
        let screen = screen(config);
        let mut networks = Vec::new();
        let read = self.files.read_list(feed.max_entries, &mut |network| {
            if screen.refuses(&network).is_none() {
                networks.push(network);
            }
        });
        match read {
            Ok(true) => self.list = Some((networks.len() as u64, Arc::new(networks.into_iter().collect()))),
            Ok(false) => self.list = None,
            Err(error) => {
                tracing::warn!("feed {:?}: {error:#}; it is fetched again", feed.name);
                self.files.remove();
                self.stamps[0] = None;
            }
        }
    }

    fn put_in_force(&mut self, feed: &Configured, now: UnixMs) {
        let fetched = self.status.fetched_at;
        let is_too_old = feed.max_age.is_some_and(|age| fetched.is_none_or(|at| now.since(at) > age));
        let list = self.list.as_ref().filter(|_| !is_too_old);
        let is_same = |old: &Feed| {
            old.mode == feed.mode && list.is_some_and(|(_, list)| Arc::ptr_eq(list, &old.addresses))
        };
        if self.in_force.as_deref().is_some_and(is_same) {
            return;
        }
        if is_too_old && self.in_force.is_some() {
            tracing::warn!("feed {:?} is older than max_age and no longer in force", feed.name);
        }
        self.in_force = list.map(|(_, list)| {
            let (name, mode, addresses) = (Arc::clone(&feed.name), feed.mode, Arc::clone(list));
            Arc::new(Feed { name, mode, addresses })
        });
    }
}
