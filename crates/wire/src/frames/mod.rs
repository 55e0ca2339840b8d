//! A meter on an HTTP/2 connection: floods, stalls, and which streams were refused.
//!
//! Owns what can be known of a connection without decoding a header. Reads frame headers and a few fields;
//! must not judge whether frames are valid: that is the library's, which sees the same bytes.

mod floods;
mod reader;
mod streams;

pub use floods::{
    COUNTED_MS, Flood, MAX_CONTINUATIONS, MAX_EMPTY_DATA, MAX_IDLE_WINDOW_UPDATES, MAX_OTHER, MAX_PINGS,
    MAX_PRIORITIES, MAX_RESETS, MAX_SETTINGS,
};
pub use streams::MAX_STREAMS;

use floods::Floods;
use reader::{Event, Frame, Reader};
use streams::{Stream, Streams};

/// What a client sends before its first frame (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;

/// Bytes of response for which one WINDOW_UPDATE is taken for needed.
const BYTES_PER_WINDOW_UPDATE: u32 = 1024;
/// The most WINDOW_UPDATE frames that earlier data makes up for.
const MAX_WINDOW_UPDATE_CREDIT: u32 = 10_000;

/// A client that does not do its part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// 0: the connection's window is used up, and every response waits.
    pub stream: u32,
    pub kind: StallKind,
    /// Since when it waits; earlier waits of the same stream count as long as the bytes in between came
    /// below the least rate.
    pub since_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallKind {
    /// The request's body has not ended, may go on, and does not: before the response or behind its end.
    Upload,
    /// The response has begun, has not ended, and the client's window has no room.
    Read,
}

/// An error that the gateway's side reported to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentError {
    /// 0: GOAWAY, the whole connection.
    pub stream: u32,
    /// See `error_name`.
    pub code: u32,
}

/// How far the client's preface has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// So many bytes have arrived.
    Unfinished(u8),
    Complete,
    /// The client does not speak HTTP/2; nothing more is read.
    Wrong,
}

/// Follows one connection from its first byte. Times are milliseconds of any clock that never goes back.
///
/// Costs about 400 bytes, and 96 more for each open stream, `MAX_STREAMS` at most.
#[derive(Clone, Debug)]
pub struct Meter {
    preface: Preface,
    began_ms: u64,
    from_client: Reader,
    to_client: Reader,
    floods: Floods,
    streams: Streams,
    last_stream: u32,
    opened: u64,
    refused: u64,
    last_error: Option<SentError>,
    /// Since when a header block waits for its end, and its CONTINUATION frames.
    block: Option<(u64, u32)>,
    window_update_credit: u32,
}

impl Meter {
    /// `min_rate` in bytes a second: what pays back the time that a stream was waited for.
    pub fn new(min_rate: u32, now_ms: u64) -> Self {
        Self {
            preface: Preface::Unfinished(0),
            began_ms: now_ms,
            from_client: Reader::default(),
            to_client: Reader::default(),
            floods: Floods::new(now_ms),
            streams: Streams::new(min_rate),
            last_stream: 0,
            opened: 0,
            refused: 0,
            last_error: None,
            block: None,
            // The client may set its windows before anything is sent.
            window_update_credit: 8,
        }
    }

    /// Follows bytes of the client. After an error the connection is to be closed.
    pub fn inbound(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), Flood> {
        let mut bytes = bytes;
        if !self.pass_preface(&mut bytes) {
            return Ok(());
        }
        while let Some(event) = self.from_client.next(&mut bytes, now_ms) {
            match event {
                Event::Begin(frame) => self.begin_inbound(frame, now_ms)?,
                Event::Payload(frame, length) if frame.kind == reader::DATA => {
                    self.streams.receive(frame.stream, length, now_ms);
                }
                Event::Payload(..) => {}
                Event::Setting { id: SETTINGS_INITIAL_WINDOW_SIZE, value } => {
                    self.streams.set_initial_send(value, now_ms);
                }
                Event::Setting { .. } => {}
                Event::End(frame, kept) => self.end_inbound(frame, kept, now_ms)?,
            }
        }
        Ok(())
    }

