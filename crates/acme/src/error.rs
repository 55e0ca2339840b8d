//! What can keep a certificate from being issued.

use std::error::Error;
use std::path::{Path, PathBuf};

/// The longest message of an authority that is kept, in characters.
const MAX_MESSAGE: usize = 500;

/// Each message names the place and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is broken: {problem}")]
    Broken { path: PathBuf, problem: String },
    #[error("cannot trust the authority's server: {0}")]
    Trust(String),
    #[error("{}", printable(.0))]
    Authority(#[from] instant_acme::Error),
    #[error("the authority could not verify the name: {0}")]
    NotVerified(String),
    #[error("the authority does not offer the challenge {0}; choose the other one")]
    NotOffered(&'static str),
    #[error("the proof cannot be shown: {0}")]
    NotShown(String),
    #[error("the authority sent a certificate that cannot be used: {0}")]
    Unusable(String),
    #[error(
        "by this machine's clock the certificate that was issued now has to be renewed already; set the clock right"
    )]
    Clock,
    #[error("the authority took too long")]
    Timeout,
}

impl AcmeError {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    /// The kind of problem that the authority named, such as `rateLimited` (RFC 8555, 6.7).
    fn problem(&self) -> Option<&str> {
        match self {
            Self::Authority(instant_acme::Error::Api(problem)) => {
                problem.r#type.as_deref()?.strip_prefix("urn:ietf:params:acme:error:")
            }
            _ => None,
        }
    }

    pub(crate) fn is_rate_limited(&self) -> bool {
        self.problem() == Some("rateLimited")
    }

    /// Whether the account is unknown to the authority, so that another one is needed.
    pub(crate) fn is_without_account(&self) -> bool {
        self.problem() == Some("accountDoesNotExist")
    }
}

/// An error and its causes in one line. What an authority says is its own choice, so it is cut and made harmless.
fn printable(error: &instant_acme::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    one_line(&text)
}

pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect()
}
