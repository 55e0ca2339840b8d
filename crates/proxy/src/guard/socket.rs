//! A TCP connection as Pingora wants to see one, with small writes gathered.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID,
};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::Connection;

/// About one segment, as Pingora's own listeners have it: a header and a small body leave together,
/// and nothing waits, since the end of each part is flushed, as is what is left when the peer is listened to.
const MAX_GATHERED: usize = 1_460;

pub(super) struct Socket {
    stream: TcpStream,
    /// Small writes that are to leave together. Has no memory before the first: a connection that only waits must
    /// cost little, and a library's buffered writer takes its buffer when it is made.
    gathered: Vec<u8>,
    /// Read already, and not yet handed on.
    ahead: Vec<u8>,
    connection: Arc<Connection>,
}

impl Socket {
    /// `ahead` was read from it before.
    pub(super) fn new(stream: TcpStream, ahead: Vec<u8>, connection: Arc<Connection>) -> Self {
        Self { stream, gathered: Vec::new(), ahead, connection }
    }

    fn gather(&mut self, data: &[u8]) {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(MAX_GATHERED);
        }
        self.gathered.extend_from_slice(data);
    }

    /// Whether so many bytes more can be gathered.
    fn has_room(&self, bytes: usize) -> bool {
        self.gathered.len() + bytes <= MAX_GATHERED
    }

    fn poll_send_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => drop(self.gathered.drain(..n)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.connection.is_aborted() {
            // If it fails the kernel closes it in its own time.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stream.fmt(f)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..n]);
            self.ahead.drain(..n);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        // Whoever waits for the peer has said all there is to say for now: the head of an answer whose body
        // takes its time must not wait for that body.
        if read.is_pending()
            && let Poll::Ready(Err(error)) = self.poll_send_gathered(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.has_room(data.len()) {
            ready!(self.poll_send_gathered(cx))?;
        }
        if data.len() >= MAX_GATHERED {
            return Pin::new(&mut self.stream).poll_write(cx, data);
        }
        self.gather(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = parts.iter().map(|part| part.len()).sum();
        if !self.has_room(total) {
            ready!(self.poll_send_gathered(cx))?;
        }
        if total >= MAX_GATHERED {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        }
        parts.iter().for_each(|part| self.gather(part));
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_gathered(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_gathered(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        // A peer that is gone already is no event.
        let _ = self.stream.shutdown().await;
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl UniqueID for Socket {
    fn id(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl Ssl for Socket {}

impl Peek for Socket {}

impl GetTimingDigest for Socket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
