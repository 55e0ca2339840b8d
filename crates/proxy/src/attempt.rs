//! One request on its way to a server: which one, whether a failed try is repeated, and who is to blame.
//! Must not answer the client.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::{Error, ErrorSource, ErrorType};
use portcullis_model::UpstreamFailure;

use crate::pool::{Admission, Lease, Pool, Unavailable};

/// The tries of one request.
pub(crate) struct Attempt {
    pool: Arc<Pool>,
    admission: Option<Admission>,
    lease: Option<Lease>,
    /// The server that failed before.
    failed: Option<SocketAddr>,
    /// Whether the head has gone out on the present try: only then Pingora asks for the body.
    is_head_sent: bool,
    /// Whether the client has sent its whole request: a server that waits for the rest is not slow.
    is_request_whole: bool,
    /// Whether a proper answer has begun.
    is_answered: bool,
    refusal: Option<Unavailable>,
}

/// What the gateway answers when it asked no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unasked {
    pub(crate) status: u16,
    pub(crate) failure: UpstreamFailure,
    pub(crate) retry_after: Option<Duration>,
}

/// When a client should come back to servers that are full.
const RETRY_BUSY: Duration = Duration::from_secs(1);

/// What is known of a try that broke off, beside its error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken {
    pub(crate) is_idempotent: bool,
    /// Whether the connection had served a request before.
    pub(crate) was_kept: bool,
    /// Bytes of the request's body that were taken from the client.
    pub(crate) body_bytes: u64,
    /// Whether the client has got the head of an answer, an interim one too.
    pub(crate) has_answer: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It could not be written to.
    Write,
    /// It was closed or reset before an answer.
    Closed,
    /// Too slow, or no HTTP.
    Other,
}

