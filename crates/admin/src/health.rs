//! The other end of `/readyz`: asks a running gateway whether it is ready, as a container's health check does.
//!
//! Owns that one request. Must not need a runtime, so that the command stays small and quick.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::HealthError;

/// Bytes of the answer that are read.
pub const MAX_HEALTH_ANSWER_BYTES: u64 = 16 * 1024;

/// Asks the gateway whose operations listener is at `address`; an unspecified address such as
/// `0.0.0.0` is asked over loopback. Connecting, writing and each read may take `allowed`.
///
/// # Errors
/// Nothing answers, not in time, not as a gateway, or that it is not ready and why. The reason comes
/// from the network: escape it before printing it to a terminal.
pub fn ask_ready(address: SocketAddr, allowed: Duration) -> Result<(), HealthError> {
    let address = reachable(address);
    let answer = request(address, allowed).map_err(|source| match source.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HealthError::TooSlow { address, allowed },
        _ => HealthError::Unreachable { address, source },
    })?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(HealthError::NotAGateway { address })?;
    match head.split(' ').nth(1) {
        Some("200") if head.starts_with("HTTP/1.1") => Ok(()),
        Some("503") if head.starts_with("HTTP/1.1") => {
            Err(HealthError::NotReady { address, reason: body.trim().to_owned() })
        }
        _ => Err(HealthError::NotAGateway { address }),
    }
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn request(address: SocketAddr, allowed: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, allowed)?;
    stream.set_read_timeout(Some(allowed))?;
    stream.set_write_timeout(Some(allowed))?;
    stream.write_all(
        format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_HEALTH_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_asked_over_loopback() {
        for (listen, ask) in
            [("0.0.0.0:9", "127.0.0.1:9"), ("[::]:9", "[::1]:9"), ("192.0.2.1:9", "192.0.2.1:9")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), ask.parse().unwrap());
        }
    }
}
