//! The stream between a connection and Pingora, watched while a head is read.

use std::fmt;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID,
};
use portcullis_model::MalformedKind;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Connection;

/// How long a failed head's connection is kept, so that its answer arrives.
const LINGER: Duration = Duration::from_secs(1);
/// What is read from it, and thrown away, in that time.
const MAX_LINGER_BYTES: usize = 1 << 20;

/// What a deadline was set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// A head may come, or not: nobody is to blame.
    Idle,
    /// A head has begun.
    Head,
}

pub(super) struct Guarded<S> {
    inner: S,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    timer: Pin<Box<Sleep>>,
    /// When what is watched for takes too long.
    due: Instant,
    watch: Option<Watch>,
    answer: Option<Answer>,
    /// When the connection is being closed: how many more bytes are read on it.
    closing: Option<usize>,
}

/// Bytes that go out in place of Pingora's.
struct Answer {
    bytes: Vec<u8>,
    written: usize,
}

impl<S> Guarded<S> {
    pub(super) fn new(inner: S, connection: Arc<Connection>) -> pingora::Result<Self> {
        // Pingora passes this digest on to each request: it is how the hooks find their connection.
        let response = Box::new(ResponseHeader::build(200, Some(0))?);
        let digest = Arc::new(ProxyDigest::new(response, Some(Box::new(Arc::clone(&connection)))));
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let due = Instant::now();
        Ok(Self { inner, connection, digest, timer, due, watch: None, answer: None, closing: None })
    }

    /// Closes the connection when the head takes too long. Ready means that it does.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wanted = if self.connection.head_has_begun() { Watch::Head } else { Watch::Idle };
        if self.watch != Some(wanted) {
            let bounds = self.connection.bounds();
            let span = match wanted {
                Watch::Idle if self.connection.requests() == 0 => bounds.head_timeout,
                Watch::Idle => bounds.keepalive_timeout,
                Watch::Head => bounds.head_timeout,
            };
            self.due = Instant::now() + span;
            self.watch = Some(wanted);
            if self.timer.is_elapsed() || self.timer.deadline() > self.due {
                self.timer.as_mut().reset(self.due);
            }
        }
        // A timer that is set anew for each request would cost more than the rest of the guard: it is left
        // as it is when it fires too early, and set again then.
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= self.due {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.due);
        }
    }

    /// What a head that will not be read to its end is answered with.
    fn owed_status(&self) -> Option<u16> {
        match self.connection.head_failure().filter(|_| self.connection.is_in_head())? {
            MalformedKind::HeadTooLarge => Some(431),
            MalformedKind::IncompleteHead if self.connection.head_has_begun() => Some(408),
            _ => None,
        }
    }

    fn answer_with(&mut self, status: u16) {
        if self.answer.is_none() {
            self.answer = Some(Answer { bytes: self.connection.failed_head_page(status), written: 0 });
        }
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads on for a while after the answer: closing a socket with unread bytes resets it, and the reset
    /// can overtake the answer.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [MaybeUninit::uninit(); 4_096];
        while self.closing.is_some_and(|left| left > 0) {
            let mut buf = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
            let read = buf.filled().len();
            if read == 0 {
                break;
            }
            self.closing = self.closing.map(|left| left.saturating_sub(read));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(answer) = &mut self.answer else { return Poll::Ready(Ok(())) };
        while answer.written < answer.bytes.len() {
            match Pin::new(&mut self.inner).poll_write(cx, &answer.bytes[answer.written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => answer.written += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The status of an answer that Pingora was about to send.
fn status_of(data: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(data.get(9..12)?).ok()?;
    data.starts_with(b"HTTP/1.").then(|| text.parse().ok())?
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.connection.is_in_head() {
            this.watch = None;
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                this.connection.head_failed(MalformedKind::IncompleteHead);
                return Poll::Ready(Err(error));
            }
            Poll::Pending => {
                return match this.poll_deadline(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        this.connection.head_failed(MalformedKind::IncompleteHead);
                        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                    }
                };
            }
        }
        let new = &buf.filled()[before..];
        if new.is_empty() {
            this.connection.head_failed(MalformedKind::IncompleteHead);
            return Poll::Ready(Ok(()));
        }
        // Judged by what came before these bytes, since a body may begin in them: Pingora had all of that
        // and found no end of the head. The hooks measure the heads that do end.
        if this.connection.head_bytes(new) > this.connection.bounds().max_head {
            this.connection.head_failed(MalformedKind::HeadTooLarge);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.connection.is_in_head() {
            return Pin::new(&mut self.inner).poll_write(cx, data);
        }
        if self.answer.is_none() {
            let status = status_of(data).unwrap_or(400);
            let max_headers = self.connection.bounds().max_headers;
            let (status, kind) = match status {
                405 => (405, MalformedKind::Method),
                // Pingora gives up on the 257th header without saying that this was the reason.
                400 if self.connection.head_lines() > max_headers => (431, MalformedKind::HeadTooLarge),
                other => (other, MalformedKind::BadRequest),
            };
            self.connection.head_failed(kind);
            self.answer_with(status);
        }
        self.poll_answer(cx).map_ok(|()| data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.connection.is_in_head() {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        }
        let first = parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Pingora says nothing to a head that it could not read to its end; the client is told here.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            if let Some(status) = this.owed_status() {
                this.answer_with(status);
            }
            this.timer.as_mut().reset(Instant::now() + LINGER);
            this.closing = Some(MAX_LINGER_BYTES);
        }
        if this.answer.is_none() {
            return Pin::new(&mut this.inner).poll_shutdown(cx);
        }
        if this.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(this.poll_answer(cx))?;
        ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        this.poll_linger(cx)
    }
}

#[async_trait]
impl<S: IO> Shutdown for Guarded<S> {
    async fn shutdown(&mut self) {
        // A peer that is gone already is no event.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl<S: UniqueID> UniqueID for Guarded<S> {
    fn id(&self) -> i32 {
        self.inner.id()
    }
}

impl<S: Ssl> Ssl for Guarded<S> {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl<S> Peek for Guarded<S> {}

impl<S: GetTimingDigest> GetTimingDigest for Guarded<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl<S> GetProxyDigest for Guarded<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl<S: GetSocketDigest> GetSocketDigest for Guarded<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl<S: fmt::Debug> fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