    /// Follows bytes to the client.
    pub fn outbound(&mut self, bytes: &[u8], now_ms: u64) {
        let mut bytes = bytes;
        while let Some(event) = self.to_client.next(&mut bytes, now_ms) {
            match event {
                Event::Begin(frame) if frame.kind == reader::HEADERS => {
                    self.streams.begin_response(frame.stream, now_ms);
                }
                Event::Payload(frame, length) if frame.kind == reader::DATA => {
                    self.streams.send(frame.stream, length, now_ms);
                }
                Event::Setting { id: SETTINGS_INITIAL_WINDOW_SIZE, value } => {
                    self.streams.set_initial_receive(value, now_ms);
                }
                Event::Begin(_) | Event::Payload(..) | Event::Setting { .. } => {}
                Event::End(frame, kept) => self.end_outbound(frame, kept, now_ms),
            }
        }
    }

    /// How far the preface has come.
    pub fn preface(&self) -> Preface {
        self.preface
    }

    /// Streams that the client began, those that were refused included.
    pub fn streams_opened(&self) -> u64 {
        self.opened
    }

    /// Streams that have begun and not ended.
    pub fn streams_open(&self) -> usize {
        self.streams.len()
    }

    /// Streams that got an error instead of an answer.
    pub fn streams_refused(&self) -> u64 {
        self.refused
    }

    /// The last error that the client was told of, by RST_STREAM or GOAWAY.
    pub fn last_error(&self) -> Option<SentError> {
        self.last_error
    }

    /// Since when the client owes the rest of something that is short: the preface, a header block, or a
    /// frame. DATA counts from its last byte, and not at all where `stalled` judges it.
    pub fn unfinished_since(&self) -> Option<u64> {
        if let Preface::Unfinished(_) = self.preface {
            return Some(self.began_ms);
        }
        let frame = match self.from_client.unfinished() {
            Some((Some(frame), since)) => (!self.is_upload(frame)).then_some(since),
            Some((None, since)) => Some(since),
            None => None,
        };
        let block = self.block.map(|(since, _)| since);
        frame.into_iter().chain(block).min()
    }

    /// The stream that has waited for its client for the longest time. Looks at every open stream.
    pub fn stalled(&self) -> Option<Stall> {
        self.streams.longest_wait()
    }

    /// Whether frames may be read; takes the preface off `bytes`.
    fn pass_preface(&mut self, bytes: &mut &[u8]) -> bool {
        let Preface::Unfinished(have) = self.preface else { return self.preface == Preface::Complete };
        let expected = &PREFACE[usize::from(have)..];
        let (start, rest) = bytes.split_at(bytes.len().min(expected.len()));
        *bytes = rest;
        self.preface = if !expected.starts_with(start) {
            Preface::Wrong
        } else if start.len() == expected.len() {
            Preface::Complete
        } else {
            Preface::Unfinished(have + start.len() as u8)
        };
        self.preface == Preface::Complete
    }

    fn begin_inbound(&mut self, frame: Frame, now_ms: u64) -> Result<(), Flood> {
        let is_ack = frame.has(reader::ACK);
        match frame.kind {
            reader::HEADERS => {
                self.begin_headers(frame, now_ms);
                Ok(())
            }
            reader::CONTINUATION => self.count_continuation(),
            reader::PING if !is_ack => self.floods.count(Flood::Ping, now_ms),
            reader::SETTINGS if !is_ack => self.floods.count(Flood::Settings, now_ms),
            reader::RST_STREAM => self.floods.count(Flood::Reset, now_ms),
            reader::PRIORITY | reader::PRIORITY_UPDATE => self.floods.count(Flood::Priority, now_ms),
            // Judged at their end, with what they carry.
            reader::DATA | reader::WINDOW_UPDATE => Ok(()),
            _ => self.floods.count(Flood::Other, now_ms),
        }
    }

    fn begin_headers(&mut self, frame: Frame, now_ms: u64) {
        // What is not a higher odd number is trailers, or a mistake that the library finds.
        if frame.stream % 2 == 1 && frame.stream > self.last_stream {
            self.last_stream = frame.stream;
            self.opened += 1;
            self.earn_window_updates(2);
            self.streams.open(frame.stream, frame.has(reader::END_STREAM), now_ms);
        }
        if !frame.has(reader::END_HEADERS) {
            let since = self.from_client.unfinished().map_or(now_ms, |(_, since)| since);
            self.block = Some((since, 0));
        }
    }

