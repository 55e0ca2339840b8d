//! One request as an access log tells it. Plain data; must not say what it means.

use std::borrow::Cow;

use portcullis_model::{ClientIp, UnixMs};

/// One line. Every text is the client's: never trust, always bound. What is not in the line is empty or zero.
///
/// There is no user: what servers log as one is whatever the client claimed, a wrong password included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When the request began or ended, as the server has it; to the second in most formats.
    pub time: UnixMs,
    pub client: ClientIp,
    /// The status that the client was sent; 0 when the log has none.
    pub status: u16,
    /// Bytes to the client, with or without the head, as the server counts.
    pub bytes_out: u64,
    /// What the client sent was no HTTP request, or one that a gateway never forwards. The text is in `path`.
    pub is_malformed: bool,
    pub method: Cow<'a, str>,
    /// Lower case, without the port.
    pub host: Cow<'a, str>,
    /// As it was sent, without the query; absolute URIs as they are.
    pub path: Cow<'a, str>,
    /// Without the `?`.
    pub query: Cow<'a, str>,
    pub user_agent: Cow<'a, str>,
    pub referer: Cow<'a, str>,
}
