//! When a slice ends and when it goes.
//!
//! Owns the arithmetic of retention. Must not touch the database or read a clock.

use std::time::Duration;

use portcullis_model::UnixMs;

use super::LogSettings;
use super::slice::{MAX_SLICES, Slice};

/// Age and size are each divided into this many slices: rows outlive the retention by at most 1/64 of
/// it, and both together stay far below [`MAX_SLICES`].
const PARTS: u32 = 64;
/// The shortest time that a field is kept is divided into this many.
const FIELD_PARTS: u32 = 8;
/// The retention into no more than this.
const MOST_PARTS: u32 = 300;
const MIN_SLICE_LENGTH: Duration = Duration::from_secs(1);
/// A slice's empty tables take 32 KiB, so slices that are much smaller would hold little else.
const MIN_SLICE_BYTES: u64 = 256 << 10;
/// The write-ahead log may reach this part of the log's bound, and at least this many bytes, while a
/// reader keeps it from being emptied.
const WAL_PART: u64 = 4;
const MIN_WAL_BYTES: u64 = 64 << 20;
const COUNTED_WAL_PART: u64 = 8;
const CHECKPOINT_PART: u64 = 32;
const MIN_CHECKPOINT_BYTES: u64 = 128 << 10;
const MAX_CHECKPOINT_BYTES: u64 = 4 << 20;

/// Whether rows should go on into a new slice. `bytes` is what the live slice takes on disk.
pub(crate) fn is_slice_full(
    live: &Slice,
    bytes: u64,
    slices: usize,
    now: UnixMs,
    settings: &LogSettings,
) -> bool {
    if live.rows == 0 || slices >= MAX_SLICES {
        return false;
    }
    let length = slice_length(settings).max(MIN_SLICE_LENGTH);
    now.since(UnixMs(live.base_ms)) >= length || bytes >= max_slice_bytes(settings)
}

/// Fields that go earlier than their rows go with a slice too, so slices are shorter then, but never so short that
/// there would be too many.
fn slice_length(settings: &LogSettings) -> Duration {
    let length = settings.retention / PARTS;
    match settings.fields.shortest() {
        Some(shortest) => length.min(shortest / FIELD_PARTS).max(settings.retention / MOST_PARTS),
        None => length,
    }
}

fn max_slice_bytes(settings: &LogSettings) -> u64 {
    (settings.max_bytes / u64::from(PARTS)).max(MIN_SLICE_BYTES)
}

/// Whether every row of the slice is too old.
pub(crate) fn is_expired(slice: &Slice, now: UnixMs, settings: &LogSettings) -> bool {
    slice.span.is_some_and(|(_, max)| UnixMs(max) < now.minus(settings.retention))
}

/// Whether the oldest slice has to go. `used` is what the pages in use take, `wal` the write-ahead log.
/// Two slices below the bound, for what is written until the next look and for indexes and sums to be built.
/// Of a write-ahead log that a reader keeps from being emptied only a part counts: dropping slices
/// makes it no smaller, and a forgotten reader must not cost the whole log.
pub(crate) fn is_too_large(used: u64, wal: u64, settings: &LogSettings) -> bool {
    let max = settings.max_bytes;
    used + wal.min(max / COUNTED_WAL_PART) > max.saturating_sub(max_slice_bytes(settings) * 2)
}

/// The size at which the write-ahead log is moved into the database.
pub(crate) fn wal_checkpoint_bytes(settings: &LogSettings) -> u64 {
    (settings.max_bytes / CHECKPOINT_PART).clamp(MIN_CHECKPOINT_BYTES, MAX_CHECKPOINT_BYTES)
}

/// The bytes that the write-ahead log may take before writing stops.
pub(crate) fn max_wal_bytes(settings: &LogSettings) -> u64 {
    (settings.max_bytes / WAL_PART).max(MIN_WAL_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(rows: i64) -> Slice {
        Slice { id: 1, base_ms: 0, is_sealed: false, rows, span: Some((0, 10)), is_indexed: false }
    }

    #[test]
    fn a_slice_ends_by_age_or_size_but_never_empty_and_never_beyond_the_view() {
        let settings = LogSettings {
            retention: Duration::from_secs(6_400),
            max_bytes: 64 << 20,
            ..LogSettings::default()
        };
        let full =
            |slice: &Slice, bytes, slices, now| is_slice_full(slice, bytes, slices, UnixMs(now), &settings);
        assert!(!full(&slice(1), 0, 1, 99_999));
        assert!(full(&slice(1), 0, 1, 100_000));
        assert!(full(&slice(1), 1 << 20, 1, 0));
        assert!(!full(&slice(0), 1 << 20, 1, 100_000));
        assert!(!full(&slice(1), 1 << 20, MAX_SLICES, 100_000));
    }

    #[test]
    fn a_forgotten_reader_does_not_cost_the_whole_log() {
        let settings = LogSettings { max_bytes: 64 << 20, ..LogSettings::default() };
        assert!(!is_too_large(50 << 20, 4 << 20, &settings));
        assert!(is_too_large(60 << 20, 4 << 20, &settings));
        assert!(!is_too_large(50 << 20, 999 << 20, &settings));
    }

    #[test]
    fn a_slice_expires_with_its_youngest_row() {
        let settings = LogSettings { retention: Duration::from_millis(100), ..LogSettings::default() };
        assert!(!is_expired(&slice(1), UnixMs(110), &settings));
        assert!(is_expired(&slice(1), UnixMs(111), &settings));
        assert!(!is_expired(&Slice { span: None, ..slice(0) }, UnixMs(111), &settings));
    }
}
