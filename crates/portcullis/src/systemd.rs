//! What the service manager is told: sd_notify's protocol, lines in a datagram to the socket that it names.
//!
//! Owns that protocol. Without `NOTIFY_SOCKET` in the environment nothing is said.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// This process serves. Also after an upgrade: from then on it is the one to watch.
pub(crate) fn ready() {
    tell(&format!("READY=1\nMAINPID={}\nSTATUS=serving", std::process::id()));
}

/// The configuration is being read again; [`ready`] ends it.
pub(crate) fn reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reading the configuration"));
}

/// Open requests may finish, then this process ends.
pub(crate) fn stopping() {
    tell("STOPPING=1\nSTATUS=finishing open requests");
}

/// Failing to say it is no reason not to serve.
fn tell(state: &str) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(place.as_encoded_bytes(), state) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

fn send(place: &[u8], state: &str) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;

    let address = match place {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_sockets_of_both_kinds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        let name = format!("portcullis-test-{}", std::process::id());
        let nameless = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(path.as_os_str().as_encoded_bytes(), "READY=1").unwrap();
        send(format!("@{name}").as_bytes(), "STOPPING=1").unwrap();
        for (socket, text) in [(named, "READY=1"), (nameless, "STOPPING=1")] {
            let mut heard = [0; 64];
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], text.as_bytes());
        }
    }
}
