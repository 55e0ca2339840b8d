//! What a request is judged by. Plain data, borrowed from the request for as long as the decision takes.
//! Must not look anything up: the caller fills in what the rules in force ask for.

use std::borrow::Cow;
use std::fmt;

use portcullis_model::{ClientIp, Identity};

/// One request as the rules see it. Built once per request.
#[derive(Clone, Debug)]
pub struct RequestFacts<'a> {
    pub client: ClientIp,
    pub method: &'a str,
    /// Lower case, without port and trailing dot.
    pub host: &'a str,
    /// From [`portcullis_model::normalise_path`].
    pub path: Cow<'a, str>,
    /// The path as sent, without the query.
    pub raw_path: &'a [u8],
    /// As sent, without the `?`.
    pub query: &'a [u8],
    /// What the gateway has verified; `None` is anonymous.
    pub identity: Option<&'a Identity>,
    /// As sent, at most [`portcullis_model::limits::USER_AGENT`] bytes; empty when no rule in force asks for it.
    pub user_agent: &'a str,
    /// Unknown when no rule in force asks for it.
    pub place: Place,
    pub headers: &'a dyn RequestHeaders,
}

impl<'a> RequestFacts<'a> {
    /// An anonymous request of which nothing more is known.
    pub fn new(client: ClientIp, method: &'a str, host: &'a str, path: Cow<'a, str>) -> Self {
        let (user_agent, place, headers) = ("", Place::default(), &NoHeaders);
        let (raw_path, query) = (&b""[..], &b""[..]);
        Self { client, method, host, path, raw_path, query, identity: None, user_agent, place, headers }
    }
}

/// Where a client is, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<[u8; 2]>,
    /// The autonomous system's number.
    pub asn: Option<u32>,
}

/// The headers of a request, for the rules that count by one.
pub trait RequestHeaders: fmt::Debug + Sync {
    /// The value of the header `name` (lower case) if it is there exactly once. Two of them can be read in two
    /// ways, so they are none.
    fn only(&self, name: &str) -> Option<&[u8]>;
}

/// A request without headers.
#[derive(Clone, Copy, Debug)]
pub struct NoHeaders;

impl RequestHeaders for NoHeaders {
    fn only(&self, _: &str) -> Option<&[u8]> {
        None
    }
}
