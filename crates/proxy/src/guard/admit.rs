//! Whether a connection is served at all: how many there may be, and whom the blocklist keeps out before a
//! byte is read. Owns the counts of open connections. Decides nothing about requests.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_model::{ConnectionLimit, Reason, VerdictKind};
use portcullis_policy::decide_by_address;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::edge::Edge;

use super::connection::Lost;
use super::{Connection, Held};

/// What a plaintext client that is shed is told, if that can be done without waiting.
const SHED_ANSWER: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// What is read of a connection that is shed, so that closing it does not reset the answer.
const SHED_READ: usize = 4_096;

/// Counts an open connection until it is dropped, by a panic too.
pub(super) struct Open {
    edge: Arc<Edge>,
    /// Counted for this client.
    client: Option<IpAddr>,
    _held: Option<Held>,
}

impl Open {
    pub(super) fn count(edge: &Arc<Edge>) -> Self {
        edge.metrics.connection_opened();
        Self { edge: Arc::clone(edge), client: None, _held: None }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.edge.clients.give_back(client);
        }
        self.edge.metrics.connection_closed();
    }
}

impl Connection {
    /// Whether there may be one more connection, whoever it is for.
    pub(super) fn find_room(&self) -> Result<(), Reason> {
        let total = self.bounds().max_connections.min(self.edge.max_sockets);
        match self.edge.metrics.connections() > total as u64 {
            true => Err(Reason::Connections(ConnectionLimit::Total)),
            false => Ok(()),
        }
    }

    /// Puts the connection under watch, or says why it is not served.
    pub(super) fn admit(self: &Arc<Self>, open: &mut Open) -> Result<(), Reason> {
        let rules = self.edge.rules.load();
        // Who comes through a trusted proxy is not known yet, and proxies open many connections.
        if rules.trusted.lookup(self.peer.ip()).is_none() {
            if let Some(max) = rules.bounds.max_connections_per_client {
                let client = self.peer.limit_key();
                if !self.edge.clients.take(client, max) {
                    return Err(Reason::Connections(ConnectionLimit::PerClient));
                }
                open.client = Some(client);
            }
            // Over plaintext people learn from the page why they are refused.
            if self.is_tls
                && let Some(refusal) = decide_by_address(
                    &rules.policy,
                    &self.edge.state,
                    self.peer,
                    rules.knows_users(),
                    self.edge.clock.now(),
                )
            {
                return Err(refusal.reason());
            }
        }
        open._held = Some(self.edge.watch.hold(self));
        Ok(())
    }

    /// Closes a connection that is not served.
    pub(super) fn shed(&self, socket: &TcpStream, reason: Reason) {
        let verdict = if matches!(reason, Reason::Block(_) | Reason::Feed(_)) {
            self.edge.metrics.connection_dropped();
            VerdictKind::Blocked
        } else {
            VerdictKind::Limited
        };
        let mut answered = None;
        if !self.is_tls {
            let socket = SockRef::from(socket);
            // Whatever fails here has no listener: nobody waits for a connection that is not served.
            let _ = socket.recv(&mut [std::mem::MaybeUninit::uninit(); SHED_READ]);
            if socket.send(SHED_ANSWER).is_ok_and(|n| n == SHED_ANSWER.len()) {
                answered = Some((self.request_id(self.opened), 503));
            }
        }
        self.record(Lost { verdict, reason, answered, bytes: &[], began: self.opened });
    }
}
