//! Compressed logs, known by their first bytes and not by their names. Must not open files.

use std::fmt;
use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const MAGIC: usize = 4;
/// The largest zstd window that is accepted, as a power of two: 128 MiB, what `zstd --long` makes at most. It is the
/// memory that a hostile file can take.
const MAX_WINDOW_LOG: u32 = 27;
const BUFFER: usize = 64 << 10;

/// How a log was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// The plain text of a log that may be packed; several members or frames in a row are one text.
pub(crate) fn unpack(mut reader: Box<dyn Read + Send>) -> io::Result<(Compression, Box<dyn Read + Send>)> {
    let mut magic = Vec::with_capacity(MAGIC);
    reader.by_ref().take(MAGIC as u64).read_to_end(&mut magic)?;
    let compression = if magic.starts_with(GZIP) {
        Compression::Gzip
    } else if magic.starts_with(ZSTD) {
        Compression::Zstd
    } else {
        Compression::None
    };
    let whole = Cursor::new(magic).chain(reader);
    let plain: Box<dyn Read + Send> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, whole))),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(whole)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
    };
    Ok((compression, plain))
}
