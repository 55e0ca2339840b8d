//! Listeners behind a load balancer that names the client in a PROXY header, in front of everything else.
//! Nothing is guessed: a connection without a valid header from a trusted peer is closed.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_model::MalformedKind;
use portcullis_wire::proxy_protocol::{Proxied, ProxyError, parse};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Connection;

/// From the connection to the last byte of the header. A load balancer sends it at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is read at once; a header and what a client sends with it mostly fit.
const READ_BYTES: usize = 1_024;

/// A connection whose header has been read.
pub(super) struct Named {
    /// The client, or the peer itself where it speaks for nobody.
    pub(super) client: SocketAddr,
    /// What came behind the header.
    pub(super) ahead: Vec<u8>,
}

/// Reads the header, or leaves a record of why there is none.
pub(super) async fn read_header(
    socket: &mut TcpStream,
    peer: SocketAddr,
    connection: &Connection,
) -> Option<Named> {
    let mut bytes = Vec::new();
    let read = timeout_at(Instant::now() + PATIENCE, read(socket, &mut bytes)).await;
    let is_trusted = connection.edge.rules.load().trusted.lookup(connection.peer.ip()).is_some();
    match read {
        Ok(Some((len, said))) if is_trusted => {
            let client = match said {
                Proxied::Local => peer,
                Proxied::Client { source, .. } => source,
            };
            bytes.drain(..len);
            Some(Named { client, ahead: bytes })
        }
        // Late, broken, or from a peer that may not send one.
        Ok(_) | Err(_) => {
            // A connection without a byte is nobody's attempt at anything.
            if !bytes.is_empty() {
                connection.record_malformed(MalformedKind::ProxyProtocol, None, &bytes, connection.opened);
            }
            None
        }
    }
}

/// `None` when the connection ends or what comes is no header.
async fn read(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<(usize, Proxied)> {
    let mut part = [0; READ_BYTES];
    loop {
        let n = socket.read(&mut part).await.ok().filter(|&n| n > 0)?;
        bytes.extend_from_slice(&part[..n]);
        let parsed: Result<_, ProxyError> = parse(bytes);
        match parsed {
            Ok(None) => {}
            Ok(found) => return found,
            Err(_) => return None,
        }
    }
}
