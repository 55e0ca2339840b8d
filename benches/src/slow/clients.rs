//! The slow clients: thousands of connections that do next to nothing, from one thread.
//!
//! Owns what each kind sends. It says on standard output when each connection has begun to be slow, and
//! ends when its standard input does.

use std::io::{self, Read as _};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::upstream::LARGE_PATH;
use super::{Kind, Sources, tls};

/// Receive buffer of a client that does not read; the kernel doubles it.
const SMALL_BUFFER: u32 = 2_048;
/// Connections that are being made at once.
const CONNECTING: usize = 128;
/// Of the body that is announced and never comes.
const ANNOUNCED_BODY: usize = 1 << 20;
/// The most connections of one process.
pub const MAX_CONNECTIONS: usize = 10_000;

/// What one process of slow clients does.
#[derive(clap::Args, Clone, Debug)]
pub struct Slow {
    #[arg(long)]
    pub kind: Kind,
    #[arg(long)]
    pub target: SocketAddr,
    #[arg(long)]
    pub connections: usize,
    #[arg(long)]
    pub sources: Sources,
    /// Milliseconds between two bytes of a head or a body.
    #[arg(long)]
    pub pause_ms: u64,
    /// The gateway's certificate.
    #[arg(long)]
    pub certificate: PathBuf,
}

/// Opens all connections and keeps them until standard input ends.
///
/// # Errors
/// When the target is not on loopback, or nothing can be started.
pub fn run(slow: Slow) -> anyhow::Result<()> {
    if !slow.target.ip().is_loopback() {
        bail!("{} is not on this machine's loopback; slow clients go nowhere else", slow.target);
    }
    if slow.connections == 0 || slow.connections > MAX_CONNECTIONS {
        bail!("--connections must be from 1 to {MAX_CONNECTIONS}");
    }
    let connector = TlsConnector::from(tls::client(&slow.certificate)?);
    let (end, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        end.send(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let slow = Arc::new(slow);
        let connecting = Arc::new(Semaphore::new(CONNECTING));
        for n in 0..slow.connections {
            let permit = Arc::clone(&connecting).acquire_owned().await.context("closed")?;
            let (slow, connector) = (Arc::clone(&slow), connector.clone());
            tokio::spawn(async move {
                let connected = connect(&slow, n).await;
                let began = match connected {
                    Ok(socket) => begin(&slow, socket, &connector).await,
                    Err(error) => Err(error),
                };
                drop(permit);
                match began {
                    Ok(held) => held.be_slow(Duration::from_millis(slow.pause_ms)).await,
                    Err(error) => println!("LOST {error}"),
                }
            });
        }
        // The rest are under way.
        let _ = connecting.acquire_many(u32::try_from(CONNECTING)?).await;
        println!("OPENED");
        // Whether it was sent or the thread has ended is the same.
        let _ = ended.await;
        Ok(())
    })
}

async fn connect(slow: &Slow, n: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if matches!(slow.kind, Kind::Read) {
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    socket.bind(SocketAddr::from((slow.sources.address(slow.kind, n), 0)))?;
    let stream = socket.connect(slow.target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that has said enough to be held.
enum Held {
    Dripping(TcpStream),
    /// Never read again.
    Stalled(TcpStream),
    /// Read, so that its end is noticed; its window stays at zero.
    ZeroWindow(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn begin(slow: &Slow, mut socket: TcpStream, connector: &TlsConnector) -> io::Result<Held> {
    let own = socket.local_addr()?;
    let held = match slow.kind {
        Kind::Head => {
            socket.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\nX-Slow: ", tls::NAME).as_bytes()).await?;
            Held::Dripping(socket)
        }
        Kind::Body => {
            let head = format!(
                "POST /upload HTTP/1.1\r\nHost: {}\r\nContent-Length: {ANNOUNCED_BODY}\r\n\r\n",
                tls::NAME
            );
            socket.write_all(head.as_bytes()).await?;
            Held::Dripping(socket)
        }
        Kind::Read => {
            let head = format!("GET {LARGE_PATH} HTTP/1.1\r\nHost: {}\r\n\r\n", tls::NAME);
            socket.write_all(head.as_bytes()).await?;
            Held::Stalled(socket)
        }
        Kind::ZeroWindow => {
            let name = ServerName::try_from(tls::NAME).map_err(io::Error::other)?;
            let mut stream = connector.connect(name, socket).await?;
            stream.write_all(&zero_window_request()).await?;
            Held::ZeroWindow(Box::new(stream))
        }
    };
    if let SocketAddr::V4(own) = own {
        report(own);
    }
    Ok(held)
}

fn report(own: SocketAddrV4) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    println!("HELD {own} {}", now.as_millis());
}

impl Held {
    /// Returns when the gateway has ended it, as far as the client can tell.
    async fn be_slow(self, pause: Duration) {
        match self {
            Self::Dripping(socket) => drip(socket, pause).await,
            Self::Stalled(socket) => {
                std::future::pending::<()>().await;
                drop(socket);
            }
            Self::ZeroWindow(stream) => drain(stream).await,
        }
    }
}

async fn drip(socket: TcpStream, pause: Duration) {
    let (mut from, mut to) = socket.into_split();
    let mut byte = [0; 512];
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {
                if to.write_all(b"a").await.is_err() {
                    return;
                }
            }
            read = from.read(&mut byte) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
            }
        }
    }
}

async fn drain<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Box<S>) {
    let mut scratch = [0; 512];
    while matches!(stream.read(&mut scratch).await, Ok(1..)) {}
}

/// The connection preface, SETTINGS with an initial window of zero, and one GET for the large answer
/// (RFC 9113, sections 3.4, 6.2 and 6.5; RFC 7541, section 6).
fn zero_window_request() -> Vec<u8> {
    const SETTINGS: u8 = 0x4;
    const HEADERS: u8 = 0x1;
    const END_STREAM_AND_HEADERS: u8 = 0x1 | 0x4;
    const INITIAL_WINDOW_SIZE: [u8; 6] = [0, 4, 0, 0, 0, 0];
    // Indexed: ":method: GET" is 2 and ":scheme: https" is 7 of the static table; ":path" is 4, ":authority" 1.
    let mut block = vec![0x80 | 2, 0x80 | 7];
    for (index, value) in [(4, LARGE_PATH), (1, tls::NAME)] {
        block.push(index);
        block.push(u8::try_from(value.len()).unwrap_or(0));
        block.extend_from_slice(value.as_bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &INITIAL_WINDOW_SIZE);
    frame(&mut bytes, HEADERS, END_STREAM_AND_HEADERS, 1, &block);
    bytes
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}
