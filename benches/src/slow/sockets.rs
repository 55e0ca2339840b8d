//! Which connections the gateway holds, as the kernel's table of TCP sockets says.
//!
//! Owns the reading of /proc/net/tcp. A client that does not read never learns that its connection was
//! closed, so asking the clients would not do. Linux only, as /proc is.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::Context as _;

const ESTABLISHED: &str = "01";

/// The clients of the connections to `servers` that are established and belong to a process: neither waiting
/// to be accepted nor closed already.
///
/// # Errors
/// When the table cannot be read.
pub fn held(servers: &[SocketAddr]) -> anyhow::Result<HashSet<SocketAddrV4>> {
    let table = fs::read_to_string("/proc/net/tcp").context("cannot read /proc/net/tcp")?;
    let ports: Vec<u16> = servers.iter().map(SocketAddr::port).collect();
    Ok(table.lines().skip(1).filter_map(|line| client_of(line, &ports)).collect())
}

fn client_of(line: &str, ports: &[u16]) -> Option<SocketAddrV4> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let is_established = fields.next()? == ESTABLISHED;
    // tx_queue:rx_queue, timer, retransmits, uid, timeout, inode
    let inode = fields.nth(5)?;
    (ports.contains(&local.port()) && is_established && inode != "0").then_some(remote)
}

/// Bytes that the kernel holds in buffers of TCP sockets, of all processes; 0 where it does not tell.
pub fn kernel_memory() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    pages(&text).unwrap_or(0) * rustix::param::page_size() as u64
}

fn pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    line.split_ascii_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()
}

/// `0100007F:1F90`: the address in the machine's byte order, the port in plain hexadecimal.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (address, port) = text.split_once(':')?;
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    Some(SocketAddrV4::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_counts_its_memory_in_pages() {
        let text = "sockets: used 7\nTCP: inuse 5 orphan 0 tw 6 alloc 9 mem 399195\nUDP: inuse 1 mem 2\n";
        assert_eq!(pages(text), Some(399_195));
        assert_eq!(pages(""), None);
    }

    #[test]
    fn a_connection_is_held_from_its_acceptance_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).unwrap();
        let SocketAddr::V4(own) = client.local_addr().unwrap() else { panic!("not IPv4") };
        assert!(!held(&[server]).unwrap().contains(&own), "held before it was accepted");
        let (accepted, _) = listener.accept().unwrap();
        assert!(held(&[server]).unwrap().contains(&own));
        drop(accepted);
        assert!(!held(&[server]).unwrap().contains(&own));
    }
}
