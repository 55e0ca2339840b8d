//! The bytes of `limits.journal`: a head, then frames, each with a checksum. Little-endian.
//!
//! Pure. Whatever the bytes are, they are read to the last whole frame and no further; must not believe a length
//! before its checksum.

use std::hash::Hasher as _;
use std::io::{self, Read};

use portcullis_model::UnixMs;
use portcullis_policy::Secret;
use siphasher::sip::SipHasher13;

const MAGIC: [u8; 8] = *b"PCLIMIT1";
const HEAD_BYTES: usize = 8 + 3 * 8 + 16 + 8;
const FRAME_HEAD_BYTES: usize = 8 + 8 + 8 + 8;
/// Numbers of a frame: the limiter gives a quarter of that at once.
const MAX_NUMBERS: u64 = 1 << 16;

/// One start of the machine, as the kernel names it; zeros where it does not.
pub(super) type BootId = [u8; 16];

/// An instant on the wall clock, and on the one that counts from the start of the machine and never jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instant {
    pub(super) wall: UnixMs,
    pub(super) boot_ms: u64,
}

impl Instant {
    /// Milliseconds since `earlier`: by the clock that never jumps, if both are of one start of the machine. A wall
    /// clock that was put back has stood still: nobody is held for longer than the rest of their window.
    pub(super) fn since(self, earlier: Self, is_same_boot: bool) -> u64 {
        match self.boot_ms.checked_sub(earlier.boot_ms) {
            Some(elapsed) if is_same_boot => elapsed,
            _ => u64::try_from(self.wall.since(earlier.wall).as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What a file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) secret: Secret,
    pub(super) boot: BootId,
}

impl Head {
    /// Whether instants of this file can be compared with those of the machine as it runs now.
    pub(super) fn is_of(&self, boot: BootId) -> bool {
        self.boot == boot && boot != BootId::default()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.secret.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(self.boot);
        bytes.extend(checksum(self.secret, &bytes).to_le_bytes());
        bytes
    }

    /// `None` when it is none of ours, or of another version.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEAD_BYTES];
        if !read_whole(from, &mut bytes)? {
            return Ok(None);
        }
        let (told, sum) = bytes.split_at(HEAD_BYTES - 8);
        let secret = [number(told, 1), number(told, 2), number(told, 3)];
        let mut boot = BootId::default();
        boot.copy_from_slice(&told[32..48]);
        let is_good = told.starts_with(&MAGIC) && number(sum, 0) == checksum(secret, told);
        Ok(is_good.then_some(Self { secret, boot }))
    }
}

/// Appends a frame of `numbers`, which were right at `at`.
pub(super) fn append_frame(to: &mut Vec<u8>, secret: Secret, at: Instant, numbers: &[u64]) {
    let start = to.len();
    to.extend((numbers.len() as u64).to_le_bytes());
    to.extend(at.wall.0.to_le_bytes());
    to.extend(at.boot_ms.to_le_bytes());
    to.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    let sum = checksum(secret, &to[start..]);
    to.extend(sum.to_le_bytes());
}

/// The next frame's instant, and its numbers in `into`; `None` at the end, and where something else begins.
pub(super) fn read_frame(
    from: &mut impl Read,
    secret: Secret,
    into: &mut Vec<u64>,
) -> io::Result<Option<Instant>> {
    let mut bytes = vec![0; FRAME_HEAD_BYTES - 8];
    if !read_whole(from, &mut bytes)? {
        return Ok(None);
    }
    let count = number(&bytes, 0);
    if count > MAX_NUMBERS {
        return Ok(None);
    }
    let told = bytes.len() + count as usize * 8;
    bytes.resize(told + 8, 0);
    if !read_whole(from, &mut bytes[FRAME_HEAD_BYTES - 8..])? {
        return Ok(None);
    }
    let (told, sum) = bytes.split_at(told);
    if number(sum, 0) != checksum(secret, told) {
        return Ok(None);
    }
    into.clear();
    into.extend((0..count as usize).map(|n| number(told, 3 + n)));
    Ok(Some(Instant { wall: UnixMs(number(told, 1).cast_signed()), boot_ms: number(told, 2) }))
}

/// The number `n` of these bytes.
fn number(bytes: &[u8], n: usize) -> u64 {
    bytes[n * 8..n * 8 + 8].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// With the file's own secret: the end of another file is no frame of this one.
fn checksum(secret: Secret, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
    hasher.write(bytes);
    hasher.finish()
}

/// Whether there was enough to fill it.
fn read_whole(from: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = [1, 2, 3];

    fn at(wall: i64, boot_ms: u64) -> Instant {
        Instant { wall: UnixMs(wall), boot_ms }
    }

    /// Two frames after their head.
    fn sample() -> Vec<u8> {
        let mut bytes = Head { secret: SECRET, boot: [7; 16] }.bytes();
        append_frame(&mut bytes, SECRET, at(1_000, 5), &[10, 0, 11, 1, 99]);
        append_frame(&mut bytes, SECRET, at(-2_000, 6), &[12, 0]);
        bytes
    }

    type Read1 = (Option<Head>, Vec<(Instant, Vec<u64>)>);

    fn read(bytes: &[u8]) -> Read1 {
        let mut rest = bytes;
        let Some(head) = Head::read(&mut rest).unwrap() else { return (None, Vec::new()) };
        let (mut frames, mut numbers) = (Vec::new(), Vec::new());
        while let Some(at) = read_frame(&mut rest, head.secret, &mut numbers).unwrap() {
            frames.push((at, numbers.clone()));
        }
        (Some(head), frames)
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let (head, frames) = read(&sample());
        assert_eq!(head, Some(Head { secret: SECRET, boot: [7; 16] }));
        assert_eq!(frames, [(at(1_000, 5), vec![10, 0, 11, 1, 99]), (at(-2_000, 6), vec![12, 0])]);
    }

    #[test]
    fn a_file_that_ends_anywhere_is_read_to_its_last_whole_frame() {
        let bytes = sample();
        let (_, whole) = read(&bytes);
        for end in 0..bytes.len() {
            let (head, frames) = read(&bytes[..end]);
            assert!(frames.len() < whole.len() && frames[..] == whole[..frames.len()], "cut at {end}");
            assert_eq!(head.is_some(), end >= HEAD_BYTES, "cut at {end}");
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed() {
        let bytes = sample();
        let (head, whole) = read(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let (found, frames) = read(&changed);
            assert!(found.is_none() || found == head, "bit {bit}");
            assert!(frames.len() < whole.len() && frames[..] == whole[..frames.len()], "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_journal_is_none() {
        for bytes in [&b""[..], b"PCLIMIT2", &[0; 4_096], &[255; 4_096]] {
            assert_eq!(read(bytes), (None, Vec::new()));
        }
    }

    #[test]
    fn the_clock_that_never_jumps_counts_as_long_as_the_machine_runs() {
        let (before, after) = (at(1_000_000, 500), at(400_000, 2_500));
        assert_eq!(after.since(before, true), 2_000, "the wall clock was put back");
        assert_eq!(after.since(before, false), 0, "and nothing else is known");
        assert_eq!(at(1_060_000, 3).since(before, false), 60_000, "the machine was started anew");
        assert_eq!(at(1_060_000, 3).since(before, true), 60_000, "a clock that cannot be");
        let head = Head { secret: SECRET, boot: [7; 16] };
        assert!(head.is_of([7; 16]) && !head.is_of([8; 16]));
        assert!(!Head { boot: BootId::default(), ..head }.is_of(BootId::default()), "no name, no comparison");
    }
}
