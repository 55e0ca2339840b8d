//! What can go wrong on the way to a server, one sentence each. Must not show a secret of a URL.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

/// Why there is no response. `at` names scheme, host and port only: paths and queries may hold tokens.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{at} is no URL to fetch: {problem}")]
    Url { at: String, problem: String },
    #[error("cannot use the certificates in {}: {problem}", path.display())]
    Trust { path: PathBuf, problem: String },
    #[error("the request to {at} cannot be sent: {problem}")]
    Request { at: String, problem: String },
    #[error("{at}: the name has no address; check it and this machine's DNS")]
    Dns { at: String },
    #[error("{at} refuses the connection; check the address and whether the server runs")]
    Refused { at: String },
    #[error("cannot connect to {at}: {problem}")]
    Connect { at: String, problem: String },
    #[error("{at} did not answer completely within {} s", after.as_secs_f64())]
    Timeout { at: String, after: Duration },
    #[error("TLS with {at} failed: {problem}")]
    Tls { at: String, problem: String },
    /// `status` is that of the answer.
    #[error("the answer of {at} is larger than the {max} bytes that are accepted")]
    TooLarge { at: String, max: u64, status: u16 },
    #[error("{at} sent what is no valid HTTP: {problem}")]
    Protocol { at: String, problem: String },
    #[error("the connection to {at} broke: {source}")]
    Broken { at: String, source: io::Error },
    #[error("{at} redirects to {to}, which is refused: {problem}")]
    Redirect { at: String, to: String, problem: &'static str },
}

/// A URL without what may be secret: scheme, host and port, and that there is more.
pub fn masked(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "the URL".to_owned(), |url| masked_url(&url))
}

pub(crate) fn masked_url(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let rest = if url.path() == "/" && url.query().is_none() { "" } else { "/..." };
    format!("{}://{host}{port}{rest}", url.scheme())
}

/// Words of a peer or a library in one short, harmless line.
pub(crate) fn one_line(text: &dyn std::fmt::Display) -> String {
    const LONGEST: usize = 300;
    text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_may_be_secret_is_left_of_a_url() {
        for (url, want) in [
            (
                "https://user:pw@hooks.example.com/services/T0/B0/secret?token=x",
                "https://hooks.example.com/...",
            ),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("not a url with token=x", "the URL"),
        ] {
            assert_eq!(masked(url), want);
        }
    }
}
