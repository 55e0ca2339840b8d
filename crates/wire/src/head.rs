//! HTTP/1 request heads, read strictly: what two servers could read in two ways is an error.
//!
//! Owns the walk over the lines and its resumption. What the request line says is in `request_line.rs`, what
//! the header lines say together in `fields.rs`. Must not allocate for a head that is in order.

use memchr::{memchr, memchr_iter, memrchr};
use portcullis_model::MalformedKind;

use crate::PathError;
use crate::fields::Fields;
use crate::request_line::{RequestLine, check_method};

/// The longest method, in bytes; the longest registered one has 17.
pub const MAX_METHOD: usize = 32;

/// What a head may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, the empty line included.
    pub max_bytes: usize,
    /// Header lines.
    pub max_headers: usize,
    /// Bytes of the request target.
    pub max_target: usize,
    /// Whether the path may hold `%2f`.
    pub escaped_slashes: bool,
}

/// How the body that follows a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, to be followed by `Chunks`.
    Chunked,
}

/// A complete head that has one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head, with its empty line and with a CR LF before the request line.
    pub len: usize,
    pub framing: Framing,
    /// The `x` of HTTP/1.x: 0 or 1.
    pub version_minor: u8,
    /// The client may wait for `100 Continue` before it sends its body. Never without a body.
    pub expects_continue: bool,
    /// A valid WebSocket upgrade. An `Upgrade` that the client does not name in `Connection` is none, and
    /// whoever forwards the request must not take it for one.
    pub upgrade: bool,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the first line is no HTTP/1 request line")]
    RequestLine,
    #[error("CONNECT is not forwarded")]
    Connect,
    #[error("the request is not HTTP/1.0 or HTTP/1.1")]
    Version,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("the head is too large")]
    TooLarge,
    #[error("there are too many header lines")]
    TooManyHeaders,
    #[error("a line does not end in CR LF, or holds a NUL")]
    LineEnding,
    #[error("the request target is not a path, an http URL, or the * of OPTIONS")]
    TargetForm,
    #[error("a blank, a control character or a number sign in the request target")]
    TargetByte,
    #[error("the request target: {0}")]
    Path(#[from] PathError),
    #[error("a header line is not a name, a colon right after it, and a value on the same line")]
    HeaderSyntax,
    #[error("Host is missing, given twice, invalid, or contradicts the request target")]
    Host,
    #[error("the length of the body is given in more than one way, or in none that all servers share")]
    Framing,
    #[error("a WebSocket upgrade without its key or version, or of another request than a plain GET")]
    Upgrade,
    #[error("an expectation other than 100-continue")]
    Expectation,
}

impl HeadError {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Connect => 405,
            Self::Version => 505,
            Self::TargetTooLong => 414,
            Self::TooLarge | Self::TooManyHeaders => 431,
            Self::Expectation => 417,
            Self::RequestLine
            | Self::LineEnding
            | Self::TargetForm
            | Self::TargetByte
            | Self::Path(_)
            | Self::HeaderSyntax
            | Self::Host
            | Self::Framing
            | Self::Upgrade => 400,
        }
    }

    /// What the record says.
    pub fn kind(self) -> MalformedKind {
        match self {
            Self::Connect => MalformedKind::Method,
            Self::RequestLine | Self::Version | Self::Expectation => MalformedKind::BadRequest,
            Self::TargetTooLong => MalformedKind::UriTooLong,
            Self::TooLarge | Self::TooManyHeaders => MalformedKind::HeadTooLarge,
            Self::LineEnding => MalformedKind::LineEnding,
            Self::TargetForm | Self::TargetByte | Self::Path(_) => MalformedKind::Target,
            Self::HeaderSyntax => MalformedKind::HeaderSyntax,
            Self::Host => MalformedKind::Host,
            Self::Framing => MalformedKind::Framing,
            Self::Upgrade => MalformedKind::Upgrade,
        }
    }
}

/// Reads the head at the start of `buf`; `None` means that more bytes are needed.
///
/// `resume_at` is the length that `buf` had at the previous call for this head, or 0: what was judged then
/// is not judged again, so that a head which arrives byte by byte costs about as much as one that arrives
/// whole. The answer does not depend on how the bytes were split. An error is reported with the byte that
/// makes it certain; what takes the whole head to know (`Host`, framing, upgrade, expectation), at its end.
///
/// What is tolerated: one CR LF before the request line, any upper-case method, blanks around a header's
/// value, bytes beyond ASCII in it. What is not, although RFC 9112 lets a recipient choose: bare LF, folded
/// lines, a method in lower case, a minor version above 1, a repeated or listed Content-Length even of equal
/// numbers, a coding before or after `chunked`, trailing blanks in the request line.
pub fn scan(buf: &[u8], resume_at: usize, limits: &HeadLimits) -> Result<Option<Head>, HeadError> {
    let window = &buf[..buf.len().min(limits.max_bytes)];
    let found = Walk { window, limits }.scan(resume_at.min(window.len()))?;
    match found {
        None if buf.len() >= limits.max_bytes => Err(HeadError::TooLarge),
        found => Ok(found),
    }
}

/// A head as far as it has arrived.
struct Walk<'a> {
    window: &'a [u8],
    limits: &'a HeadLimits,
}

