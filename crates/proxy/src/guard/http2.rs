//! HTTP/2 on one connection: accepts its streams, ends it when it has to end, and leaves a record of what never
//! became a request.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use h2::Reason as Code;
use parking_lot::Mutex;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, HttpSession, handshake};
use pingora::protocols::{Digest, IO};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use portcullis_model::{ConnectionLimit, MalformedKind, Reason, VerdictKind};
use tokio::time::{sleep, timeout};

use crate::hooks::Hooks;

use super::Connection;
use super::connection::{Failure, Lost};
use super::frames::{Frames, Metered};
use super::stream::connection_digest;
use super::watch::Ending;

/// How long the last frames of a connection that has to end may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often to look whether an accepted stream has become a request.
const BECOMING_PAUSE: Duration = Duration::from_millis(5);
/// Streams of one connection that may be refused before it ends.
const MAX_REJECTED: usize = 32;

/// Counts a stream's request until it is dropped, by a panic too.
struct Serving(Arc<AtomicUsize>);

impl Serving {
    fn one(of: &Arc<AtomicUsize>) -> Self {
        of.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(of))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves the streams until the connection ends.
pub(super) async fn serve<S: IO + 'static>(
    stream: S,
    connection: &Arc<Connection>,
    proxy: &Arc<HttpProxy<Hooks>>,
    shutdown: ShutdownWatch,
) {
    let proxy_digest = match connection_digest(connection) {
        Ok(digest) => Some(digest),
        Err(error) => return tracing::error!("cannot serve a connection: {error}"),
    };
    let digest = Digest { ssl_digest: stream.get_ssl_digest(), proxy_digest, ..Digest::default() };
    let now = connection.edge.watch.now_ms();
    let metered = Metered::new(connection.bounds().min_rate, now);
    let metered = connection.frames.get_or_init(|| Box::new(Mutex::new(metered)));
    let active = Arc::new(AtomicUsize::new(0));
    let stream = Frames::new(stream, connection);
    accept(stream, connection, Arc::new(digest), proxy, &active, shutdown).await;
    // A stream that was accepted last may be about to become a request, with a row of its own.
    let becoming = async {
        while active.load(Ordering::Relaxed) > 0 && metered.lock().has_unaccounted(connection.requests()) {
            sleep(BECOMING_PAUSE).await;
        }
    };
    // Late or not, there will be a row.
    let _ = timeout(FAREWELL, becoming).await;
    let is_serving = active.load(Ordering::Relaxed) > 0;
    record(connection, &metered.lock(), is_serving);
}

async fn accept<S: IO + 'static>(
    stream: Frames<S>,
    connection: &Arc<Connection>,
    digest: Arc<Digest>,
    proxy: &Arc<HttpProxy<Hooks>>,
    active: &Arc<AtomicUsize>,
    mut shutdown: ShutdownWatch,
) {
    let mut streams = tokio::select! {
        biased;
        _ = ended(connection) => return connection.abort(),
        streams = handshake(Box::new(stream), proxy.h2_options()) => match streams {
            Ok(streams) => streams,
            Err(_) => return,
        },
    };
    let mut is_retiring = false;
    let mut rejected = 0;
    let farewell = loop {
        if !is_retiring && *shutdown.borrow() {
            streams.graceful_shutdown();
            is_retiring = true;
        }
        let accepted = tokio::select! {
            biased;
            ending = ended(connection) => break farewell(connection, ending),
            _ = shutdown.changed(), if !is_retiring => continue,
            accepted = HttpSession::from_h2_conn(&mut streams, Arc::clone(&digest)) => accepted,
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                let (proxy, shutdown) = (Arc::clone(proxy), shutdown.clone());
                let serving = Serving::one(active);
                tokio::spawn(async move {
                    proxy.process_new_http(ServerSession::new_http2(session), &shutdown).await;
                    drop(serving);
                });
            }
            Ok(Some(H2Accept::Rejected)) => {
                rejected += 1;
                if rejected > MAX_REJECTED {
                    break Code::PROTOCOL_ERROR;
                }
            }
            Ok(None) | Err(_) => return,
        }
    };
    streams.abrupt_shutdown(farewell);
    let last = async {
        while let Ok(Some(_)) = HttpSession::from_h2_conn(&mut streams, Arc::clone(&digest)).await {}
    };
    if timeout(FAREWELL, last).await.is_err() {
        connection.abort();
    }
}

/// Waits until the connection has to end.
async fn ended(connection: &Connection) -> Ending {
    poll_fn(|cx| {
        let mut watched = connection.watched.lock();
        match watched.ending() {
            Some(ending) => Poll::Ready(ending),
            None => {
                watched.wake_with(cx);
                Poll::Pending
            }
        }
    })
    .await
}

/// What the client is told, and the requests that are under way.
fn farewell(connection: &Connection, ending: Ending) -> Code {
    let failure = match ending {
        Ending::Overdue if connection.frames.get().is_some_and(|frames| frames.lock().is_quiet()) => {
            return Code::NO_ERROR;
        }
        Ending::Overdue | Ending::Frames(MalformedKind::SlowRead) => Failure::SlowRead,
        Ending::Frames(MalformedKind::IncompleteBody) => Failure::SlowBody,
        Ending::Frames(_) => return Code::ENHANCE_YOUR_CALM,
        Ending::Stalled => Failure::Stalled,
        Ending::Blocked(block) => Failure::Blocked(block),
    };
    connection.fail(failure);
    Code::ENHANCE_YOUR_CALM
}

/// Leaves a row, unless all that the connection was has rows of its own.
fn record(connection: &Connection, metered: &Metered, is_serving: bool) {
    match connection.ending() {
        Some(Ending::Frames(kind @ (MalformedKind::Http2Flood | MalformedKind::IncompleteHead))) => {
            connection.record_malformed(kind, None, &metered.words(), connection.opened);
        }
        // The rows of the requests that it ended say why.
        Some(Ending::Frames(_) | Ending::Stalled | Ending::Blocked(_)) if is_serving => {}
        Some(Ending::Frames(kind)) => {
            connection.record_malformed(kind, None, &metered.words(), connection.opened);
        }
        Some(Ending::Stalled) => connection.record(Lost {
            verdict: VerdictKind::Limited,
            reason: Reason::Connections(ConnectionLimit::Stalled),
            answered: None,
            bytes: &metered.words(),
            began: connection.opened,
        }),
        Some(Ending::Overdue | Ending::Blocked(_)) | None => {
            if let Some((kind, words)) = metered.lost(connection.requests()) {
                connection.record_malformed(kind, None, &words, connection.opened);
            }
        }
    }
}
