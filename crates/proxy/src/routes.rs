//! Which upstream serves a host and a path.

use std::sync::Arc;

use portcullis_config::Route;
use portcullis_policy::{HostPattern, PathPattern};

use crate::pool::Pool;

/// Routes from the most to the least specific: a host by name before a wildcard before any, then the
/// longest path, then the order of the file.
pub(crate) struct Routes {
    entries: Vec<Entry>,
    /// Without routes: the first upstream, for everything.
    fallback: Option<Destination>,
}

struct Entry {
    host: Option<HostPattern>,
    path: Option<PathPattern>,
    destination: Destination,
}

/// Where a request goes, and what is particular there.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) pool: Arc<Pool>,
    /// Bytes of a request body; `None` is no limit.
    pub(crate) max_body: Option<u64>,
}

impl Entry {
    fn rank(&self) -> (u8, usize, usize) {
        let (kind, length) = match &self.host {
            Some(host) if host.is_exact() => (2, host.as_str().len()),
            Some(host) => (1, host.as_str().len()),
            None => (0, 0),
        };
        (kind, length, self.path.as_ref().map_or(0, PathPattern::specificity))
    }
}

impl Routes {
    /// `max_body` is for routes that name none of their own.
    pub(crate) fn new(routes: &[Route], pools: &[Arc<Pool>], max_body: Option<u64>) -> Self {
        let mut entries: Vec<Entry> = routes
            .iter()
            .filter_map(|route| {
                let pool = pools.iter().find(|pool| pool.name() == route.upstream)?;
                Some(any_or_each(&route.hosts).flat_map(move |host| {
                    any_or_each(&route.paths).map(move |path| Entry {
                        host: host.cloned(),
                        path: path.cloned(),
                        destination: Destination {
                            pool: Arc::clone(pool),
                            max_body: route.max_body.map_or(max_body, nonzero),
                        },
                    })
                }))
            })
            .flatten()
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.rank()));
        let first = pools.first().filter(|_| routes.is_empty());
        let fallback = first.map(|pool| Destination { pool: Arc::clone(pool), max_body });
        Self { entries, fallback }
    }

    /// `path` is normalised, `host` lower case without a port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Destination> {
        self.entries
            .iter()
            .find(|entry| {
                entry.host.as_ref().is_none_or(|pattern| pattern.matches(host))
                    && entry.path.as_ref().is_none_or(|pattern| pattern.matches(path))
            })
            .map(|entry| &entry.destination)
            .or(self.fallback.as_ref())
    }
}

/// 0 is no limit.
fn nonzero(bytes: u64) -> Option<u64> {
    (bytes > 0).then_some(bytes)
}

fn any_or_each<T>(patterns: &[T]) -> impl Iterator<Item = Option<&T>> {
    let any = if patterns.is_empty() { Some(None) } else { None };
    any.into_iter().chain(patterns.iter().map(Some))
}
