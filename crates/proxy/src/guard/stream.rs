//! HTTP/1 on one connection: the guard reads each head itself, hands on exactly one request at a time, and
//! watches how fast its body and its answer move.
//!
//! Pingora reads and writes through [`Lent`]. It sees no byte of a head that is not complete and unambiguous,
//! and none behind the end of a request.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID,
};
use portcullis_model::MalformedKind;
use portcullis_wire::{Chunks, Framing, Head, HeadLimits, scan};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::Connection;
use super::connection::Failure;
use super::pace::{Pace, PaceBounds};
use super::watch::Ending;

/// What is read at once of a head, and of bytes that nobody waits for.
const READ_BYTES: usize = 4_096;
/// How long a connection with unread bytes is kept after its last answer: closing it at once resets it, and
/// the reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
/// What is read from it, and thrown away, in that time.
const MAX_LINGER_BYTES: usize = 1 << 20;

/// Of a request with a body the guard waits for so many bytes, the head included, before anybody is asked to serve
/// it: most are no longer, and one that drips costs little here.
const BODY_BEGINNING: usize = 8 << 10;
/// How long it waits for that. The site of a client that streams gets the rest as it comes.
const BEGINNING_TIME: Duration = Duration::from_secs(1);

/// What comes next on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A request, ready to be read by Pingora.
    Request,
    /// The end, and nobody is to blame.
    Closed,
    /// Bytes that are no request: the status of the answer (0 is none), and why.
    Refused(u16, MalformedKind),
}

/// How much of a body is still to come.
#[derive(Debug)]
enum Body {
    Length(u64),
    Chunked(Chunks),
}

impl Body {
    fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
        }
    }

    /// How many of these bytes belong to the body; `None` when they break the protocol.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Length(left) => {
                let taken = (*left).min(bytes.len() as u64);
                *left -= taken;
                usize::try_from(taken).ok()
            }
            Self::Chunked(chunks) => chunks.advance(bytes).ok().map(|advance| advance.consumed),
        }
    }
}

/// An HTTP/1 connection.
pub(super) struct Guarded<S> {
    inner: S,
    connection: Arc<Connection>,
    /// Made with the first request: how the hooks find their connection.
    digest: Option<Arc<ProxyDigest>>,
    /// Bytes that were read; those before `start` have been handed on.
    buffer: Vec<u8>,
    start: usize,
    /// How many of the buffer belong to the request that is served.
    ready: usize,
    /// How many of the head's bytes have been looked at.
    scanned: usize,
    head_began: Instant,
    limits: HeadLimits,
    body: Body,
    /// The client waits for "100 Continue" before it sends its body.
    awaits_continue: bool,
    /// Until when the beginning of a body is waited for, in milliseconds of the watch.
    begins_until: Option<u64>,
    receive: Pace,
    send: Pace,
    pace: PaceBounds,
    /// The status with which Pingora wanted to refuse what the guard had let through.
    refused: Option<u16>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    pub(super) fn new(inner: S, connection: Arc<Connection>) -> Self {
        Self {
            inner,
            head_began: connection.opened,
            pace: connection.pace_bounds(),
            connection,
            digest: None,
            buffer: Vec::new(),
            start: 0,
            ready: 0,
            scanned: 0,
            limits: HeadLimits { max_bytes: 0, max_headers: 0, max_target: 0, escaped_slashes: false },
            body: Body::Length(0),
            awaits_continue: false,
            begins_until: None,
            receive: Pace::new(),
            send: Pace::new(),
            refused: None,
        }
    }

    /// The next bytes are a head's.
    pub(super) fn expect_head(&mut self) {
        let bounds = self.connection.bounds();
        self.limits = HeadLimits {
            max_bytes: bounds.max_head,
            max_headers: bounds.max_headers,
            max_target: bounds.max_uri,
            escaped_slashes: bounds.escaped_slashes,
        };
        self.pace = PaceBounds { min_rate: bounds.min_rate, pause: bounds.body_timeout };
        self.forget_read();
        self.scanned = 0;
        // With the first byte, which may have come already.
        if !self.buffer.is_empty() {
            self.head_began = Instant::now();
        }
        let watch = &self.connection.edge.watch;
        let mut watched = self.connection.watched.lock();
        watched.rest();
        match self.connection.requests() {
            _ if !self.buffer.is_empty() => watched.until(watch.after(bounds.head_timeout)),
            0 => watched.idle(watch.after(bounds.head_timeout)),
            _ => watched.idle(watch.after(bounds.keepalive_timeout)),
        }
    }

