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
    /// The copy could not be read, and that has been said.
    is_unreadable: bool,
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
                    is_unreadable: false,
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
    /// Reads what has changed on disk. A copy that cannot be read leaves what is in memory. One that is damaged is
    /// fetched anew; one that a moment without open files keeps from being read is read at the next look.
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
        if let Err(error) = &read
            && error.is::<std::io::Error>()
        {
            self.stamps[0] = None;
            if !std::mem::replace(&mut self.is_unreadable, true) {
                tracing::warn!("feed {:?}: {error:#}; it is tried again", feed.name);
            }
            return;
        }
        self.is_unreadable = false;
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
        let is_too_old = self.status.is_too_old(feed, now);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use portcullis_config::Overrides;

    use super::*;

    fn config(folder: &Path) -> Config {
        let text = "data = \"data\"\n[[upstream]]\nname = \"a\"\nservers = [\"http://127.0.0.1:1\"]\n\
                    [[feed]]\nname = \"drop\"\nurl = \"https://lists.example.com/drop.txt\"\n";
        portcullis_config::parse(text, "test", folder, &Overrides::default()).unwrap()
    }

    fn entries(feeds: &LiveFeeds) -> u64 {
        feeds.states()[0].entries
    }

    #[test]
    fn a_copy_that_cannot_be_read_for_a_moment_is_not_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let files = Files::of(&config.data, &config.feeds[0]);
        files.write_list(&["203.0.113.0/24".parse().unwrap()]).unwrap();
        files.write_status(&Status { fetched_at: Some(UnixMs(1)), ..Status::default() }).unwrap();
        let feeds = LiveFeeds::default();
        assert!(feeds.look(&config, UnixMs(2)).is_some());
        assert_eq!(entries(&feeds), 1);
        // Whoever is root may read any file, but not follow a link to itself.
        let aside = files.list.with_extension("aside");
        fs::rename(&files.list, &aside).unwrap();
        std::os::unix::fs::symlink(&files.list, &files.list).unwrap();
        assert!(feeds.look(&config, UnixMs(3)).is_none());
        assert_eq!(entries(&feeds), 1, "what is in memory stays in force");
        assert!(files.status.exists() && files.list.is_symlink(), "nothing is removed");
        fs::rename(&aside, &files.list).unwrap();
        let begun_anew = LiveFeeds::default();
        assert!(begun_anew.look(&config, UnixMs(4)).is_some());
        assert_eq!(entries(&begun_anew), 1);
    }

    #[test]
    fn a_damaged_copy_is_removed_so_that_it_is_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let files = Files::of(&config.data, &config.feeds[0]);
        files.write_list(&["203.0.113.0/24".parse().unwrap()]).unwrap();
        files.write_status(&Status { etag: Some("x".to_owned()), ..Status::default() }).unwrap();
        fs::write(&files.list, "203.0.113.0/24\n\0\0\0").unwrap();
        assert!(LiveFeeds::default().look(&config, UnixMs(2)).is_none());
        assert!(!files.list.exists() && !files.status.exists());
    }
}
