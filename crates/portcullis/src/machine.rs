//! The addresses that are this machine's own, and whose it is that works on it: what must not be blocked by
//! mistake; and the room on its disks. Must not decide; the command and the detector do.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use portcullis_model::ClientIp;

/// Whether the two have an address in common.
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The loopback prefixes of both families.
pub(crate) fn loopback() -> [IpNet; 2] {
    [
        IpNet::new_assert(IpAddr::from([127, 0, 0, 0]), 8),
        IpNet::new_assert(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128),
    ]
}

/// The addresses of all interfaces; none where the system does not tell.
pub(crate) fn own_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs();
    if let Err(error) = &interfaces {
        tracing::warn!("this machine's own addresses are not known (is AF_NETLINK forbidden?): {error}");
    }
    interfaces
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .map(|ip| ClientIp::new(ip).ip())
        .collect()
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskSpace {
    /// For this user.
    pub(crate) free: u64,
    pub(crate) total: u64,
}

/// The file system of a folder; `None` where the system does not tell.
pub(crate) fn disk_space(folder: &Path) -> Option<DiskSpace> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(DiskSpace { free: stat.f_bavail * stat.f_frsize, total: stat.f_blocks * stat.f_frsize })
}

/// Whence somebody is logged in by SSH.
pub(crate) fn operators_address() -> Option<IpAddr> {
    let connection = std::env::var("SSH_CONNECTION").or_else(|_| std::env::var("SSH_CLIENT")).ok()?;
    let client: ClientIp = connection.split_whitespace().next()?.parse().ok()?;
    Some(client.ip())
}
