//! Failures as `application/problem+json` (RFC 9457): the kinds that there are, and what each tells.
//! Must not tell a caller what only the log of the gateway should hold.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use portcullis_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::console::error::PageError;

pub(super) const CONTENT: &str = "application/problem+json";
/// What a caller is asked to wait when all readers are busy, in seconds.
const BUSY_RETRY: u64 = 1;

/// Why a call failed. Each kind is described below `/api`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    TooLarge,
    UnsupportedMediaType,
    Misdirected,
    Invalid,
    TooManyAttempts,
    Internal,
    Busy,
}

impl Kind {
    pub(super) const ALL: [Self; 13] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Misdirected,
        Self::Invalid,
        Self::TooManyAttempts,
        Self::Internal,
        Self::Busy,
    ];

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The last part of `type`, and the name of the response in the OpenAPI document.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Conflict => "conflict",
            Self::TooLarge => "too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::Misdirected => "misdirected",
            Self::Invalid => "invalid",
            Self::TooManyAttempts => "too-many-attempts",
            Self::Internal => "internal",
            Self::Busy => "busy",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request cannot be read",
            Self::Unauthorized => "No valid token",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "No such method here",
            Self::Conflict => "It contradicts what stands",
            Self::TooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body is no JSON",
            Self::Misdirected => "Not the console's name",
            Self::Invalid => "A value cannot be",
            Self::TooManyAttempts => "Too many wrong tokens",
            Self::Internal => "The gateway failed",
            Self::Busy => "Too much at once",
        }
    }

    /// For people who read about the API: when it comes, and what to do.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::BadRequest => {
                "The body is no JSON, or the address is no valid text. Send it as the document says."
            }
            Self::Unauthorized => {
                "There is no token, or it is unknown, revoked or has expired. Send Authorization: Bearer TOKEN with a \
                 token that an operator made."
            }
            Self::Forbidden => {
                "The token may only read, or the request came from a page of another site. Use a token with the scope \
                 \"write\"."
            }
            Self::NotFound => "There is nothing under this address, or nothing in force with this number.",
            Self::MethodNotAllowed => {
                "The address does not know the method. The header Allow names those that it knows."
            }
            Self::Conflict => {
                "What was asked contradicts what stands, such as a block of the gateway's own machine. The detail names \
                 the way around, where there is one."
            }
            Self::TooLarge => "The body is larger than the API takes. Send it in parts.",
            Self::UnsupportedMediaType => {
                "The body is not declared as JSON. Send Content-Type: application/json."
            }
            Self::Misdirected => {
                "The console does not answer to the name in Host. Use the address that it listens on, or set \
                 console.url to the address that you use."
            }
            Self::Invalid => {
                "A value is of the wrong kind or out of its range. errors names each field and the remedy."
            }
            Self::TooManyAttempts => {
                "Too many wrong tokens came from this address. Wait as many seconds as Retry-After says."
            }
            Self::Internal => {
                "The gateway could not do it. Its log has the reason; the detail has it where it may be told."
            }
            Self::Busy => {
                "All readers of the databases are busy. Try again after as many seconds as Retry-After says."
            }
        }
    }
}

/// One value that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// The parameter, or the path to the value in the body, such as `blocks[3].network`.
    pub(super) field: String,
    /// What was expected.
    pub(super) message: String,
}

/// Why a call failed (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// A reference to the description of this kind of failure, relative to the console's address.
    #[serde(rename = "type")]
    #[schema(example = "/api#invalid")]
    kind: String,
    /// The same for every failure of this kind.
    title: String,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong here, and the remedy.
    detail: String,
    /// Values that cannot be; only of the kind `invalid`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/api#{}", kind.as_str()),
            title: kind.title().to_owned(),
            status: kind.status().as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// The failure as its description tells it.
    pub(super) fn of(kind: Kind) -> Self {
        Self::new(kind, kind.about())
    }

    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, what)
    }

    pub(super) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// The detail repeats the first of them, for whoever shows nothing else.
    pub(super) fn fields(errors: Vec<FieldError>) -> Self {
        let first =
            errors.first().map_or_else(String::new, |first| format!("{}: {}", first.field, first.message));
        Self { errors, ..Self::new(Kind::Invalid, first) }
    }

    /// The status of the answer for a wait of so many seconds.
    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

impl From<PageError> for Problem {
    fn from(error: PageError) -> Self {
        error.note();
        let told = error.to_string();
        match error {
            PageError::SignedOut => Self::of(Kind::Unauthorized),
            PageError::NotFound(_) => Self::new(Kind::NotFound, told),
            PageError::Invalid(_) => Self::new(Kind::Invalid, told),
            PageError::Forbidden(_) => Self::new(Kind::Forbidden, told),
            PageError::Conflict(_) => Self::new(Kind::Conflict, told),
            PageError::TooMany { wait, .. } => {
                Self::new(Kind::TooManyAttempts, told).retry_after(wait.as_secs().max(1))
            }
            PageError::Busy => Self::of(Kind::Busy).retry_after(BUSY_RETRY),
            PageError::Store(StoreError::NotFound { .. }) => Self::new(Kind::NotFound, told),
            PageError::Store(_) | PageError::Failed(_) => Self::new(Kind::Internal, told),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"portcullis\""));
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
