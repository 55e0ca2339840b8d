//! A connection for sending anything: pieces of bytes, in any order, from any loopback address.
//!
//! Owns the socket and its deadlines. Must not panic when the other side closes or resets: that is what the
//! tests that use it ask about.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

use crate::wait::DEADLINE;

const READ_CHUNK: usize = 64 << 10;

/// What one read brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Bytes(Vec<u8>),
    /// An orderly end, or a TLS connection that ended without saying so.
    Closed,
    Reset,
    /// Nothing within the patience.
    Silence,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One connection, plaintext at first.
pub struct RawConnection {
    transport: Transport,
}

impl RawConnection {
    /// `from` is one of this machine's own addresses: all of 127.0.0.0/8 on Linux.
    pub fn open(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), DEADLINE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { transport: Transport::Plain(stream) })
    }

    /// Makes the TLS handshake on what has been a plaintext connection so far.
    pub fn into_tls(self, name: &str, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let Transport::Plain(mut stream) = self.transport else { return Ok(self) };
        stream.set_read_timeout(Some(DEADLINE))?;
        let server = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(config), server).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self { transport: Transport::Tls(Box::new(StreamOwned::new(tls, stream))) })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.transport {
            Transport::Plain(stream) => stream.write_all(bytes),
            Transport::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Waits for bytes or an end, for at most `patience`.
    pub fn receive(&mut self, patience: Duration) -> Received {
        let mut chunk = vec![0; READ_CHUNK];
        let result =
            self.socket().set_read_timeout(Some(patience)).and_then(|()| match &mut self.transport {
                Transport::Plain(stream) => stream.read(&mut chunk),
                Transport::Tls(stream) => read_tls(stream, &mut chunk),
            });
        match result {
            Ok(0) => Received::Closed,
            Ok(n) => {
                chunk.truncate(n);
                Received::Bytes(chunk)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Received::Silence,
                io::ErrorKind::UnexpectedEof => Received::Closed,
                _ => Received::Reset,
            },
        }
    }

    /// Says that no more bytes will come; over TLS without its own farewell.
    pub fn finish_writing(&self) -> io::Result<()> {
        self.socket().shutdown(Shutdown::Write)
    }

    /// Closes with a reset, as programs do that end in the middle of something.
    pub fn reset(self) -> io::Result<()> {
        SockRef::from(self.socket()).set_linger(Some(Duration::ZERO))
    }

    fn socket(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => &stream.sock,
        }
    }
}

/// Unlike the stream's own `read`, never writes first: the other side may have closed that way and have sent
/// an answer before.
fn read_tls(stream: &mut StreamOwned<ClientConnection, TcpStream>, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.conn.reader().read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        stream.conn.read_tls(&mut stream.sock)?;
        stream.conn.process_new_packets().map_err(io::Error::other)?;
    }
}