impl<'a> Walk<'a> {
    fn scan(&self, resume_at: usize) -> Result<Option<Head>, HeadError> {
        let Some(start) = self.start()? else { return Ok(None) };
        let known = self.window.get(start..resume_at).unwrap_or_default();
        match memchr(b'\n', &self.window[start + known.len()..]) {
            _ if known.is_empty() => self.whole(start),
            None => {
                // A CR that waited for its LF is looked at once more.
                let from = start + known.len() - usize::from(known.ends_with(b"\r"));
                self.unfinished_line(start, from)?;
                Ok(None)
            }
            Some(_) => match memrchr(b'\n', known) {
                None => self.whole(start),
                Some(line_feed) => {
                    let headers = memchr_iter(b'\n', &known[..line_feed]).count();
                    match self.headers(start + line_feed + 1, headers, &mut Fields::default())? {
                        None => Ok(None),
                        Some(_) => self.whole(start),
                    }
                }
            },
        }
    }

    /// Where the request line begins. Some old clients send a CR LF after a body that they did not count.
    fn start(&self) -> Result<Option<usize>, HeadError> {
        match self.window {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => Ok(Some(2)),
            [b'\r' | b'\n', ..] => Err(HeadError::LineEnding),
            _ => Ok(Some(0)),
        }
    }

    fn whole(&self, start: usize) -> Result<Option<Head>, HeadError> {
        let Some((line, next)) = self.request_line(start)? else { return Ok(None) };
        let mut fields = Fields::default();
        match self.headers(next, 0, &mut fields)? {
            None => Ok(None),
            Some(len) => fields.head(&line, len).map(Some),
        }
    }

    /// The request line and where the next line begins.
    fn request_line(&self, start: usize) -> Result<Option<(RequestLine<'a>, usize)>, HeadError> {
        let Some(method) = check_method(&self.window[start..])? else { return Ok(None) };
        let Some(content) = self.line(start) else {
            self.unfinished_request_line(start, start)?;
            return Ok(None);
        };
        let end = start + content.len();
        if content.len() > self.max_request_line(method) {
            self.check_bytes(start, start + self.max_request_line(method) + 1, HeadError::TargetByte)?;
            return Err(HeadError::TargetTooLong);
        }
        self.check_bytes(start, end, HeadError::TargetByte)?;
        let next = self.after_line_end(end)?;
        let line = RequestLine::parse(content, method, self.limits)?;
        Ok(Some((line, next)))
    }

    /// The header lines from `at` on; `count` came before. Returns the length of the head when it is whole.
    fn headers(
        &self,
        mut at: usize,
        mut count: usize,
        fields: &mut Fields<'a>,
    ) -> Result<Option<usize>, HeadError> {
        while let Some(content) = self.line(at) {
            let end = at + content.len();
            self.check_bytes(at, end, HeadError::HeaderSyntax)?;
            at = self.after_line_end(end)?;
            if content.is_empty() {
                return Ok(Some(at));
            }
            count += 1;
            if count > self.limits.max_headers {
                return Err(HeadError::TooManyHeaders);
            }
            fields.read_line(content)?;
        }
        self.check_bytes(at, self.window.len(), HeadError::HeaderSyntax)?;
        Ok(None)
    }

    /// The line at `at` without its end; `None` if its LF has not arrived.
    fn line(&self, at: usize) -> Option<&'a [u8]> {
        let rest = &self.window[at..];
        let line = &rest[..memchr(b'\n', rest)?];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Where the next line begins, given the end of this one's content.
    fn after_line_end(&self, end: usize) -> Result<usize, HeadError> {
        if self.window[end] == b'\r' { Ok(end + 2) } else { Err(HeadError::LineEnding) }
    }

    /// Judges a line of which nothing but the end is missing, from `from` on.
    fn unfinished_line(&self, start: usize, from: usize) -> Result<(), HeadError> {
        match memchr(b'\n', &self.window[start..]) {
            None => self.unfinished_request_line(start, from),
            Some(_) => self.check_bytes(from, self.window.len(), HeadError::HeaderSyntax),
        }
    }

    fn unfinished_request_line(&self, start: usize, from: usize) -> Result<(), HeadError> {
        let line = &self.window[start..];
        let Some(method) = check_method(line)? else { return Ok(()) };
        let content = line.strip_suffix(b"\r").unwrap_or(line);
        let max = self.max_request_line(method);
        self.check_bytes(from, self.window.len().min(start + max + 1), HeadError::TargetByte)?;
        if content.len() > max { Err(HeadError::TargetTooLong) } else { Ok(()) }
    }

    /// `METHOD SP target SP HTTP/1.1` with the longest target.
    fn max_request_line(&self, method: &[u8]) -> usize {
        method.len() + 1 + self.limits.max_target + b" HTTP/1.1".len()
    }

    /// Finds the first byte of `from..to` that may not be within a line. A CR at the very end of what has
    /// arrived may still get its LF.
    fn check_bytes(&self, from: usize, to: usize, control: HeadError) -> Result<(), HeadError> {
        let bytes = &self.window[from..to];
        // Without an early exit the compiler makes vector code of it.
        let is_plain = bytes.iter().fold(true, |plain, &b| plain & ((b >= b' ') & (b != 0x7f)));
        if is_plain {
            return Ok(());
        }
        for (n, &byte) in bytes.iter().enumerate() {
            match byte {
                b'\r' if self.window.get(from + n + 1).is_none_or(|&next| next == b'\n') => {}
                b'\r' | b'\n' | 0 => return Err(HeadError::LineEnding),
                b'\t' if control == HeadError::HeaderSyntax => {}
                0..b' ' | 0x7f => return Err(control),
                _ => {}
            }
        }
        Ok(())
    }
}
