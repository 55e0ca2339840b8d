//! The server behind the gateway: reads every body to its end, and has one large answer.
//!
//! Owns no cost that counts; it must bear as many connections as the gateway opens to it.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The path of the large answer.
pub const LARGE_PATH: &str = "/large";
/// Bytes of the large answer: more than all buffers on the way hold.
pub const LARGE_BODY: usize = 8 << 20;
const SMALL_BODY: usize = 300;
const MAX_HEAD: usize = 64 << 10;
const SEND_BUFFER: u32 = 64 << 10;
const BACKLOG: u32 = 4_096;

/// Listens on a free port of loopback, says where on standard output, and serves until it is killed.
///
/// # Errors
/// When no port is free.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        // On loopback the kernel would buffer megabytes for each stalled answer, and with thousands of them run
        // out of the memory that all sockets of the machine share: the gateway's own share would not be seen.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(BACKLOG)?;
        println!("LISTENS {}", listener.local_addr()?);
        loop {
            match listener.accept().await {
                // A connection that breaks is its client's affair.
                Ok((socket, _)) => drop(tokio::spawn(async { serve(socket).await.ok() })),
                // Out of descriptors, probably: those that are open go on.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    })
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(2_048);
    loop {
        let Some(head) = read_head(&mut socket, &mut buffer).await? else { return Ok(()) };
        discard(&mut socket, &mut buffer, head.body).await?;
        let length = if head.is_large { LARGE_BODY } else { SMALL_BODY };
        let start = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n");
        if head.is_large {
            socket.write_all(start.as_bytes()).await?;
            let part = [b'X'; 16 << 10];
            for _ in 0..LARGE_BODY / part.len() {
                socket.write_all(&part).await?;
            }
        } else {
            let mut answer = start.into_bytes();
            answer.resize(answer.len() + SMALL_BODY, b'X');
            socket.write_all(&answer).await?;
        }
    }
}

struct Head {
    is_large: bool,
    body: usize,
}

/// Leaves what follows the head in the buffer. `None` when the client has gone.
async fn read_head(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Head>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if buffer.len() > MAX_HEAD || socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&buffer[..end]);
    let is_large = text.split(' ').nth(1) == Some(LARGE_PATH);
    let length = text.split("\r\n").filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let head = Head { is_large, body: length.unwrap_or(0) };
    buffer.drain(..end);
    Ok(Some(head))
}

async fn discard(socket: &mut TcpStream, buffer: &mut Vec<u8>, mut body: usize) -> io::Result<()> {
    loop {
        let taken = body.min(buffer.len());
        buffer.drain(..taken);
        body -= taken;
        if body == 0 {
            return Ok(());
        }
        if socket.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