    /// Gives back the memory of what was handed on.
    fn forget_read(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer = Vec::new();
        } else if self.start > 0 {
            self.buffer.drain(..self.start);
        }
        self.start = 0;
    }

    /// Whether nothing has come of the next head.
    pub(super) fn is_idle(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The bytes of a head that is no request, as far as they came.
    pub(super) fn head_bytes(&self) -> &[u8] {
        &self.buffer
    }

    pub(super) fn head_began(&self) -> Instant {
        self.head_began
    }

    /// The status with which Pingora wanted to refuse what the guard had let through.
    pub(super) fn refused(&self) -> u16 {
        self.refused.unwrap_or(400)
    }

    /// Reads until there is a request.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(until) = self.begins_until {
            return self.poll_beginning(cx, until);
        }
        loop {
            if self.buffer.len() > self.scanned {
                match scan(&self.buffer, self.scanned, &self.limits) {
                    Ok(Some(head)) => {
                        return match self.judge(&head) {
                            Next::Request => self.await_beginning(cx),
                            other => Poll::Ready(other),
                        };
                    }
                    Ok(None) if self.scanned == 0 => self.bound_head(),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Next::Refused(error.status(), error.kind())),
                }
                self.scanned = self.buffer.len();
            }
            let before = self.buffer.len();
            match self.poll_fill(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    if before == 0 {
                        self.head_began = Instant::now();
                    }
                }
                // The end, or a reset.
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(self.given_up(0)),
                Poll::Pending => {
                    let mut watched = self.connection.watched.lock();
                    if watched.ending().is_none() {
                        watched.wake_with(cx);
                        return Poll::Pending;
                    }
                    drop(watched);
                    return Poll::Ready(self.given_up(408));
                }
            }
        }
    }

    /// The rest of a head that has begun has to come in time.
    fn bound_head(&self) {
        let deadline = self.connection.edge.watch.after(self.connection.bounds().head_timeout);
        self.connection.watched.lock().until(deadline);
    }

    fn given_up(&self, status: u16) -> Next {
        match self.is_idle() {
            true => Next::Closed,
            false => Next::Refused(status, MalformedKind::IncompleteHead),
        }
    }

    /// Reads more into the buffer; 0 at the end of the connection.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // By way of the stack: a connection that waits for bytes holds no memory for them.
        let mut scratch = [MaybeUninit::uninit(); READ_BYTES];
        let mut buf = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
        self.buffer.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// A complete head: what of its body has come is judged before anybody sees a byte.
    fn judge(&mut self, head: &Head) -> Next {
        let behind = &self.buffer[head.len..];
        self.body = match head.framing {
            Framing::None => Body::Length(0),
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunks::new()),
        };
        let Some(taken) = self.body.take(behind) else {
            return Next::Refused(400, MalformedKind::Framing);
        };
        self.ready = head.len + taken;
        self.awaits_continue = head.expects_continue && taken == 0;
        (self.receive, self.send) = (Pace::new(), Pace::new());
        self.receive.moved(taken);
        self.refused = None;
        self.connection.hand_over(self.head_began, self.ready < self.buffer.len(), head.upgrade);
        Next::Request
    }

    /// Waits for the beginning of a body, unless the client waits for us.
    fn await_beginning(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.has_begun() || self.awaits_continue {
            return Poll::Ready(Next::Request);
        }
        let until = self.connection.edge.watch.after(BEGINNING_TIME);
        self.begins_until = Some(until);
        self.connection.watched.lock().wake_at(until);
        self.poll_beginning(cx, until)
    }

    /// Whether the body is there, or enough of it.
    fn has_begun(&self) -> bool {
        self.body.is_done() || self.ready >= BODY_BEGINNING
    }

    /// Whatever the end of the waiting is, the request is handed over: the hooks find out what became of it.
    fn poll_beginning(&mut self, cx: &mut Context<'_>, until: u64) -> Poll<Next> {
        while !self.has_begun() && self.connection.edge.watch.now_ms() < until {
            let before = self.buffer.len();
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(_) | Err(_)) => break,
                Poll::Pending => match self.poll_client::<()>(cx, Direction::Receive) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(_) => break,
                },
            }
            self.client_moved(Direction::Receive);
            let new = self.buffer.len() - before;
            self.receive.moved(new);
            let Some(taken) = self.body.take(&self.buffer[before..]) else {
                return Poll::Ready(Next::Refused(400, MalformedKind::Framing));
            };
            self.ready += taken;
            if taken < new {
                self.connection.leave_over();
            }
        }
        self.begins_until = None;
        self.connection.watched.lock().rest();
        Poll::Ready(Next::Request)
    }

    /// What Pingora reads: the request and nothing else.
    fn poll_request(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ready > 0 {
            let n = self.ready.min(buf.remaining());
            buf.put_slice(&self.buffer[self.start..self.start + n]);
            self.start += n;
            self.ready -= n;
            return Poll::Ready(Ok(()));
        }
        // Kept until now for the record, in case that Pingora did not take it for a request.
        self.forget_read();
        if self.connection.is_upgraded() {
            return self.poll_upgraded(cx, buf);
        }
        if self.body.is_done() { self.poll_behind(cx) } else { self.poll_body(cx, buf) }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(read) => {
                self.client_moved(Direction::Receive);
                read?;
            }
            Poll::Pending => return self.poll_client(cx, Direction::Receive),
        }
        let new = &buf.filled()[before..];
        self.receive.moved(new.len());
        let Some(taken) = self.body.take(new) else {
            self.connection.fail(Failure::Framing);
            buf.set_filled(before);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        if taken < new.len() {
            self.buffer.extend_from_slice(&new[taken..]);
            buf.set_filled(before + taken);
            self.connection.leave_over();
        }
        Poll::Ready(Ok(()))
    }

    /// Pingora reads on to see a client go away; it must not see what comes behind the request.
    fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.buffer.is_empty() {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => self.connection.leave_over(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        self.poll_served(cx)
    }

    fn poll_upgraded(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() {
            let n = buf.remaining().min(self.buffer.len());
            buf.put_slice(&self.buffer[..n]);
            self.start = n;
            self.forget_read();
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending => self.poll_served(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }

    /// Waits without a deadline, for as long as the client may be served.
    fn poll_served<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let mut watched = self.connection.watched.lock();
        match watched.ending() {
            None => {
                watched.wake_with(cx);
                Poll::Pending
            }
            Some(ending) => {
                drop(watched);
                Poll::Ready(Err(self.end(ending, Failure::SlowRead)))
            }
        }
    }

    /// Waits for the client in the middle of a body, or of what a WebSocket sends.
    fn poll_client<T>(&mut self, cx: &mut Context<'_>, direction: Direction) -> Poll<io::Result<T>> {
        if self.awaits_continue && direction == Direction::Receive {
            return self.poll_served(cx);
        }
        let now = self.connection.edge.watch.now_ms();
        let (pace, overdue) = match direction {
            Direction::Receive => (&mut self.receive, Failure::SlowBody),
            Direction::Send => (&mut self.send, Failure::SlowRead),
        };
        // A WebSocket has no least rate, and may be silent; but who takes nothing of what is there must not
        // keep it in memory.
        let min_rate = if self.connection.is_upgraded() { 0 } else { self.pace.min_rate };
        let (since, deadline) = pace.wait(now, PaceBounds { min_rate, ..self.pace });
        let mut watched = self.connection.watched.lock();
        if let Some(ending) = watched.ending() {
            drop(watched);
            if direction == Direction::Send {
                self.connection.abort();
            }
            return Poll::Ready(Err(self.end(ending, overdue)));
        }
        watched.wake_with(cx);
        watched.stall(since, deadline);
        Poll::Pending
    }

    /// The client does not make us wait any more.
    fn client_moved(&mut self, direction: Direction) {
        let pace = match direction {
            Direction::Receive => &mut self.receive,
            Direction::Send => &mut self.send,
        };
        if pace.is_waiting() {
            pace.waited(self.connection.edge.watch.now_ms());
            self.connection.watched.lock().go_on();
        }
        self.awaits_continue = false;
    }

    fn end(&self, ending: Ending, overdue: Failure) -> io::Error {
        self.connection.fail(match ending {
            Ending::Overdue => overdue,
            Ending::Stalled => Failure::Stalled,
            // Of HTTP/2 alone.
            Ending::Frames(_) => overdue,
            Ending::Blocked(id) => Failure::Blocked(id),
        });
        io::ErrorKind::TimedOut.into()
    }

    fn poll_sent<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match sent {
            Poll::Pending => self.poll_client(cx, Direction::Send),
            ready @ Poll::Ready(_) => {
                self.client_moved(Direction::Send);
                ready
            }
        }
    }

    /// Sends what is unsent, closes, and lets the last answer arrive when the client has sent more than was
    /// read. Bounded in time by the watch.
    pub(super) async fn close(guarded: &Mutex<Self>, answer: &[u8], has_unread: bool) {
        let mut left = MAX_LINGER_BYTES;
        let mut written = 0;
        {
            let mut guarded = guarded.lock();
            let has_unread = has_unread || !guarded.body.is_done() || guarded.connection.must_close();
            if !has_unread {
                left = 0;
            }
            if guarded.connection.is_aborted() {
                return;
            }
            let mut watched = guarded.connection.watched.lock();
            watched.begin_anew();
            watched.until(guarded.connection.edge.watch.after(LINGER));
            drop(watched);
            guarded.buffer = Vec::new();
        }
        // Whatever fails here has no listener any more.
        std::future::poll_fn(|cx| guarded.lock().poll_close(cx, answer, &mut written, &mut left)).await;
    }

    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        answer: &[u8],
        written: &mut usize,
        left: &mut usize,
    ) -> Poll<()> {
        let mut go_on = || -> Poll<io::Result<()>> {
            while *written < answer.len() {
                match ready!(Pin::new(&mut self.inner).poll_write(cx, &answer[*written..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => *written += n,
                }
            }
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            let mut scratch = [MaybeUninit::uninit(); READ_BYTES];
            while *left > 0 {
                let mut buf = ReadBuf::uninit(&mut scratch);
                ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
                match buf.filled().len() {
                    0 => break,
                    n => *left = left.saturating_sub(n),
                }
            }
            Poll::Ready(Ok(()))
        };
        if go_on().is_ready() {
            return Poll::Ready(());
        }
        let mut watched = self.connection.watched.lock();
        if watched.ending().is_some() {
            return Poll::Ready(());
        }
        watched.wake_with(cx);
        Poll::Pending
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Receive,
    Send,
}

impl<S: Ssl> Guarded<S> {
    /// What Pingora serves one request on. Taken anew for each.
    pub(super) fn lend(guarded: &Arc<Mutex<Self>>) -> pingora::Result<Lent<S>> {
        let mut this = guarded.lock();
        let digest = match &this.digest {
            Some(digest) => Arc::clone(digest),
            None => {
                let digest = connection_digest(&this.connection)?;
                Arc::clone(this.digest.insert(digest))
            }
        };
        Ok(Lent { digest, tls: this.inner.get_ssl_digest(), guarded: Arc::clone(guarded) })
    }
}

/// Pingora passes this on to each request: it is how the hooks find their connection.
pub(super) fn connection_digest(connection: &Arc<Connection>) -> pingora::Result<Arc<ProxyDigest>> {
    let response = Box::new(ResponseHeader::build(200, Some(0))?);
    Ok(Arc::new(ProxyDigest::new(response, Some(Box::new(Arc::clone(connection))))))
}

/// The status of an answer that Pingora was about to send.
fn status_of(data: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(data.get(9..12)?).ok()?;
    data.starts_with(b"HTTP/1.").then(|| text.parse().ok())?
}

/// A guarded connection in the hands of Pingora, for one request.
pub(super) struct Lent<S> {
    guarded: Arc<Mutex<Guarded<S>>>,
    digest: Arc<ProxyDigest>,
    tls: Option<Arc<SslDigest>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Lent<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.guarded.lock().poll_request(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lent<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut guarded = self.guarded.lock();
        if !guarded.connection.has_begun() {
            // Pingora refuses on its own, without a record: the guard will answer in its place.
            guarded.refused.get_or_insert(status_of(data).unwrap_or(400));
            return Poll::Ready(Ok(data.len()));
        }
        let sent = Pin::new(&mut guarded.inner).poll_write(cx, data);
        if let Poll::Ready(Ok(n)) = sent {
            guarded.send.moved(n);
        }
        guarded.poll_sent(cx, sent)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guarded = self.guarded.lock();
        let sent = Pin::new(&mut guarded.inner).poll_flush(cx);
        guarded.poll_sent(cx, sent)
    }

    /// The guard closes the connection, when it has seen what is left to do on it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[async_trait]
impl<S: IO> Shutdown for Lent<S> {
    async fn shutdown(&mut self) {
        // A peer that is gone already is no event.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl<S: UniqueID> UniqueID for Lent<S> {
    fn id(&self) -> i32 {
        self.guarded.lock().inner.id()
    }
}

impl<S> Ssl for Lent<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.tls.clone()
    }
}

impl<S> Peek for Lent<S> {}

impl<S> GetTimingDigest for Lent<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for Lent<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl<S> GetSocketDigest for Lent<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl<S: fmt::Debug> fmt::Debug for Lent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.guarded.lock().inner.fmt(f)
    }
}
