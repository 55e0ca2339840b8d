//! Requests on connections that have not taken an answer yet, and how much is read ahead for them.
//!
//! Pingora holds up to ten pieces of an answer for a client that does not take it, each as large as what the
//! upstream's socket had to give. Ordinary clients never make it do so; somebody who opens thousands of
//! connections and reads nothing costs half a megabyte with each. So when many connections ask for their first
//! answer at once, the upstream connections of those beyond the first few get a small receive buffer, which
//! makes the pieces small. Must not know requests: the hooks say when one begins.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pingora::upstreams::peer::HttpPeer;

use crate::edge::Edge;

/// So many first requests at once are nothing unusual.
const UNRESTRAINED: usize = 32;
/// What the upstream may send ahead for the others. Their answers cost more CPU time for each byte.
const RECEIVE_BUFFER: usize = 8 << 10;
/// Tells connections with a small buffer from the others of the same server.
const RESTRAINED_GROUP: u64 = 1 << 63;

/// How many first requests are under way.
#[derive(Default)]
pub(crate) struct Newcomers(AtomicUsize);

/// A first request, until it is dropped.
pub(crate) struct Newcomer(Arc<Edge>);

impl Newcomer {
    pub(crate) fn begin(edge: &Arc<Edge>) -> Self {
        edge.newcomers.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(edge))
    }

    /// Has little read ahead for this request if there are many like it and the server at `address` is near:
    /// over a long way a small buffer would be a slow connection.
    pub(crate) fn restrain(&self, peer: &mut HttpPeer, address: SocketAddr) {
        if self.0.newcomers.0.load(Ordering::Relaxed) > UNRESTRAINED && is_near(address.ip()) {
            peer.options.tcp_recv_buf = Some(RECEIVE_BUFFER);
            peer.group_key ^= RESTRAINED_GROUP;
        }
    }
}

/// On this machine or in a private network.
fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.0.newcomers.0.fetch_sub(1, Ordering::Relaxed);
    }
}
