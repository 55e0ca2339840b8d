//! The open streams of one connection: windows, and how long each has waited for its client.
//!
//! Owns flow control as far as it says who waits for whom (RFC 9113, 5.2).

use super::{Stall, StallKind};

/// Streams that are followed on one connection; more than the library lets a client open.
pub const MAX_STREAMS: usize = 256;

/// Windows before anybody says otherwise (RFC 9113, 6.9.2).
const INITIAL_WINDOW: i64 = 65_535;

/// A moment, and the rate at which bytes pay time back.
#[derive(Clone, Copy, Debug)]
struct Tick {
    now_ms: u64,
    /// Bytes a second, at least 1.
    min_rate: u64,
}

/// Time that somebody was waited for. Bytes that arrive pay it back at the least rate, so that one byte now
/// and then does not begin the wait anew.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wait {
    /// What earlier waits ask for: thousandths of bytes, which is milliseconds times the rate.
    owed: u64,
    since_ms: Option<u64>,
}

impl Wait {
    /// Waits from now on, or not.
    fn set(&mut self, waits: bool, tick: Tick) {
        match (self.since_ms, waits) {
            (None, true) => self.since_ms = Some(tick.now_ms),
            (Some(since), false) => {
                self.owe(since, tick);
                self.since_ms = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// `bytes` moved.
    fn pay(&mut self, bytes: u32, tick: Tick) {
        if let Some(since) = self.since_ms {
            self.owe(since, tick);
            self.since_ms = Some(tick.now_ms);
        }
        self.owed = self.owed.saturating_sub(u64::from(bytes) * 1000);
    }

    fn owe(&mut self, since_ms: u64, tick: Tick) {
        let waited = tick.now_ms.saturating_sub(since_ms).saturating_mul(tick.min_rate);
        self.owed = self.owed.saturating_add(waited);
    }

    /// Since when it would wait if it had waited without a break.
    fn since(&self, min_rate: u64) -> Option<u64> {
        self.since_ms.map(|since| since.saturating_sub(self.owed / min_rate))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) request_ended: bool,
    pub(super) response_begun: bool,
    response_ended: bool,
    /// Bytes that the client may still send.
    receive_window: i64,
    /// Bytes that we may still send.
    send_window: i64,
    /// For DATA of the request.
    upload: Wait,
    /// For room in the client's window.
    read: Wait,
}

/// Both directions' windows, of the connection and of each stream.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// In the order of their numbers, which is the order in which they are opened.
    open: Vec<Stream>,
    receive_window: i64,
    send_window: i64,
    initial_receive_window: i64,
    initial_send_window: i64,
    /// For room in the client's window for the whole connection.
    read: Wait,
    min_rate: u64,
}

impl Streams {
    pub(super) fn new(min_rate: u32) -> Self {
        Self {
            open: Vec::new(),
            receive_window: INITIAL_WINDOW,
            send_window: INITIAL_WINDOW,
            initial_receive_window: INITIAL_WINDOW,
            initial_send_window: INITIAL_WINDOW,
            read: Wait::default(),
            min_rate: u64::from(min_rate.max(1)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Who has been waited for for the longest time.
    pub(super) fn longest_wait(&self) -> Option<Stall> {
        let stall = |stream, kind, wait: &Wait| {
            wait.since(self.min_rate).map(|since_ms| Stall { stream, kind, since_ms })
        };
        let of_streams = self.open.iter().flat_map(|stream| {
            [
                stall(stream.id, StallKind::Upload, &stream.upload),
                stall(stream.id, StallKind::Read, &stream.read),
            ]
        });
        let of_connection = stall(0, StallKind::Read, &self.read);
        of_streams.chain([of_connection]).flatten().min_by_key(|stall| stall.since_ms)
    }

    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        self.position(id).map(|at| &self.open[at])
    }

    pub(super) fn open(&mut self, id: u32, request_ended: bool, now_ms: u64) {
        if self.open.len() >= MAX_STREAMS {
            return;
        }
        let mut stream = Stream {
            id,
            request_ended,
            response_begun: false,
            response_ended: false,
            receive_window: self.initial_receive_window,
            send_window: self.initial_send_window,
            upload: Wait::default(),
            read: Wait::default(),
        };
        stream.judge(self.receive_window, self.tick(now_ms));
        self.open.push(stream);
    }

    pub(super) fn close(&mut self, id: u32, now_ms: u64) {
        let Some(at) = self.position(id) else { return };
        self.open.remove(at);
        if self.open.is_empty() {
            // An idle connection keeps nothing of its busy times.
            self.open = Vec::new();
        }
        self.judge_connection(now_ms);
    }

    pub(super) fn end_request(&mut self, id: u32, now_ms: u64) {
        if self.get(id).is_some_and(|stream| stream.response_ended) {
            return self.close(id, now_ms);
        }
        self.change(id, now_ms, |stream| stream.request_ended = true);
    }

    /// The whole response has gone. The rest of the request may still come.
    pub(super) fn end_response(&mut self, id: u32, now_ms: u64) {
        match self.get(id) {
            Some(stream) if !stream.request_ended => {
                self.change(id, now_ms, |stream| stream.response_ended = true);
                self.judge_connection(now_ms);
            }
            _ => self.close(id, now_ms),
        }
    }

    pub(super) fn begin_response(&mut self, id: u32, now_ms: u64) {
        self.change(id, now_ms, |stream| stream.response_begun = true);
        self.judge_connection(now_ms);
    }

    /// DATA from the client.
    pub(super) fn receive(&mut self, id: u32, bytes: u32, now_ms: u64) {
        self.receive_window -= i64::from(bytes);
        if self.receive_window <= 0 {
            self.judge_all(now_ms);
        }
        let tick = self.tick(now_ms);
        self.change(id, now_ms, |stream| {
            stream.receive_window -= i64::from(bytes);
            stream.upload.pay(bytes, tick);
        });
    }

    /// DATA to the client.
    pub(super) fn send(&mut self, id: u32, bytes: u32, now_ms: u64) {
        self.send_window -= i64::from(bytes);
        let tick = self.tick(now_ms);
        self.read.pay(bytes, tick);
        self.judge_connection(now_ms);
        self.change(id, now_ms, |stream| {
            stream.send_window -= i64::from(bytes);
            stream.read.pay(bytes, tick);
        });
    }

    /// WINDOW_UPDATE from the client; stream 0 is the connection.
    pub(super) fn widen_send(&mut self, id: u32, increment: u32, now_ms: u64) {
        if id == 0 {
            self.send_window += i64::from(increment);
            self.judge_connection(now_ms);
        } else {
            self.change(id, now_ms, |stream| stream.send_window += i64::from(increment));
        }
    }

    /// WINDOW_UPDATE to the client; stream 0 is the connection.
    pub(super) fn widen_receive(&mut self, id: u32, increment: u32, now_ms: u64) {
        if id == 0 {
            self.receive_window += i64::from(increment);
            self.judge_all(now_ms);
        } else {
            self.change(id, now_ms, |stream| stream.receive_window += i64::from(increment));
        }
    }

    /// The client's SETTINGS_INITIAL_WINDOW_SIZE: it moves the windows of open streams, too.
    pub(super) fn set_initial_send(&mut self, size: u32, now_ms: u64) {
        let difference = i64::from(size) - self.initial_send_window;
        self.initial_send_window = i64::from(size);
        self.open.iter_mut().for_each(|stream| stream.send_window += difference);
        self.judge_all(now_ms);
    }

    /// Our SETTINGS_INITIAL_WINDOW_SIZE.
    pub(super) fn set_initial_receive(&mut self, size: u32, now_ms: u64) {
        let difference = i64::from(size) - self.initial_receive_window;
        self.initial_receive_window = i64::from(size);
        self.open.iter_mut().for_each(|stream| stream.receive_window += difference);
        self.judge_all(now_ms);
    }

    fn position(&self, id: u32) -> Option<usize> {
        self.open.binary_search_by_key(&id, |stream| stream.id).ok()
    }

    fn change(&mut self, id: u32, now_ms: u64, change: impl FnOnce(&mut Stream)) {
        let Some(at) = self.position(id) else { return };
        let tick = self.tick(now_ms);
        change(&mut self.open[at]);
        self.open[at].judge(self.receive_window, tick);
    }

    fn judge_all(&mut self, now_ms: u64) {
        let tick = self.tick(now_ms);
        for stream in &mut self.open {
            stream.judge(self.receive_window, tick);
        }
    }

    fn judge_connection(&mut self, now_ms: u64) {
        let waits = self.send_window <= 0 && self.open.iter().any(Stream::is_answering);
        self.read.set(waits, self.tick(now_ms));
    }

    fn tick(&self, now_ms: u64) -> Tick {
        Tick { now_ms, min_rate: self.min_rate }
    }
}

impl Stream {
    fn is_answering(&self) -> bool {
        self.response_begun && !self.response_ended
    }

    /// Whether nothing happens before the client sends the rest of its request. While the answer is on its way
    /// that may take as long as it likes: calls in both directions stay open without a byte for hours.
    pub(super) fn owes_request(&self) -> bool {
        !self.request_ended && !self.is_answering()
    }

    /// Whether the upstream can do nothing before the client goes on.
    fn judge(&mut self, connection_receive_window: i64, tick: Tick) {
        let may_send = self.receive_window > 0 && connection_receive_window > 0;
        self.upload.set(self.owes_request() && may_send, tick);
        self.read.set(self.is_answering() && self.send_window <= 0, tick);
    }
}
