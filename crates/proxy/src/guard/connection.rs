//! What is known of one connection: shared by its guard and the requests on it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use portcullis_model::{
    ClientIp, MalformedKind, Protocol, Reason, RecordText, RequestId, RequestRecord, TextFields, VerdictKind,
};

use crate::edge::Edge;
use crate::respond::raw_refusal;
use crate::ruleset::Bounds;
use crate::tls::ClientCertificate;

/// How many bytes of a head are kept for the record.
const KEPT_BYTES: usize = 1_024;

pub(crate) struct Connection {
    pub(crate) peer: ClientIp,
    pub(crate) is_tls: bool,
    /// What the client has proved in the handshake.
    pub(crate) certificate: OnceLock<ClientCertificate>,
    pub(super) edge: Arc<Edge>,
    opened: Instant,
    /// Requests that were handed to the hooks.
    requests: AtomicU64,
    /// Whether the bytes that are read now belong to a head.
    in_head: AtomicBool,
    head: Mutex<Head>,
}

/// The head that is being read.
#[derive(Default)]
struct Head {
    began: Option<Instant>,
    bytes: usize,
    lines: usize,
    kept: Vec<u8>,
    failure: Option<MalformedKind>,
    answered: Option<(RequestId, u16)>,
}

impl Connection {
    pub(super) fn new(edge: Arc<Edge>, peer: SocketAddr, is_tls: bool) -> Self {
        Self {
            peer: ClientIp::new(peer.ip()),
            is_tls,
            certificate: OnceLock::new(),
            edge,
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            in_head: AtomicBool::new(true),
            head: Mutex::default(),
        }
    }

    /// Called by the hooks as soon as there is a request. Returns when its first byte came, for HTTP/1.
    pub(crate) fn request_began(&self) -> Option<Instant> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.in_head.swap(false, Ordering::Relaxed) { self.head.lock().began } else { None }
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn is_in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed)
    }

    /// The next bytes are a head's.
    pub(super) fn expect_head(&self) {
        let mut head = self.head.lock();
        let mut kept = std::mem::take(&mut head.kept);
        kept.clear();
        *head = Head { kept, ..Head::default() };
        self.in_head.store(true, Ordering::Relaxed);
    }

    /// The bytes of an HTTP/2 connection are not watched one head at a time.
    pub(super) fn expect_frames(&self) {
        self.in_head.store(false, Ordering::Relaxed);
    }

    /// Counts bytes of the head; says how many there were before.
    pub(super) fn head_bytes(&self, bytes: &[u8]) -> usize {
        let mut head = self.head.lock();
        head.began.get_or_insert_with(Instant::now);
        let before = head.bytes;
        head.bytes += bytes.len();
        head.lines += bytes.iter().filter(|&&b| b == b'\n').count();
        let room = KEPT_BYTES.saturating_sub(head.kept.len());
        head.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        before
    }

    /// Lines of the head so far, the request line and what of the body came with it included.
    pub(super) fn head_lines(&self) -> usize {
        self.head.lock().lines
    }

    pub(super) fn head_has_begun(&self) -> bool {
        self.head.lock().bytes > 0
    }

    /// Notes why the head will not become a request; the first reason stays.
    pub(super) fn head_failed(&self, why: MalformedKind) {
        self.head.lock().failure.get_or_insert(why);
    }

    pub(super) fn head_failure(&self) -> Option<MalformedKind> {
        self.head.lock().failure
    }

    /// The ID under which the failed head will be recorded, and the status that it is answered with.
    fn answer_head(&self, status: u16) -> RequestId {
        let mut head = self.head.lock();
        let at = self.edge.clock.at(head.began.unwrap_or(self.opened)).wall;
        let (id, _) = *head.answered.get_or_insert_with(|| (RequestId::new(at, fastrand::u32(..)), status));
        id
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.edge.rules.load().bounds
    }

    /// The whole answer to a head that failed.
    pub(super) fn failed_head_page(&self, status: u16) -> Vec<u8> {
        raw_refusal(&self.edge.rules.load(), self.is_tls, status, self.answer_head(status))
    }

    /// Records bytes that came and never became a request.
    pub(super) fn record_failed_head(&self) {
        let head = std::mem::take(&mut *self.head.lock());
        if head.bytes > 0 {
            let kind = head.failure.unwrap_or(MalformedKind::BadRequest);
            self.record(kind, head.answered, &head.kept, head.began.unwrap_or(self.opened));
        }
    }

    /// Records a handshake that failed.
    pub(super) fn record_failed_handshake(&self) {
        self.record(MalformedKind::TlsHandshake, None, &[], self.opened);
    }

    fn record(&self, kind: MalformedKind, answered: Option<(RequestId, u16)>, bytes: &[u8], began: Instant) {
        let (id, status) = answered
            .unwrap_or_else(|| (RequestId::new(self.edge.clock.at(began).wall, fastrand::u32(..)), 0));
        let (method, target) = first_line(bytes);
        let (path, query) = split_target(target);
        self.edge.finish(RequestRecord {
            id,
            client: self.peer,
            protocol: Protocol::Unknown,
            status,
            bytes_in: 0,
            bytes_out: 0,
            latency_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            verdict: VerdictKind::Malformed,
            reason: Reason::Malformed(kind),
            text: RecordText::new(TextFields { method, path, query, ..TextFields::default() }),
        });
    }
}

/// Method and target of what may be a request line; else everything is the target.
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let line = bytes.split(|&b| b == b'\r' || b == b'\n').next().unwrap_or_default();
    let mut words = line.splitn(3, |&b| b == b' ');
    match (words.next(), words.next()) {
        (Some(method), Some(target)) if !method.is_empty() && method.iter().all(u8::is_ascii_uppercase) => {
            (method, target)
        }
        _ => (b"", line),
    }
}

/// The path and the query of a request target.
pub(crate) fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().position(|&b| b == b'?') {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_recorded_as_the_target() {
        assert_eq!(first_line(b"GET /a?b HTTP/9.9\r\nHost: x"), (&b"GET"[..], &b"/a?b"[..]));
        assert_eq!(first_line(b"\x16\x03\x01 x"), (&b""[..], &b"\x16\x03\x01 x"[..]));
        assert_eq!(first_line(b"hello"), (&b""[..], &b"hello"[..]));
        assert_eq!(first_line(b""), (&b""[..], &b""[..]));
    }
}
