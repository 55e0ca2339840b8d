//! How many frames that only cost the server a client may send.
//!
//! Owns the bounds and the counting. Counts begin anew every ten seconds, so that any ten seconds hold at most
//! twice the bound.

/// How long a count lasts.
pub const COUNTED_MS: u64 = 10_000;

/// PING without ACK. Clients that measure the path send a few in a second.
pub const MAX_PINGS: u32 = 500;
/// SETTINGS without ACK.
pub const MAX_SETTINGS: u32 = 100;
/// RST_STREAM: a browser that leaves a page resets what it still waits for, a hundred streams at most; a map that is
/// dragged gives up its tiles again and again.
pub const MAX_RESETS: u32 = 500;
/// PRIORITY and PRIORITY_UPDATE.
pub const MAX_PRIORITIES: u32 = 1_000;
/// WINDOW_UPDATE beyond what the data sent since then asks for.
pub const MAX_IDLE_WINDOW_UPDATES: u32 = 500;
/// DATA without a byte that does not end its stream.
pub const MAX_EMPTY_DATA: u32 = 100;
/// Frames of types that HTTP/2 does not define, GOAWAY and acknowledgements.
pub const MAX_OTHER: u32 = 500;
/// CONTINUATION frames of one header block.
pub const MAX_CONTINUATIONS: u32 = 16;

/// What a client sent too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Flood {
    #[error("too many PING frames")]
    Ping,
    #[error("too many SETTINGS frames")]
    Settings,
    #[error("too many RST_STREAM frames")]
    Reset,
    #[error("too many PRIORITY frames")]
    Priority,
    #[error("too many WINDOW_UPDATE frames without effect")]
    WindowUpdate,
    #[error("too many empty DATA frames")]
    EmptyData,
    #[error("too many frames without use")]
    Other,
    #[error("too many CONTINUATION frames in a header block")]
    Continuation,
}

/// The counts of the current ten seconds, in the order of the fields of `MAX`.
#[derive(Clone, Debug, Default)]
pub(super) struct Floods {
    began_ms: u64,
    counts: [u32; 7],
}

impl Floods {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { began_ms: now_ms, counts: [0; 7] }
    }

    /// Counts one frame of a kind that is bounded in time.
    pub(super) fn count(&mut self, flood: Flood, now_ms: u64) -> Result<(), Flood> {
        let (slot, max) = match flood {
            Flood::Ping => (0, MAX_PINGS),
            Flood::Settings => (1, MAX_SETTINGS),
            Flood::Reset => (2, MAX_RESETS),
            Flood::Priority => (3, MAX_PRIORITIES),
            Flood::WindowUpdate => (4, MAX_IDLE_WINDOW_UPDATES),
            Flood::EmptyData => (5, MAX_EMPTY_DATA),
            Flood::Other => (6, MAX_OTHER),
            // Bounded by block, not in time.
            Flood::Continuation => return Ok(()),
        };
        if now_ms.saturating_sub(self.began_ms) >= COUNTED_MS {
            *self = Self::new(now_ms);
        }
        self.counts[slot] += 1;
        if self.counts[slot] > max { Err(flood) } else { Ok(()) }
    }
}