    fn count_continuation(&mut self) -> Result<(), Flood> {
        match &mut self.block {
            Some((_, count)) if *count < MAX_CONTINUATIONS => *count += 1,
            Some(_) => return Err(Flood::Continuation),
            None => {}
        }
        Ok(())
    }

    fn end_inbound(&mut self, frame: Frame, kept: [u8; 8], now_ms: u64) -> Result<(), Flood> {
        let ends_stream = frame.has(reader::END_STREAM);
        match frame.kind {
            reader::DATA if ends_stream => self.streams.end_request(frame.stream, now_ms),
            reader::DATA if reader::is_empty_data(frame, kept) => {
                self.floods.count(Flood::EmptyData, now_ms)?;
            }
            reader::HEADERS if ends_stream => self.streams.end_request(frame.stream, now_ms),
            reader::RST_STREAM => self.streams.close(frame.stream, now_ms),
            reader::WINDOW_UPDATE => {
                let [a, b, c, d, ..] = kept;
                self.streams.widen_send(frame.stream, u32::from_be_bytes([a & 0x7f, b, c, d]), now_ms);
                match self.window_update_credit.checked_sub(1) {
                    Some(credit) => self.window_update_credit = credit,
                    None => self.floods.count(Flood::WindowUpdate, now_ms)?,
                }
            }
            _ => {}
        }
        if matches!(frame.kind, reader::HEADERS | reader::CONTINUATION) && frame.has(reader::END_HEADERS) {
            self.block = None;
        }
        Ok(())
    }

    fn end_outbound(&mut self, frame: Frame, kept: [u8; 8], now_ms: u64) {
        match frame.kind {
            reader::DATA => self.earn_window_updates(2 + frame.length / BYTES_PER_WINDOW_UPDATE),
            reader::WINDOW_UPDATE => {
                let [a, b, c, d, ..] = kept;
                self.streams.widen_receive(frame.stream, u32::from_be_bytes([a & 0x7f, b, c, d]), now_ms);
            }
            reader::RST_STREAM => {
                let [a, b, c, d, ..] = kept;
                self.report_error(frame.stream, u32::from_be_bytes([a, b, c, d]));
                self.streams.close(frame.stream, now_ms);
            }
            reader::GOAWAY => {
                let [.., a, b, c, d] = kept;
                self.report_error(0, u32::from_be_bytes([a, b, c, d]));
            }
            _ => {}
        }
        if matches!(frame.kind, reader::DATA | reader::HEADERS) && frame.has(reader::END_STREAM) {
            self.streams.end_response(frame.stream, now_ms);
        }
    }

    fn report_error(&mut self, stream: u32, code: u32) {
        if code == NO_ERROR {
            return;
        }
        self.last_error = Some(SentError { stream, code });
        if self.streams.get(stream).is_some_and(|open| !open.response_begun) {
            self.refused += 1;
        }
    }

    fn earn_window_updates(&mut self, count: u32) {
        self.window_update_credit = (self.window_update_credit + count).min(MAX_WINDOW_UPDATE_CREDIT);
    }

    /// Whether the frame is DATA of a request whose pace `stalled` watches.
    fn is_upload(&self, frame: Frame) -> bool {
        let watched = |id| self.streams.get(id).is_some_and(Stream::owes_request);
        frame.kind == reader::DATA && watched(frame.stream)
    }
}

const NO_ERROR: u32 = 0;

/// The name of an error code (RFC 9113, 7).
pub fn error_name(code: u32) -> &'static str {
    match code {
        NO_ERROR => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        4 => "SETTINGS_TIMEOUT",
        5 => "STREAM_CLOSED",
        6 => "FRAME_SIZE_ERROR",
        7 => "REFUSED_STREAM",
        8 => "CANCEL",
        9 => "COMPRESSION_ERROR",
        10 => "CONNECT_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        12 => "INADEQUATE_SECURITY",
        13 => "HTTP_1_1_REQUIRED",
        _ => "UNKNOWN_ERROR",
    }
}
