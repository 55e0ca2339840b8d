//! What is known of one connection: shared by its guard, the watch over all of them, and the requests on it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use portcullis_model::{
    ClientIp, ConnectionLimit, Identity, MalformedKind, Protocol, Reason, RecordText, RequestId,
    RequestRecord, TextFields, VerdictKind,
};

use crate::edge::{Edge, Seen};
use crate::pages::{SPEAK_HTTPS, message};
use crate::respond::raw_refusal;
use crate::ruleset::Bounds;
use crate::tls::ClientCertificate;

use super::first_bytes::{split_target, told_by};
use super::frames::Metered;
use super::lobby::{Progress, Seat};
use super::pace::PaceBounds;
use super::watch::{Ending, Watched};

pub(crate) struct Connection {
    /// The socket's peer, or the client that a PROXY header names.
    pub(crate) peer: ClientIp,
    pub(crate) is_tls: bool,
    /// What the client has proved in the handshake.
    pub(crate) certificate: OnceLock<ClientCertificate>,
    pub(crate) edge: Arc<Edge>,
    pub(super) opened: Instant,
    pub(super) watched: Mutex<Watched>,
    /// Requests that were handed to the hooks.
    requests: AtomicU64,
    has_taken_an_answer: AtomicBool,
    head_began: Mutex<Option<Instant>>,
    failure: Mutex<Option<Failure>>,
    flags: Flags,
    /// Of HTTP/2; boxed, so that HTTP/1 connections do not carry its room.
    pub(super) frames: OnceLock<Box<Mutex<Metered>>>,
}

/// Of the request that is served now, on HTTP/1.
#[derive(Default)]
struct Flags {
    /// The hooks know of it.
    has_begun: AtomicBool,
    /// The site has been asked.
    is_asked: AtomicBool,
    /// Its answer has begun.
    is_answered: AtomicBool,
    /// Bytes came behind it before it was answered.
    has_leftover: AtomicBool,
    /// It asked for a WebSocket, in due form.
    asks_for_websocket: AtomicBool,
    /// It has become a WebSocket.
    is_upgraded: AtomicBool,
    /// The socket is to be closed without waiting for what is unsent.
    is_aborted: AtomicBool,
}

impl Flags {
    fn get(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }

    fn set(flag: &AtomicBool, value: bool) {
        flag.store(value, Ordering::Relaxed);
    }
}

/// Why the guard ended a request that was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The chunks of the body break the protocol.
    Framing,
    /// The body did not come, or too slowly.
    SlowBody,
    /// The answer was not taken, or too slowly.
    SlowRead,
    /// Too many connections waited for their clients.
    Stalled,
    /// There was no seat while too many newcomers made the gateway wait.
    Crowded,
    /// The client was blocked meanwhile, by the block with this ID.
    Blocked(i64),
}

impl Failure {
    /// The status of the answer if none has begun, 0 for none, and what the record says.
    pub(crate) fn outcome(self) -> (u16, VerdictKind, Reason) {
        let malformed = |status, kind| (status, VerdictKind::Malformed, Reason::Malformed(kind));
        match self {
            Self::Framing => malformed(400, MalformedKind::Framing),
            Self::SlowBody => malformed(408, MalformedKind::IncompleteBody),
            Self::SlowRead => malformed(0, MalformedKind::SlowRead),
            Self::Stalled => (503, VerdictKind::Limited, Reason::Connections(ConnectionLimit::Stalled)),
            Self::Crowded => (503, VerdictKind::Limited, Reason::Connections(ConnectionLimit::Crowded)),
            Self::Blocked(id) => (403, VerdictKind::Blocked, Reason::Block(id)),
        }
    }
}

/// Something that never became a request.
pub(super) struct Lost<'a> {
    pub(super) verdict: VerdictKind,
    pub(super) reason: Reason,
    /// The answer's ID and status, if there was one.
    pub(super) answered: Option<(RequestId, u16)>,
    /// What the client sent, as far as it was kept.
    pub(super) bytes: &'a [u8],
    pub(super) began: Instant,
}

