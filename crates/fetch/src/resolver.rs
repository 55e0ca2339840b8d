//! Names to addresses, and which of them may be connected to. What it returns is what the connector uses, so
//! that a name cannot be one address when it is checked and another one when it is connected to.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::is_public;

/// Hosts that are remembered at most; there are as many as the configuration names, a few.
const MAX_HOSTS: usize = 1024;

/// Hosts of the configuration whose every address was local when they were looked up last.
#[derive(Clone, Default)]
pub(crate) struct LocalHosts(Arc<Mutex<HashSet<String>>>);

impl LocalHosts {
    pub(crate) fn contains(&self, host: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    fn learn(&self, host: &str, is_local: bool) {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_local {
            hosts.remove(host);
        } else if hosts.len() < MAX_HOSTS {
            hosts.insert(host.to_owned());
        }
    }
}

/// For URLs that the operator wrote: any address.
pub(crate) struct Open {
    pub(crate) local: LocalHosts,
    pub(crate) inner: DefaultResolver,
}

/// For URLs that a server wrote: public addresses only.
pub(crate) struct Guarded {
    pub(crate) inner: DefaultResolver,
}

/// The redirect leads to no public address.
#[derive(Debug)]
pub(crate) struct NotPublic;

fn look_up(
    inner: &DefaultResolver,
    uri: &Uri,
    config: &Config,
    left: NextTimeout,
) -> Result<ResolvedSocketAddrs, Error> {
    inner.resolve(uri, config, left).map_err(|error| match error {
        // What the system's resolver says has no kind of its own.
        Error::Io(_) => Error::HostNotFound,
        other => other,
    })
}

impl Resolver for Open {
    fn resolve(&self, uri: &Uri, config: &Config, left: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = look_up(&self.inner, uri, config, left)?;
        if let Some(host) = uri.host() {
            self.local.learn(host, found.iter().all(|address| !is_public(address.ip())));
        }
        Ok(found)
    }
}

impl Resolver for Guarded {
    fn resolve(&self, uri: &Uri, config: &Config, left: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = look_up(&self.inner, uri, config, left)?;
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let mut public = ResolvedSocketAddrs::from_fn(|_| nowhere);
        for address in found.iter().filter(|address| is_public(address.ip())) {
            public.push(*address);
        }
        if public.is_empty() { Err(Error::Other(Box::new(NotPublic))) } else { Ok(public) }
    }
}

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no public address")
    }
}

impl std::error::Error for NotPublic {}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Open")
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guarded")
    }
}
