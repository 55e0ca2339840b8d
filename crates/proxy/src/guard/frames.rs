//! The frames of an HTTP/2 connection on their way between the client and the library: metered, and cut off
//! when the client floods. Must not judge whether they are valid: that is the library's.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID,
};
use portcullis_model::MalformedKind;
use portcullis_wire::frames::{Meter, Preface, StallKind, error_name};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ruleset::Bounds;

use super::Connection;
use super::pace::{GRACE, Pace};
use super::watch::{Ending, millis};

/// The code of a GOAWAY for a client that does too much.
const ENHANCE_YOUR_CALM: u32 = 11;
/// How much of what the client sends first is kept for a record.
const FIRST_BYTES: usize = 64;

/// What is known of the frames of one connection.
pub(super) struct Metered {
    meter: Meter,
    first: Vec<u8>,
    /// Since when no stream has been open.
    quiet_since: Option<u64>,
}

impl Metered {
    pub(super) fn new(min_rate: u64, now_ms: u64) -> Self {
        let min_rate = u32::try_from(min_rate).unwrap_or(u32::MAX);
        Self { meter: Meter::new(min_rate, now_ms), first: Vec::new(), quiet_since: None }
    }

    /// Whether no stream is open.
    pub(super) fn is_quiet(&self) -> bool {
        self.meter.streams_open() == 0
    }

    /// Why the connection is to end, if it is.
    pub(super) fn ending(&mut self, now_ms: u64, bounds: &Bounds, is_closing: bool) -> Option<Ending> {
        let is_over = |since: u64, span| since.saturating_add(millis(span)) <= now_ms;
        if self.meter.unfinished_since().is_some_and(|since| is_over(since, bounds.head_timeout)) {
            return Some(Ending::Frames(MalformedKind::IncompleteHead));
        }
        if let Some(stall) = self.meter.stalled() {
            let (kind, span) = match stall.kind {
                StallKind::Upload => (MalformedKind::IncompleteBody, bounds.body_timeout),
                // Where a write waits for the window the stream's own timeout comes first, and ends it alone.
                StallKind::Read => (MalformedKind::SlowRead, bounds.body_timeout + GRACE),
            };
            if is_over(stall.since_ms, span) {
                return Some(Ending::Frames(kind));
            }
        }
        if !self.is_quiet() {
            self.quiet_since = None;
            return None;
        }
        let since = *self.quiet_since.get_or_insert(now_ms);
        (is_closing || is_over(since, bounds.keepalive_timeout)).then_some(Ending::Overdue)
    }

    /// Since when the client is waited for in the middle of a body.
    pub(super) fn stalled(&self) -> Option<u64> {
        self.meter.stalled().map(|stall| stall.since_ms)
    }

    /// How many streams are open.
    pub(super) fn streams(&self) -> usize {
        self.meter.streams_open()
    }

    /// Whether the client opened streams that are none of these requests.
    pub(super) fn has_unaccounted(&self, requests: u64) -> bool {
        self.meter.streams_opened() > requests
    }

    /// What is left to record of a connection that has ended, of which `requests` became requests: why, and the
    /// words for it.
    pub(super) fn lost(&self, requests: u64) -> Option<(MalformedKind, Vec<u8>)> {
        let meter = &self.meter;
        let goaway = meter.last_error().filter(|error| error.stream == 0).map(|error| error.code);
        let kind = match meter.preface() {
            Preface::Unfinished(0) => return None,
            Preface::Unfinished(_) => MalformedKind::IncompleteHead,
            Preface::Wrong => MalformedKind::Http2,
            // The library has bounds of its own.
            Preface::Complete if goaway == Some(ENHANCE_YOUR_CALM) => MalformedKind::Http2Flood,
            Preface::Complete if goaway.is_some() => MalformedKind::Http2,
            Preface::Complete if meter.unfinished_since().is_some() => MalformedKind::IncompleteHead,
            Preface::Complete if self.has_unaccounted(requests) => MalformedKind::Http2,
            Preface::Complete if requests == 0 => MalformedKind::IncompleteHead,
            Preface::Complete => return None,
        };
        Some((kind, self.words()))
    }

    /// What the client did, as far as frames tell.
    pub(super) fn words(&self) -> Vec<u8> {
        match (self.meter.preface(), self.meter.last_error()) {
            (Preface::Unfinished(_) | Preface::Wrong, _) => self.first.clone(),
            (Preface::Complete, Some(error)) => {
                let frame = if error.stream == 0 { "GOAWAY" } else { "RST_STREAM" };
                format!("HTTP/2 {frame} {}", error_name(error.code)).into_bytes()
            }
            (Preface::Complete, None) if self.meter.streams_opened() > 0 => {
                b"HTTP/2 without an answer".to_vec()
            }
            (Preface::Complete, None) => b"HTTP/2 without a request".to_vec(),
        }
    }
}

pub(super) struct Frames<S> {
    inner: S,
    connection: Arc<Connection>,
    send: Pace,
}

impl<S> Frames<S> {
    pub(super) fn new(inner: S, connection: &Arc<Connection>) -> Self {
        Self { inner, connection: Arc::clone(connection), send: Pace::new() }
    }

    fn metered(&self) -> Option<&Mutex<Metered>> {
        self.connection.frames.get().map(Box::as_ref)
    }

    /// Waits for the client, without whom nothing more can be sent.
    fn sent<T>(&mut self, cx: &Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let now = self.connection.edge.watch.now_ms();
        if sent.is_pending() {
            let (since, deadline) = self.send.wait(now, self.connection.pace_bounds());
            let mut watched = self.connection.watched.lock();
            watched.wake_with(cx);
            watched.stall(since, deadline);
        } else if self.send.is_waiting() {
            self.send.waited(now);
            self.connection.watched.lock().go_on();
        }
        sent
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.connection.ending().is_some() {
            // Only what is to be sent matters now.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        let (Poll::Ready(Ok(())), Some(metered)) = (&read, this.metered()) else { return read };
        let new = &buf.filled()[before..];
        let mut metered = metered.lock();
        let room = FIRST_BYTES.saturating_sub(metered.first.len());
        metered.first.extend_from_slice(&new[..new.len().min(room)]);
        if metered.meter.inbound(new, this.connection.edge.watch.now_ms()).is_ok() {
            return read;
        }
        drop(metered);
        buf.set_filled(before);
        let mut watched = this.connection.watched.lock();
        watched.wake_with(cx);
        watched.end(Ending::Frames(MalformedKind::Http2Flood));
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.inner).poll_write(cx, data);
        if let Poll::Ready(Ok(n)) = sent {
            self.send.moved(n);
            if let Some(metered) = self.metered() {
                metered.lock().meter.outbound(&data[..n], self.connection.edge.watch.now_ms());
            }
        }
        self.sent(cx, sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.inner).poll_flush(cx);
        self.sent(cx, sent)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: IO> Shutdown for Frames<S> {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl<S: UniqueID> UniqueID for Frames<S> {
    fn id(&self) -> i32 {
        self.inner.id()
    }
}

impl<S: Ssl> Ssl for Frames<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl<S> Peek for Frames<S> {}

impl<S> GetTimingDigest for Frames<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for Frames<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S> GetSocketDigest for Frames<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl<S: fmt::Debug> fmt::Debug for Frames<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