impl Connection {
    pub(super) fn new(edge: Arc<Edge>, peer: SocketAddr, is_tls: bool) -> Self {
        Self {
            peer: ClientIp::new(peer.ip()),
            is_tls,
            certificate: OnceLock::new(),
            edge,
            opened: Instant::now(),
            watched: Mutex::default(),
            requests: AtomicU64::new(0),
            has_taken_an_answer: AtomicBool::new(false),
            head_began: Mutex::default(),
            failure: Mutex::default(),
            flags: Flags::default(),
            frames: OnceLock::new(),
        }
    }

    /// The guard hands over an HTTP/1 request.
    pub(super) fn hand_over(&self, head_began: Instant, has_leftover: bool, asks_for_websocket: bool) {
        *self.head_began.lock() = Some(head_began);
        Flags::set(&self.flags.has_begun, false);
        Flags::set(&self.flags.is_asked, false);
        Flags::set(&self.flags.is_answered, false);
        Flags::set(&self.flags.has_leftover, has_leftover);
        Flags::set(&self.flags.asks_for_websocket, asks_for_websocket);
        self.watched.lock().rest();
    }

    /// Called by the hooks as soon as there is a request. Returns when its first byte came, for HTTP/1.
    pub(crate) fn request_began(&self, client: ClientIp) -> Option<Instant> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Flags::set(&self.flags.has_begun, true);
        // Streams of one connection may be those of many clients of a proxy.
        if self.frames.get().is_none() || client == self.peer {
            self.watched.lock().serve(self.edge.watch.now_ms(), client);
        }
        self.head_began.lock().take()
    }

    /// Called by the hooks when they know who the client's request is from.
    pub(crate) fn identified(&self, client: ClientIp, identity: &Arc<Identity>) {
        self.watched.lock().identify(client, identity);
    }

    /// Called by the hooks when the request has been written to a server.
    pub(crate) fn site_is_asked(&self) {
        Flags::set(&self.flags.is_asked, true);
    }

    /// Called by the watch. Whether the connection's seat has lapsed.
    pub(super) fn gives_back_its_seat(&self, is_stalled: bool, now_ms: u64, is_late: bool) -> bool {
        let progress = match is_stalled {
            true => Progress::Stalled,
            false if Flags::get(&self.flags.is_asked) && !Flags::get(&self.flags.is_answered) => {
                Progress::Asking
            }
            false => Progress::Served,
        };
        let mut watched = self.watched.lock();
        let lapses = watched.seat.lapses(progress, now_ms, is_late);
        if lapses {
            watched.seat = Seat::None;
        }
        lapses
    }

    /// Called by the hooks right before the head of an answer is sent.
    pub(crate) fn answer_begins(&self) {
        Flags::set(&self.flags.is_answered, true);
    }

    /// Called by the hooks when the upstream has agreed to a WebSocket.
    pub(crate) fn upgrade(&self) {
        Flags::set(&self.flags.is_upgraded, true);
    }

    /// Whether the connection has to close after this answer: what came behind the request is not trusted.
    pub(crate) fn must_close(&self) -> bool {
        Flags::get(&self.flags.has_leftover)
    }

    /// Whether the HTTP/1 request that is served now asked for a WebSocket in due form.
    pub(crate) fn asks_for_websocket(&self) -> bool {
        Flags::get(&self.flags.asks_for_websocket)
    }

    /// Why the guard ended the request, if it did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        *self.failure.lock()
    }

    /// Whether an answer on this connection was taken to its end.
    pub(crate) fn has_taken_an_answer(&self) -> bool {
        self.has_taken_an_answer.load(Ordering::Relaxed)
    }

    /// Called by the hooks when an answer has been taken to its end.
    pub(crate) fn answer_was_taken(&self) {
        if !self.has_taken_an_answer() && !self.has_taken_an_answer.swap(true, Ordering::Relaxed) {
            self.edge.lobby.leave(self);
        }
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn has_begun(&self) -> bool {
        Flags::get(&self.flags.has_begun)
    }

    pub(super) fn is_upgraded(&self) -> bool {
        Flags::get(&self.flags.is_upgraded)
    }

    /// Bytes came behind a request. Those that follow an answer are the next request's.
    pub(super) fn leave_over(&self) {
        if !Flags::get(&self.flags.is_answered) {
            Flags::set(&self.flags.has_leftover, true);
        }
    }

    /// The first reason stays.
    pub(super) fn fail(&self, failure: Failure) {
        self.failure.lock().get_or_insert(failure);
    }

    /// The socket will be reset: a client that takes nothing would keep what is unsent in memory.
    pub(super) fn abort(&self) {
        Flags::set(&self.flags.is_aborted, true);
    }

    pub(super) fn is_aborted(&self) -> bool {
        Flags::get(&self.flags.is_aborted)
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        self.watched.lock().ending()
    }

    /// Called by the watch. Ends the connection if its frames say so; else says since when they wait for the
    /// client, if they do, and how many bodies the connection may hold.
    pub(super) fn look_at_frames(
        &self,
        now_ms: u64,
        bounds: &Bounds,
        is_closing: bool,
    ) -> (Option<u64>, usize) {
        let Some(frames) = self.frames.get() else { return (None, 1) };
        let mut frames = frames.lock();
        let ending = frames.ending(now_ms, bounds, is_closing);
        let (stalled, is_quiet) = ((frames.stalled(), frames.streams()), frames.is_quiet());
        drop(frames);
        let mut watched = self.watched.lock();
        if let Some(ending) = ending {
            watched.end(ending);
            return (None, 0);
        }
        if is_quiet {
            watched.serve_nobody();
        }
        stalled
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.edge.rules.load().bounds
    }

    pub(super) fn pace_bounds(&self) -> PaceBounds {
        let bounds = self.bounds();
        PaceBounds { min_rate: bounds.min_rate, pause: bounds.body_timeout }
    }

    /// The ID under which something that is no request will be recorded, and the whole answer to it.
    pub(super) fn refusal(&self, status: u16, began: Instant) -> (RequestId, Vec<u8>) {
        let id = self.request_id(began);
        (id, raw_refusal(&self.edge.rules.load(), self.is_tls, message(status), id))
    }

    /// The same for plain HTTP on a port for TLS.
    pub(super) fn plaintext_refusal(&self) -> (RequestId, Vec<u8>) {
        let id = self.request_id(self.opened);
        (id, raw_refusal(&self.edge.rules.load(), false, SPEAK_HTTPS, id))
    }

    pub(super) fn request_id(&self, began: Instant) -> RequestId {
        RequestId::new(self.edge.clock.at(began).wall, fastrand::u32(..))
    }

    /// Leaves a row for something that never became a request.
    pub(super) fn record(&self, lost: Lost<'_>) {
        let (id, status) = lost.answered.unwrap_or_else(|| (self.request_id(lost.began), 0));
        let told = told_by(lost.bytes);
        let (path, query) = split_target(&told.target);
        let record = RequestRecord {
            id,
            client: self.peer,
            protocol: if self.frames.get().is_some() { Protocol::Http2 } else { Protocol::Unknown },
            status,
            bytes_in: 0,
            bytes_out: 0,
            latency_us: u64::try_from(lost.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            verdict: lost.verdict,
            reason: lost.reason,
            login: None,
            text: RecordText::new(TextFields { method: told.method, path, query, ..TextFields::default() }),
        };
        self.edge.observe(&Seen {
            id: record.id,
            client: record.client,
            status: record.status,
            bytes_out: 0,
            verdict: record.verdict,
            login: None,
            text: &record.text,
            asks_for_privacy: false,
        });
        self.edge.finish(record);
    }

    /// Leaves a row for a connection that found no seat before its handshake.
    pub(super) fn record_crowded(&self) {
        let reason = Reason::Connections(ConnectionLimit::Crowded);
        self.record(Lost {
            verdict: VerdictKind::Limited,
            reason,
            answered: None,
            bytes: &[],
            began: self.opened,
        });
    }

    /// Leaves a row for bytes that were no request.
    pub(super) fn record_malformed(
        &self,
        kind: MalformedKind,
        answered: Option<(RequestId, u16)>,
        bytes: &[u8],
        began: Instant,
    ) {
        let (verdict, reason) = (VerdictKind::Malformed, Reason::Malformed(kind));
        self.record(Lost { verdict, reason, answered, bytes, began });
    }
}
