//! One logged request as the detector sees it. Owns how an answer is to be read; must not judge clients.

use portcullis_model::{ClientIp, LoginOutcome, UnixMs, VerdictKind};

/// One request of the log, borrowed. Every text is the client's: never trust, always bound.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// When the request began.
    pub time: UnixMs,
    pub client: ClientIp,
    /// The status that the client was sent; 0 when nothing could be sent.
    pub status: u16,
    pub verdict: VerdictKind,
    /// Body bytes to the client.
    pub bytes_out: u64,
    pub method: &'a str,
    pub host: &'a str,
    /// As the client sent it, without the query.
    pub path: &'a str,
    /// Without the `?`; empty when there is none.
    pub query: &'a str,
    pub user_agent: &'a str,
    pub referer: &'a str,
    /// The verified user; empty when there is none.
    pub user: &'a str,
    /// How a login ended, where the gateway saw it.
    pub login: Option<LoginOutcome>,
    /// What the caller knows of the crawler that the user agent names.
    pub bot: BotStatus,
}

/// What is known of a client that names itself as a well-known crawler, monitor or feed reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BotStatus {
    /// It names itself as none.
    #[default]
    None,
    /// It names itself as one, and nothing is known yet, or nothing can be known.
    Claimed,
    /// Its address is the crawler's: such requests are never scored.
    Verified,
    /// Its address is certainly not the crawler's.
    False,
}

/// What an answer says about the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 2xx, or 304: the site owns what was asked for.
    Served,
    /// 3xx other than 304, or an interim answer: says nothing, since many sites redirect everything.
    Redirected,
    /// 4xx by the upstream.
    ClientError,
    /// 5xx or nothing: not the client's fault.
    Failed,
    /// By the gateway itself: never the client's error.
    Refused,
}

impl Answer {
    pub(crate) fn of(verdict: VerdictKind, status: u16) -> Self {
        if verdict.is_refusal() {
            return Self::Refused;
        }
        match status {
            200..=299 | 304 => Self::Served,
            100..=199 | 300..=399 => Self::Redirected,
            400..=498 => Self::ClientError,
            _ => Self::Failed,
        }
    }
}

/// Whether the status counts as the client's error. Not 408 and 499 (a connection broke), not 429 (the
/// upstream's own limit).
pub(crate) fn is_client_error(status: u16) -> bool {
    (400..=498).contains(&status) && !matches!(status, 408 | 429)
}

/// Whether the status says that the path is not there, or not for this client. Not 401, which is how a
/// password prompt begins.
pub(crate) fn is_missing(status: u16) -> bool {
    matches!(status, 400 | 403 | 404 | 405 | 406 | 410 | 414)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_own_answers_are_nobodys_errors() {
        for verdict in VerdictKind::ALL.into_iter().filter(|v| v.is_refusal()) {
            assert_eq!(Answer::of(verdict, 403), Answer::Refused);
        }
        assert_eq!(Answer::of(VerdictKind::WouldBlock, 404), Answer::ClientError);
        assert_eq!(Answer::of(VerdictKind::Admitted, 502), Answer::Failed);
        assert_eq!(Answer::of(VerdictKind::Admitted, 304), Answer::Served);
        assert!(!is_client_error(429) && !is_client_error(499) && is_client_error(401));
        assert!(!is_missing(401) && is_missing(404));
    }
}
