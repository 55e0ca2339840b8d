//! Why a page cannot be shown or a change cannot be made, as a status and a sentence.
//! Must not tell a visitor what only the log of the gateway should hold.

use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use portcullis_store::StoreError;

use super::layout;

/// When to try again when the console was busy.
const BUSY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// There is no session, or it has ended.
    #[error("You are not signed in.")]
    SignedOut,

    #[error("{0}")]
    NotFound(String),

    /// The form or the address says something that cannot be; names the field and the remedy.
    #[error("{0}")]
    Invalid(String),

    #[error("{0}")]
    Forbidden(String),

    /// What was asked contradicts what stands.
    #[error("{0}")]
    Conflict(String),

    #[error("The console is busy. Try again in a moment.")]
    Busy,

    /// There was too much of something from one place.
    #[error("{sentence}")]
    TooMany { sentence: String, wait: Duration },

    #[error(transparent)]
    Store(#[from] StoreError),

    /// What the running gateway could not do.
    #[error("{0}")]
    Failed(String),
}

impl PageError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::SignedOut => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Store(_) | Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Says how long to wait before trying again, where that helps.
    pub(super) fn add_wait(&self, headers: &mut HeaderMap) {
        let wait = match self {
            Self::Busy => BUSY,
            Self::TooMany { wait, .. } => *wait,
            Self::SignedOut
            | Self::NotFound(_)
            | Self::Invalid(_)
            | Self::Forbidden(_)
            | Self::Conflict(_)
            | Self::Store(_)
            | Self::Failed(_) => return,
        };
        headers.insert(RETRY_AFTER, wait.as_secs().max(1).into());
    }

    /// Failures of our own side are logged once, here.
    pub(super) fn note(&self) {
        if self.status() == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!("the console could not answer: {self}");
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        self.note();
        match self {
            Self::SignedOut => Redirect::to("/login").into_response(),
            _ => {
                let mut response = layout::failure(self.status(), &self.to_string());
                self.add_wait(response.headers_mut());
                response
            }
        }
    }
}
