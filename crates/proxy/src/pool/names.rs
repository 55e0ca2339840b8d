//! The addresses of servers that are given by name, looked up again and again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;
use std::time::Duration;

use portcullis_config::UpstreamServer;
use tokio::task::JoinSet;

use super::Pool;

/// How often host names are resolved again.
const INTERVAL: Duration = Duration::from_secs(30);
/// How soon again when a name has no address yet; twice as long after each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// How long one look-up may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most addresses that one host name gives.
const MAX_ADDRESSES: usize = 16;
/// The most look-ups at once.
const MAX_AT_ONCE: usize = 32;

impl Pool {
    /// Looks up the names of the servers. What cannot be resolved keeps its last addresses. Returns whether
    /// every name has an address.
    pub(crate) async fn resolve(&self) -> bool {
        if !self.has_names() {
            return true;
        }
        let mut servers = self.settings.servers.iter().cloned().enumerate();
        let mut lookups = JoinSet::new();
        let mut found = Vec::new();
        loop {
            while lookups.len() < MAX_AT_ONCE
                && let Some((place, server)) = servers.next()
            {
                lookups.spawn(async move {
                    let addresses = lookup(&server).await;
                    (place, server, addresses)
                });
            }
            match lookups.join_next().await {
                None => break,
                Some(Ok(one)) => found.push(one),
                Some(Err(error)) => tracing::error!("a look-up of a name ended in the middle: {error}"),
            }
        }
        // The order of the file, whatever came first: of two servers with one address the first one counts.
        found.sort_by_key(|(place, ..)| *place);
        let found: Vec<(UpstreamServer, Vec<SocketAddr>)> = found
            .into_iter()
            .map(|(_, server, addresses)| {
                let addresses = addresses.unwrap_or_else(|why| {
                    tracing::warn!("upstream {}: cannot resolve {}: {why}", self.settings.name, server.host);
                    self.known_addresses(&server)
                });
                (server, addresses)
            })
            .collect();
        let is_complete = found.len() == self.settings.servers.len()
            && found.iter().all(|(_, addresses)| !addresses.is_empty());
        self.replace(found);
        is_complete
    }

    fn has_names(&self) -> bool {
        self.settings.servers.iter().any(|server| server.host.parse::<IpAddr>().is_err())
    }

    fn lacks_addresses(&self) -> bool {
        self.settings
            .servers
            .iter()
            .any(|server| server.host.parse::<IpAddr>().is_err() && self.known_addresses(server).is_empty())
    }

    pub(super) async fn keep_resolving(pool: Weak<Self>) {
        let mut is_complete = match pool.upgrade() {
            Some(pool) if pool.has_names() => !pool.lacks_addresses(),
            _ => return,
        };
        let mut failures = 0;
        loop {
            failures = if is_complete { 0 } else { failures + 1 };
            tokio::time::sleep(pause(failures)).await;
            let Some(pool) = pool.upgrade() else { return };
            is_complete = pool.resolve().await;
        }
    }
}

/// Until the next look-up, after so many in a row that left a name without an address.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => INTERVAL,
        _ => FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(INTERVAL),
    }
}

async fn lookup(server: &UpstreamServer) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = server.host.parse() {
        return Ok(vec![SocketAddr::new(ip, server.port)]);
    }
    let lookup = tokio::net::lookup_host((server.host.as_str(), server.port));
    match tokio::time::timeout(TIMEOUT, lookup).await {
        Ok(Ok(addresses)) => Ok(addresses.take(MAX_ADDRESSES).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_an_address_is_looked_up_again_soon_and_then_ever_more_rarely() {
        let seconds: Vec<u64> = (0..8).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(seconds, [30, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(pause(u32::MAX), INTERVAL);
    }
}
