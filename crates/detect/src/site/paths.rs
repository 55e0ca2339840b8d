//! The table of paths that a site served, and which of them are its own. Owns when a path is owned and which are
//! forgotten; must not look at requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Networks whose clients must have been served a path before the site owns it. One attacker with a handful of
/// addresses of one provider is one network.
pub const NETWORKS_TO_OWN: usize = 3;
/// On so many days: what was put there for an hour, by whomever, is nobody's page.
pub const DAYS_TO_OWN: u8 = 2;
/// The most paths that are kept, owned or not.
pub const MAX_PATHS: usize = 20_000;
/// Owned paths that are kept by name, to be shown.
const MAX_NAMED: usize = 500;
/// A path that was not served for so many days is forgotten.
const FORGET_DAYS: i64 = 60;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Paths {
    all: BTreeMap<u64, OwnedPath>,
    named: usize,
    /// Paths that began or ceased to be owned.
    #[serde(skip)]
    changes: u64,
}

/// A path that the site served.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OwnedPath {
    /// `host/path`; empty for those that are not kept by name. Only owned paths are: others may be secrets
    /// of single visitors.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub name: Box<str>,
    /// Times that it was served, at most once for each client and hour.
    pub served: u32,
    /// Days on which it was.
    pub days: u8,
    /// Of the host, as in `Site::hosts`.
    pub(super) host: u64,
    /// The last day, in days since 1970.
    pub(super) last_day: i64,
    /// Short hashes of the networks that it was served to, until it is owned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    networks: Vec<u32>,
    is_owned: bool,
}

impl Paths {
    pub(super) fn owned(&self, hash: u64) -> Option<&OwnedPath> {
        self.all.get(&hash).filter(|path| path.is_owned)
    }

    /// Notes to which host a path belongs that may be learned later.
    pub(super) fn meet(&mut self, hash: u64, host: u64) {
        if self.all.len() >= 2 * MAX_PATHS && !self.all.contains_key(&hash) {
            return;
        }
        self.all.entry(hash).or_default().host = host;
    }

    /// A client of the network was served the path.
    pub(super) fn serve(&mut self, hash: u64, network: u32, is_user: bool, day: i64) {
        let Some(path) = self.all.get_mut(&hash) else { return };
        path.served = path.served.saturating_add(1);
        if path.days == 0 || path.last_day != day {
            path.days = path.days.saturating_add(1);
            path.last_day = day;
        }
        if path.is_owned {
            return;
        }
        if is_user {
            // Somebody whom the site itself knows.
            path.networks = (0..NETWORKS_TO_OWN as u32).collect();
        } else if path.networks.len() < NETWORKS_TO_OWN && !path.networks.contains(&network) {
            path.networks.push(network);
        }
        if path.networks.len() >= NETWORKS_TO_OWN && path.days >= DAYS_TO_OWN {
            path.is_owned = true;
            self.changes += 1;
            path.networks = Vec::new();
        }
    }

    /// Keeps an owned path by name while there is room.
    pub(super) fn give_name(&mut self, hash: u64, name: impl FnOnce() -> Box<str>) {
        if self.named >= MAX_NAMED {
            return;
        }
        if let Some(path) = self.all.get_mut(&hash)
            && path.is_owned
            && path.name.is_empty()
        {
            path.name = name();
            self.named += 1;
        }
    }

    /// Forgets what was not served for long or not at all, and when there are too many the least used.
    pub(super) fn forget_old(&mut self, today: i64) {
        let Self { all, changes, .. } = self;
        all.retain(|_, path| {
            let stays = path.days > 0 && today - path.last_day <= FORGET_DAYS;
            *changes += u64::from(!stays && path.is_owned);
            stays
        });
        self.shrink();
    }

    /// A number that is another one when other paths are owned.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn shrink(&mut self) {
        if self.all.len() > MAX_PATHS {
            let mut worth: Vec<_> = self
                .all
                .iter()
                .map(|(hash, path)| ((path.is_owned, path.days, path.served, path.last_day), *hash))
                .collect();
            worth.sort_unstable();
            // A tenth more than needed, so that a flood of new paths is sorted seldom.
            for (_, hash) in worth.iter().take(self.all.len() - MAX_PATHS * 9 / 10) {
                let gone = self.all.remove(hash);
                self.changes += u64::from(gone.is_some_and(|path| path.is_owned));
            }
        }
        self.named = self.all.values().filter(|path| !path.name.is_empty()).count();
    }

    pub(super) fn remove(&mut self, hash: u64) -> bool {
        let gone = self.all.remove(&hash);
        self.changes += u64::from(gone.as_ref().is_some_and(|path| path.is_owned));
        self.named -= usize::from(gone.as_ref().is_some_and(|path| !path.name.is_empty()));
        gone.is_some()
    }

    /// Owned ones, and the others.
    pub(super) fn counts(&self) -> (usize, usize) {
        let owned = self.all.values().filter(|path| path.is_owned).count();
        (owned, self.all.len() - owned)
    }

    pub(super) fn named(&self) -> Vec<&OwnedPath> {
        let mut named: Vec<&OwnedPath> = self.all.values().filter(|path| !path.name.is_empty()).collect();
        named.sort_by(|a, b| b.served.cmp(&a.served).then_with(|| a.name.cmp(&b.name)));
        named
    }
}
