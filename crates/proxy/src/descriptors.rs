//! How many files the process may have open, and so how many clients it can serve.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For databases, logs, listeners and whatever else is not a connection.
const RESERVED: u64 = 256;

/// Raises the limit of open files as far as it goes. Returns how many clients it leaves room for: each may
/// need a second connection, to the site.
pub(crate) fn for_clients() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    // None is no limit.
    let clients = limit.map_or(u64::MAX, |files| files.saturating_sub(RESERVED) / 2);
    usize::try_from(clients.max(1)).unwrap_or(usize::MAX)
}
