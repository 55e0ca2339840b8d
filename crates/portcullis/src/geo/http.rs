//! Carries questions to geo sources. Must not read the answers.

use std::time::Duration;

use portcullis_fetch::{FetchError, Fetcher, Request, Settings};
use portcullis_geo::{Ask, Reply, Transport};

/// Where the question itself says nothing else.
const TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// A client of its own for geo sources.
pub(crate) struct Http(Fetcher);

impl Http {
    /// # Errors
    /// The client cannot be made.
    pub(crate) fn new() -> Result<Self, FetchError> {
        let settings = Settings { timeout: TIMEOUT, user_agent: USER_AGENT.to_owned(), ca: None };
        Fetcher::new(settings).map(Self)
    }
}

impl Transport for Http {
    fn send(&mut self, ask: &Ask) -> Result<Reply, String> {
        let mut request = Request::get(&ask.url, ask.max_bytes).header("Accept", "application/json");
        if let Some(authorization) = &ask.authorization {
            request = request.header("Authorization", authorization.expose());
        }
        request.timeout = Some(ask.timeout);
        let response = self.0.send(&request).map_err(|error| error.to_string())?;
        let retry_after = response.header("retry-after").map(str::to_owned);
        Ok(Reply { status: response.status, retry_after, body: response.body })
    }
}