impl Attempt {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            admission: None,
            lease: None,
            failed: None,
            is_head_sent: false,
            is_request_whole: false,
            is_answered: false,
            refusal: None,
        }
    }

    /// The server of the next try; `None` when there is none to ask, which [`Self::unasked`] explains.
    pub(crate) async fn next_server(&mut self, client: IpAddr) -> Option<&Lease> {
        self.is_head_sent = false;
        self.lease = None;
        if self.admission.is_none() {
            match self.pool.admit(Instant::now()) {
                Ok(admission) => self.admission = Some(admission),
                Err(why) => {
                    self.refusal = Some(why);
                    return None;
                }
            }
        }
        match self.pool.server(client, self.failed).await {
            Ok(lease) => self.lease = Some(lease),
            Err(why) => self.refusal = Some(why),
        }
        self.lease.as_ref()
    }

    /// The server of the present try.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Pingora goes on to the body, of which this part may be the last.
    pub(crate) fn body_goes_on(&mut self, is_last: bool) {
        self.is_head_sent = true;
        self.is_request_whole |= is_last;
    }

    /// Why no server was asked.
    pub(crate) fn unasked(&self) -> Option<Unasked> {
        let (status, failure, retry_after) = match self.refusal? {
            Unavailable::NoneHealthy => (502, UpstreamFailure::NoneHealthy, None),
            Unavailable::Busy => (503, UpstreamFailure::Busy, Some(RETRY_BUSY)),
            Unavailable::CircuitOpen(left) => (503, UpstreamFailure::CircuitOpen, Some(left)),
        };
        Some(Unasked { status, failure, retry_after })
    }

    /// No connection. Returns whether to try again: nothing was sent, so any request may be, but only a server
    /// other than the one that has just refused is worth it.
    pub(crate) fn not_connected(&mut self, error: &Error) -> bool {
        let Some(lease) = self.lease.take() else { return false };
        // That there is no socket to connect with, for want of descriptors, is not the server's doing.
        if !matches!(error.etype(), ErrorType::InternalError) {
            lease.failed(Instant::now());
        }
        self.failed = Some(lease.address());
        self.pool.has_other(lease.address())
    }

    /// The connection failed after it was made. Returns whether to try again.
    pub(crate) fn broke(&mut self, error: &Error, broken: Broken) -> bool {
        let is_servers_fault = matches!(error.esource(), ErrorSource::Upstream);
        let Some(lease) = self.lease.take() else { return false };
        if !is_servers_fault || self.is_answered {
            return false;
        }
        let end = match error.etype() {
            ErrorType::WriteError => End::Write,
            ErrorType::ConnectionClosed | ErrorType::ReadError => End::Closed,
            _ => End::Other,
        };
        // A kept connection that is closed just when it is used again is nobody's fault.
        let is_blameless = broken.was_kept && end != End::Other;
        if !is_blameless && !self.waited_for_client(error.etype()) {
            lease.failed(Instant::now());
        }
        self.failed = Some(lease.address());
        may_repeat(end, self.is_head_sent, broken)
            && (broken.was_kept || self.pool.has_other(lease.address()))
    }

    /// Whether nothing came of the server because nothing more came of the client.
    fn waited_for_client(&self, error: &ErrorType) -> bool {
        matches!(error, ErrorType::ReadTimedout) && !self.is_request_whole
    }

    /// The head of an answer has come.
    pub(crate) fn answered(&mut self, status: u16) {
        if self.is_answered || (status < 200 && status != 101) {
            return;
        }
        self.is_answered = true;
        let now = Instant::now();
        let is_failure = self.pool.is_failure(status);
        if let Some(lease) = &self.lease {
            if is_failure { lease.failed(now) } else { lease.answered(now) }
        }
        if let Some(admission) = &mut self.admission {
            if is_failure { admission.failed(now) } else { admission.answered(now) }
        }
    }

    /// The last try is over without an answer.
    pub(crate) fn ended(&mut self, failure: UpstreamFailure, error: &Error) {
        let is_pools_fault = match failure {
            UpstreamFailure::ReadTimeout if self.waited_for_client(error.etype()) => false,
            UpstreamFailure::Connect
            | UpstreamFailure::ConnectTimeout
            | UpstreamFailure::Tls
            | UpstreamFailure::Broken
            | UpstreamFailure::ReadTimeout => true,
            // Of the first try, when there is nobody left for the second.
            UpstreamFailure::NoneHealthy | UpstreamFailure::Busy => self.failed.is_some(),
            UpstreamFailure::CircuitOpen
            | UpstreamFailure::ClientGone
            | UpstreamFailure::NoRoute
            | UpstreamFailure::Internal
            | UpstreamFailure::Interrupted => false,
        };
        if is_pools_fault && let Some(admission) = &mut self.admission {
            admission.failed(Instant::now());
        }
    }
}

/// Whether the request can be sent once more without any server acting on it twice.
fn may_repeat(end: End, is_head_sent: bool, broken: Broken) -> bool {
    if broken.has_answer || broken.body_bytes > 0 {
        return false;
    }
    match end {
        // A server that has not got the whole head has not got a request.
        End::Write if !is_head_sent => true,
        End::Write | End::Closed => broken.is_idempotent,
        // What was too slow once would take as long again.
        End::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Broken = Broken { is_idempotent: true, was_kept: false, body_bytes: 0, has_answer: false };
    const POST: Broken = Broken { is_idempotent: false, ..GET };

    #[test]
    fn what_a_server_may_have_acted_on_is_repeated_only_when_that_does_no_harm() {
        for (end, is_head_sent, broken, may) in [
            (End::Closed, true, GET, true),
            (End::Write, true, GET, true),
            (End::Write, false, GET, true),
            (End::Other, true, GET, false),
            (End::Closed, true, POST, false),
            (End::Write, true, POST, false),
            // The head could not be written, so nobody has it.
            (End::Write, false, POST, true),
            // Read from the client, and perhaps sent.
            (End::Closed, true, Broken { body_bytes: 1, ..GET }, false),
            (End::Write, false, Broken { body_bytes: 1, ..GET }, false),
            (End::Closed, true, Broken { has_answer: true, ..GET }, false),
        ] {
            assert_eq!(may_repeat(end, is_head_sent, broken), may, "{end:?} {is_head_sent} {broken:?}");
        }
    }
}
