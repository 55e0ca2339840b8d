//! Cuts one direction of an HTTP/2 connection into frames, over splits anywhere.
//!
//! Owns where frames begin and end (RFC 9113, 4.1); keeps no payload but the few bytes that are asked for.

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// RFC 9218, 7.1.
pub(super) const PRIORITY_UPDATE: u8 = 16;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Bytes of a frame's header.
const HEADER: usize = 9;
/// Bytes of one entry of SETTINGS.
const SETTING: u8 = 6;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Bytes of payload.
    pub(super) length: u32,
}

impl Frame {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A frame's header is complete.
    Begin(Frame),
    /// So many bytes of its payload.
    Payload(Frame, u32),
    /// One entry of a SETTINGS frame.
    Setting { id: u16, value: u32 },
    /// The frame is complete. Of frames other than SETTINGS the first eight bytes of payload, zeros where
    /// there are fewer.
    End(Frame, [u8; 8]),
}

/// One direction of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    header: [u8; HEADER],
    /// Bytes of `header` that have arrived.
    have: u8,
    /// Bytes of payload to come.
    left: u32,
    kept: [u8; 8],
    kept_len: u8,
    since_ms: u64,
}

impl Reader {
    /// The next event in `bytes`, which are cut by what was read; `None` when more are needed.
    pub(super) fn next(&mut self, bytes: &mut &[u8], now_ms: u64) -> Option<Event> {
        if usize::from(self.have) < HEADER {
            return self.next_of_header(bytes, now_ms);
        }
        let frame = self.frame();
        if self.left == 0 {
            self.have = 0;
            return Some(Event::End(frame, self.kept));
        }
        if bytes.is_empty() {
            return None;
        }
        if frame.kind == SETTINGS {
            self.next_of_settings(frame, bytes)
        } else {
            self.next_of_payload(frame, bytes, now_ms)
        }
    }

    /// A frame of which some bytes have arrived and some have not: since when. Of DATA: the last byte that came.
    pub(super) fn unfinished(&self) -> Option<(Option<Frame>, u64)> {
        match usize::from(self.have) {
            0 => None,
            HEADER => Some((Some(self.frame()), self.since_ms)),
            _ => Some((None, self.since_ms)),
        }
    }

    fn next_of_header(&mut self, bytes: &mut &[u8], now_ms: u64) -> Option<Event> {
        if self.have == 0 && !bytes.is_empty() {
            self.since_ms = now_ms;
        }
        let have = usize::from(self.have);
        let taken = take(bytes, HEADER - have);
        self.header[have..have + taken.len()].copy_from_slice(taken);
        self.have += taken.len() as u8;
        if usize::from(self.have) < HEADER {
            return None;
        }
        let frame = self.frame();
        self.left = frame.length;
        self.kept = [0; 8];
        self.kept_len = 0;
        Some(Event::Begin(frame))
    }

    fn next_of_settings(&mut self, frame: Frame, bytes: &mut &[u8]) -> Option<Event> {
        let taken = self.keep(bytes, SETTING - self.kept_len);
        self.left -= taken;
        if self.kept_len < SETTING {
            return Some(Event::Payload(frame, taken));
        }
        self.kept_len = 0;
        let [i0, i1, v0, v1, v2, v3, ..] = self.kept;
        Some(Event::Setting { id: u16::from_be_bytes([i0, i1]), value: u32::from_be_bytes([v0, v1, v2, v3]) })
    }

    fn next_of_payload(&mut self, frame: Frame, bytes: &mut &[u8], now_ms: u64) -> Option<Event> {
        let room = 8 - self.kept_len;
        let kept = if room > 0 { self.keep(bytes, room) } else { 0 };
        let skipped = take(bytes, (self.left - kept) as usize).len() as u32;
        self.left -= kept + skipped;
        if frame.kind == DATA {
            self.since_ms = now_ms;
        }
        Some(Event::Payload(frame, kept + skipped))
    }

    /// Moves at most `room` bytes of the payload to what is kept.
    fn keep(&mut self, bytes: &mut &[u8], room: u8) -> u32 {
        let taken = take(bytes, usize::from(room).min(self.left as usize));
        let at = usize::from(self.kept_len);
        self.kept[at..at + taken.len()].copy_from_slice(taken);
        self.kept_len += taken.len() as u8;
        taken.len() as u32
    }

    fn frame(&self) -> Frame {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.header;
        Frame {
            kind,
            flags,
            // The highest bit is reserved.
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
            length: u32::from_be_bytes([0, l0, l1, l2]),
        }
    }
}

/// Whether a DATA frame carries nothing: no bytes, or padding only.
pub(super) fn is_empty_data(frame: Frame, kept: [u8; 8]) -> bool {
    frame.length == 0 || (frame.has(PADDED) && frame.length == 1 + u32::from(kept[0]))
}

fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(bytes.len().min(most));
    *bytes = rest;
    taken
}
