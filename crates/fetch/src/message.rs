//! What is sent and what comes back. Debug forms show no values: headers and bodies may hold secrets.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;

use crate::masked;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

/// One request.
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    /// `http` or `https`; a user and a password in it are sent as basic authorisation.
    pub url: String,
    /// Names and values. They go to the origin of `url` only; after a redirect to another origin just
    /// `Accept` and the conditional headers are sent.
    pub headers: Vec<(String, String)>,
    /// Sent with POST only.
    pub body: Vec<u8>,
    /// The largest body of an answer, in bytes.
    pub max_bytes: u64,
    /// For the whole exchange, redirects included; `None` takes the fetcher's.
    pub timeout: Option<Duration>,
}

impl Request {
    pub fn get(url: impl Into<String>, max_bytes: u64) -> Self {
        Self {
            method: Method::Get,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            max_bytes,
            timeout: None,
        }
    }

    pub fn post(url: impl Into<String>, body: Vec<u8>, max_bytes: u64) -> Self {
        Self { method: Method::Post, body, ..Self::get(url, max_bytes) }
    }

    /// The same with one header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &masked(&self.url))
            .field("headers", &self.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .field("max_bytes", &self.max_bytes)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// One answer, whatever its status: only the caller knows what a 404 means.
pub struct Response {
    pub status: u16,
    headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Response {
    pub(crate) fn new(status: u16, headers: HeaderMap, body: Vec<u8>) -> Self {
        Self { status, headers, body }
    }

    /// The first header of this name, in any case of letters; `None` too when it is not plain text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
