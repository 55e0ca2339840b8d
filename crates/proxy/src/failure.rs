//! What an error of Pingora's means: the status that the client gets and the reason in the log.

use pingora::{Error, ErrorSource, ErrorType};
use portcullis_model::{MalformedKind, Reason, UpstreamFailure};

/// The status (0: there is nobody to answer) and the reason.
pub(crate) fn classify(error: &Error) -> (u16, Reason) {
    let upstream = |status, failure| (status, Reason::Upstream(failure));
    match (error.esource(), error.etype()) {
        (_, ErrorType::HTTPStatus(413)) => (413, Reason::Malformed(MalformedKind::BodyTooLarge)),
        (_, ErrorType::HTTPStatus(408)) => (408, Reason::Malformed(MalformedKind::IncompleteBody)),
        (_, ErrorType::HTTPStatus(status)) => upstream(*status, UpstreamFailure::Internal),
        (ErrorSource::Upstream, ErrorType::ConnectTimedout) => upstream(502, UpstreamFailure::ConnectTimeout),
        (
            ErrorSource::Upstream,
            ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::BindError
            | ErrorType::SocketError
            | ErrorType::ConnectProxyFailure,
        ) => upstream(502, UpstreamFailure::Connect),
        (
            ErrorSource::Upstream,
            ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::InvalidCert
            | ErrorType::HandshakeError
            | ErrorType::TLSWantX509Lookup,
        ) => upstream(502, UpstreamFailure::Tls),
        (ErrorSource::Upstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => {
            upstream(504, UpstreamFailure::ReadTimeout)
        }
        // No socket to connect with: the process has no descriptors left.
        (ErrorSource::Upstream, ErrorType::InternalError) => upstream(500, UpstreamFailure::Internal),
        (ErrorSource::Upstream, _) => upstream(502, UpstreamFailure::Broken),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => {
            (408, Reason::Malformed(MalformedKind::IncompleteBody))
        }
        (
            ErrorSource::Downstream,
            ErrorType::WriteError
            | ErrorType::ReadError
            | ErrorType::ConnectionClosed
            // A stream that was reset: what browsers do with a page that is left.
            | ErrorType::H2Error,
        ) => upstream(0, UpstreamFailure::ClientGone),
        (ErrorSource::Downstream, ErrorType::WriteTimedout) => {
            (0, Reason::Malformed(MalformedKind::SlowRead))
        }
        (ErrorSource::Downstream, _) => (400, Reason::Malformed(MalformedKind::BadRequest)),
        (ErrorSource::Internal | ErrorSource::Unset, _) => upstream(500, UpstreamFailure::Internal),
    }
}
