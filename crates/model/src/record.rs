//! One request as it is handed from the edge to the log.

use crate::{ClientIp, LoggedReason, LoginOutcome, Reason, RequestId, VerdictKind};

/// The longest text of each field that is kept; what is longer is cut at a character boundary.
pub mod limits {
    pub const METHOD: usize = 32;
    pub const HOST: usize = 255;
    pub const PATH: usize = 2_048;
    pub const QUERY: usize = 2_048;
    pub const USER_AGENT: usize = 512;
    pub const REFERER: usize = 1_024;
    pub const USER: usize = 128;
}

/// The protocol between client and gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
    /// The bytes never told.
    Unknown,
}

impl Protocol {
    /// The text in the protocol column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Unknown => "",
        }
    }
}

/// The text fields of a request, borrowed. Bytes that are not UTF-8 become U+FFFD in [`RecordText`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TextFields<'a> {
    pub method: &'a [u8],
    pub host: &'a [u8],
    pub path: &'a [u8],
    pub query: &'a [u8],
    pub user_agent: &'a [u8],
    pub referer: &'a [u8],
    pub user: &'a [u8],
}

const FIELDS: usize = 7;

/// All text fields of a record in one allocation: a record is made for every request, and seven
/// strings would cost seven allocations on the request path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordText {
    buffer: Box<str>,
    ends: [u16; FIELDS],
}

// The ends of the fields fit into u16, U+FFFD's growth (1 byte to 3) included.
const _: () = assert!(
    3 * (limits::METHOD
        + limits::HOST
        + limits::PATH
        + limits::QUERY
        + limits::USER_AGENT
        + limits::REFERER
        + limits::USER)
        <= u16::MAX as usize
);

impl RecordText {
    /// Copies the fields, cutting each at its limit.
    pub fn new(fields: TextFields<'_>) -> Self {
        let parts: [(&[u8], usize); FIELDS] = [
            (fields.method, limits::METHOD),
            (fields.host, limits::HOST),
            (fields.path, limits::PATH),
            (fields.query, limits::QUERY),
            (fields.user_agent, limits::USER_AGENT),
            (fields.referer, limits::REFERER),
            (fields.user, limits::USER),
        ];
        let total = parts.iter().map(|(bytes, limit)| bytes.len().min(*limit)).sum();
        let mut buffer = String::with_capacity(total);
        let mut ends = [0; FIELDS];
        for ((bytes, limit), end) in parts.into_iter().zip(&mut ends) {
            push_lossy(&mut buffer, cut_text(bytes, limit));
            *end = u16::try_from(buffer.len()).unwrap_or(u16::MAX);
        }
        Self { buffer: buffer.into_boxed_str(), ends }
    }

    fn field(&self, n: usize) -> &str {
        let start = if n == 0 { 0 } else { usize::from(self.ends[n - 1]) };
        &self.buffer[start..usize::from(self.ends[n])]
    }

    pub fn method(&self) -> &str {
        self.field(0)
    }

    /// Without the port, lower case.
    pub fn host(&self) -> &str {
        self.field(1)
    }

    /// As the client sent it, without the query.
    pub fn path(&self) -> &str {
        self.field(2)
    }

    /// Without the `?`; empty when there is none.
    pub fn query(&self) -> &str {
        self.field(3)
    }

    pub fn user_agent(&self) -> &str {
        self.field(4)
    }

    pub fn referer(&self) -> &str {
        self.field(5)
    }

    /// The verified user; empty when there is none.
    pub fn user(&self) -> &str {
        self.field(6)
    }
}

/// At most `limit` bytes, and no half of a UTF-8 character at the end.
pub fn cut_text(bytes: &[u8], limit: usize) -> &[u8] {
    if bytes.len() <= limit {
        return bytes;
    }
    let mut end = limit;
    while end > 0 && bytes[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    &bytes[..end]
}

fn push_lossy(buffer: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        buffer.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            buffer.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// One request, refused ones and those that never became one included.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// Holds the time at which the request began.
    pub id: RequestId,
    pub client: ClientIp,
    pub protocol: Protocol,
    /// The status that the client was sent; 0 when nothing could be sent.
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the request's first byte to the last byte of the answer, in microseconds.
    pub latency_us: u64,
    pub verdict: VerdictKind,
    /// Why the verdict is what it is. Never [`Reason::Login`]: that a request was a login is said below, whatever
    /// else there is to say.
    pub reason: Reason,
    /// How the login ended, if it was one that reached the upstream.
    pub login: Option<LoginOutcome>,
    pub text: RecordText,
}

impl RequestRecord {
    /// What the reason column of the log holds.
    pub fn logged_reason(&self) -> LoggedReason<'_> {
        LoggedReason { reason: &self.reason, login: self.login }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_given() {
        let text = RecordText::new(TextFields {
            method: b"GET",
            host: b"example.com",
            path: b"/a",
            query: b"",
            user_agent: "Bräuser".as_bytes(),
            referer: b"https://example.com/",
            user: b"",
        });
        assert_eq!((text.method(), text.host(), text.path(), text.query()), ("GET", "example.com", "/a", ""));
        assert_eq!((text.user_agent(), text.referer(), text.user()), ("Bräuser", "https://example.com/", ""));
    }

    #[test]
    fn hostile_text_is_cut_and_made_utf8() {
        let long = "é".repeat(3_000);
        let text = RecordText::new(TextFields {
            path: long.as_bytes(),
            user_agent: &[0xff; 4_000],
            query: b"a\xffb",
            ..TextFields::default()
        });
        assert_eq!(text.path().len(), limits::PATH);
        assert_eq!(text.query(), "a\u{fffd}b");
        assert_eq!(text.user_agent().chars().count(), limits::USER_AGENT);
    }
}
