//! A door for one client: whatever connects to it reaches the gateway from an address of 127.0.0.0/8 that is nobody else's.
//!
//! Few tools can choose the address that they come from. So each connects to a listener here, which passes its bytes on
//! from the client's own address. Must not read what passes.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use portcullis_testkit::connect;

/// Ends with the test's process.
pub(crate) struct Front {
    address: SocketAddr,
    client: Ipv4Addr,
}

impl Front {
    /// `client` is both where the tool connects and where the gateway sees it come from.
    pub(crate) fn start(client: Ipv4Addr, gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind((client, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || pass(stream, client, gateway));
            }
        });
        Self { address, client }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Who this is in the gateway's log.
    pub(crate) fn client(&self) -> Ipv4Addr {
        self.client
    }
}

/// Both ways until both are over. Whoever hangs up early breaks off nobody else's connection.
fn pass(client: TcpStream, source: Ipv4Addr, gateway: SocketAddr) {
    let server = connect(Some(source.into()), gateway);
    let forever = server.set_read_timeout(None).and_then(|()| server.set_write_timeout(None));
    let (Ok(()), Ok(from_client), Ok(to_server)) = (forever, client.try_clone(), server.try_clone()) else {
        return;
    };
    let there = std::thread::spawn(move || copy(from_client, to_server));
    copy(server, client);
    let _ = there.join();
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
