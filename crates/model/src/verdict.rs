//! What became of a request and why, in the closed sets that the log, the metrics, the refusal page
//! and the commands share. A new variant does not compile until each of them names it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use crate::SharedPrefix;

/// The verdict column of `request_log` and the verdict label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// Nothing matched; the request went to the upstream.
    Admitted,
    /// An allow matched; blocks and limits were not asked.
    Allowed,
    /// A block or a rule of the access list matched: 403.
    Blocked,
    /// A limit was used up: 429; or there were too many connections.
    Limited,
    /// Dry-run: it would have been blocked, and went to the upstream.
    WouldBlock,
    /// Dry-run: it would have been limited, and went to the upstream.
    WouldLimit,
    /// It never became a request that could be judged: 4xx and the connection closed.
    Malformed,
}

impl VerdictKind {
    /// In the order of `index`.
    pub const ALL: [Self; 7] = [
        Self::Admitted,
        Self::Allowed,
        Self::Blocked,
        Self::Limited,
        Self::WouldBlock,
        Self::WouldLimit,
        Self::Malformed,
    ];

    /// A small number for tables of counters and for the log.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word that the log, the metrics and the commands use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Allowed => "allowed",
            Self::Blocked => "blocked",
            Self::Limited => "limited",
            Self::WouldBlock => "would_block",
            Self::WouldLimit => "would_limit",
            Self::Malformed => "malformed",
        }
    }

    /// Whether the gateway itself answered: such an answer never counts as the client's error.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Blocked | Self::Limited | Self::Malformed => true,
            Self::Admitted | Self::Allowed | Self::WouldBlock | Self::WouldLimit => false,
        }
    }
}

/// The text names no verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVerdict(pub String);

impl FromStr for VerdictKind {
    type Err = UnknownVerdict;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|v| v.as_str() == text).ok_or_else(|| UnknownVerdict(text.to_owned()))
    }
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for UnknownVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected one of ")?;
        for (n, verdict) in VerdictKind::ALL.into_iter().enumerate() {
            write!(f, "{}{verdict}", if n == 0 { "" } else { ", " })?;
        }
        write!(f, "; got {:?}", self.0)
    }
}

impl std::error::Error for UnknownVerdict {}

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every member, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the log's reason column.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

closed_set! {
    /// Why a connection's bytes never became a request.
    MalformedKind {
        /// The head could not be parsed or breaks the protocol.
        BadRequest = "bad_request",
        /// A method that the gateway does not forward, such as CONNECT.
        Method = "method",
        /// The head did not arrive in time or the client went away in the middle of it.
        IncompleteHead = "incomplete_head",
        /// The head is larger than the limit.
        HeadTooLarge = "head_too_large",
        /// The address is longer than the limit.
        UriTooLong = "uri_too_long",
        /// The body did not arrive in time.
        IncompleteBody = "incomplete_body",
        /// The body is larger than the limit.
        BodyTooLarge = "body_too_large",
        /// The TLS handshake failed.
        TlsHandshake = "tls_handshake",
        /// No valid Host, or one that contradicts the request.
        Host = "host",
        /// The body's end can be read in two ways, or its chunks break the protocol.
        Framing = "framing",
        /// A line that ends in a bare LF or holds a bare CR, or a NUL.
        LineEnding = "line_ending",
        /// A header that two servers could read in two ways: folded, a blank before its colon, a bad byte.
        HeaderSyntax = "header_syntax",
        /// A request target that two servers could read in two ways, such as one with `%2f` or `%00`.
        Target = "target",
        /// A WebSocket upgrade without a valid key or version.
        Upgrade = "upgrade",
        /// A PROXY header that is missing, invalid, too slow, or from a peer that is not trusted.
        ProxyProtocol = "proxy_protocol",
        /// The HTTP/2 connection broke the protocol, or a stream of it never became a request.
        Http2 = "http2",
        /// More control frames than any honest client sends.
        Http2Flood = "http2_flood",
        /// The client does not take the answer that it asked for.
        SlowRead = "slow_read",
    }
}

closed_set! {
    /// Why a connection was shed.
    ConnectionLimit {
        /// The gateway had as many connections as it may.
        Total = "total",
        /// The client had as many connections as one may.
        PerClient = "per_client",
        /// Too many connections waited for their clients, and this one the longest.
        Stalled = "stalled",
        /// There was no room for a newcomer while too many of them made the gateway wait.
        Crowded = "crowded",
    }
}

closed_set! {
    /// Why the upstream gave no complete answer.
    UpstreamFailure {
        /// No connection: refused, unreachable, or not resolved. 502.
        Connect = "connect",
        /// No connection within the connect timeout. 502.
        ConnectTimeout = "connect_timeout",
        /// TLS to the upstream failed. 502.
        Tls = "tls",
        /// The upstream closed or broke the protocol before an answer was complete. 502.
        Broken = "broken",
        /// The upstream did not answer within the read timeout. 504.
        ReadTimeout = "read_timeout",
        /// Every server of the pool is unhealthy. 502.
        NoneHealthy = "none_healthy",
        /// Too many requests had failed, so the pool is being left alone for a while. 503.
        CircuitOpen = "circuit_open",
        /// Every server of the pool had as many requests as it may get. 503.
        Busy = "busy",
        /// The client left before the answer was complete.
        ClientGone = "client_gone",
        /// No upstream is configured for this host and path. 502.
        NoRoute = "no_route",
        /// A fault of the gateway itself. 500.
        Internal = "internal",
        /// The gateway ended, or gave up, in the middle of it.
        Interrupted = "interrupted",
    }
}

closed_set! {
    /// How a login ended, as far as the upstream's answer tells.
    LoginOutcome {
        /// The name or the password was wrong.
        Failed = "failed",
        /// A session began.
        Succeeded = "succeeded",
    }
}

/// Why a request got its verdict. Its text form is the reason column of `request_log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing to say: admitted and answered.
    None,
    /// The allow with this ID.
    Allow(i64),
    /// The block with this ID.
    Block(i64),
    /// The list with this name has the address.
    Feed(Arc<str>),
    /// The detector has just caught the client by the rule with this name; its block is not in force yet, or there
    /// is none, since the rule's class is in dry-run.
    Caught(Arc<str>),
    /// The rate of the limit rule with this name.
    Limit(Arc<str>),
    /// The same, used up by this IPv6 prefix of the client as a whole.
    SharedLimit(Arc<str>, SharedPrefix),
    /// The burst of the limit rule with this name.
    Burst(Arc<str>),
    /// As many requests under way as the limit rule with this name lets be.
    Concurrency(Arc<str>),
    /// The rule of the access list with this name.
    Access(Arc<str>),
    Malformed(MalformedKind),
    Upstream(UpstreamFailure),
    /// The connection was shed.
    Connections(ConnectionLimit),
    /// Admitted and answered: it was a login. What the log says of a login that has no other reason.
    Login(LoginOutcome),
}

impl Reason {
    /// The rule of the configuration that refused, and the word for what of it did.
    pub fn rule(&self) -> Option<(&'static str, &Arc<str>)> {
        match self {
            Self::Limit(rule) | Self::SharedLimit(rule, _) => Some(("limit", rule)),
            Self::Burst(rule) => Some(("burst", rule)),
            Self::Concurrency(rule) => Some(("concurrency", rule)),
            Self::Access(rule) => Some(("access", rule)),
            Self::None
            | Self::Allow(_)
            | Self::Block(_)
            | Self::Feed(_)
            | Self::Caught(_)
            | Self::Malformed(_)
            | Self::Upstream(_)
            | Self::Connections(_)
            | Self::Login(_) => None,
        }
    }

    /// The limit rule that refused, whatever of it was used up.
    pub fn limit(&self) -> Option<&Arc<str>> {
        self.rule().filter(|_| !matches!(self, Self::Access(_))).map(|(_, rule)| rule)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Allow(id) => write!(f, "allow:{id}"),
            Self::Block(id) => write!(f, "block:{id}"),
            Self::Feed(name) => write!(f, "feed:{name}"),
            Self::Caught(rule) => write!(f, "caught:{rule}"),
            Self::Limit(rule) => write!(f, "limit:{rule}"),
            // The name of a rule has no slash.
            Self::SharedLimit(rule, prefix) => write!(f, "limit:{rule}/{}", prefix.length()),
            Self::Burst(rule) => write!(f, "burst:{rule}"),
            Self::Concurrency(rule) => write!(f, "concurrency:{rule}"),
            Self::Access(rule) => write!(f, "access:{rule}"),
            Self::Malformed(kind) => write!(f, "malformed:{}", kind.as_str()),
            Self::Upstream(failure) => write!(f, "upstream:{}", failure.as_str()),
            Self::Connections(limit) => write!(f, "connections:{}", limit.as_str()),
            Self::Login(outcome) => write!(f, "{LOGIN}{}", outcome.as_str()),
        }
    }
}

/// Stands before the outcome of a login.
const LOGIN: &str = "login:";

/// The reason column of `request_log`: the reason, and behind it how a login ended. A login that a rule in dry-run
/// would have refused, or that an allow let in, has both: `limit:login login:failed`.
#[derive(Clone, Copy, Debug)]
pub struct LoggedReason<'a> {
    pub reason: &'a Reason,
    pub login: Option<LoginOutcome>,
}

impl LoggedReason<'_> {
    /// Whether the column is empty.
    pub fn is_empty(self) -> bool {
        *self.reason == Reason::None && self.login.is_none()
    }
}

impl fmt::Display for LoggedReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason, self.login) {
            (reason, None) => reason.fmt(f),
            (Reason::None, Some(outcome)) => write!(f, "{LOGIN}{}", outcome.as_str()),
            (reason, Some(outcome)) => write!(f, "{reason} {LOGIN}{}", outcome.as_str()),
        }
    }
}

impl LoginOutcome {
    /// How the login ended, out of the reason column; `None` when it was none.
    pub fn of_logged(reason: &str) -> Option<Self> {
        Self::split_off(reason).1
    }

    /// The reason without it. Names of rules and lists have no blank.
    fn split_off(logged: &str) -> (&str, Option<Self>) {
        // Most rows have no reason.
        if logged.is_empty() {
            return (logged, None);
        }
        let (before, last) = logged.rsplit_once(' ').unwrap_or(("", logged));
        let outcome = last.strip_prefix(LOGIN).and_then(|word| find(Self::ALL, |o| o.as_str() == word));
        if outcome.is_some() { (before, outcome) } else { (logged, None) }
    }
}

/// The text is not a reason that this version writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseReasonError(pub String);

impl FromStr for Reason {
    type Err = ParseReasonError;

    /// Reads the reason column too: what is said of a login behind another reason is left out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseReasonError(text.to_owned());
        let text = match LoginOutcome::split_off(text) {
            ("", Some(outcome)) => return Ok(Self::Login(outcome)),
            ("", None) => return Ok(Self::None),
            (reason, _) => reason,
        };
        let (class, rest) = text.split_once(':').ok_or_else(unknown)?;
        match class {
            "allow" => rest.parse().map(Self::Allow).map_err(|_| unknown()),
            "block" => rest.parse().map(Self::Block).map_err(|_| unknown()),
            "feed" => Ok(Self::Feed(rest.into())),
            "caught" => Ok(Self::Caught(rest.into())),
            "limit" => Ok(shared_limit(rest).unwrap_or_else(|| Self::Limit(rest.into()))),
            "burst" => Ok(Self::Burst(rest.into())),
            "concurrency" => Ok(Self::Concurrency(rest.into())),
            "access" => Ok(Self::Access(rest.into())),
            "malformed" => {
                find(MalformedKind::ALL, |k| k.as_str() == rest).map(Self::Malformed).ok_or_else(unknown)
            }
            "upstream" => {
                find(UpstreamFailure::ALL, |k| k.as_str() == rest).map(Self::Upstream).ok_or_else(unknown)
            }
            "connections" => {
                find(ConnectionLimit::ALL, |k| k.as_str() == rest).map(Self::Connections).ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }
}

fn shared_limit(text: &str) -> Option<Reason> {
    let (rule, length) = text.rsplit_once('/')?;
    let prefix = SharedPrefix::ALL.into_iter().find(|prefix| prefix.length().to_string() == length)?;
    Some(Reason::SharedLimit(rule.into(), prefix))
}

fn find<T: Copy>(all: &[T], is: impl Fn(&T) -> bool) -> Option<T> {
    all.iter().copied().find(|item| is(item))
}

impl fmt::Display for ParseReasonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown reason {:?}", self.0)
    }
}

impl std::error::Error for ParseReasonError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_login_ended_stands_behind_whatever_else_there_is_to_say() {
        for &login in LoginOutcome::ALL {
            for reason in [Reason::None, Reason::Allow(3), Reason::Limit("login".into())] {
                let logged = LoggedReason { reason: &reason, login: Some(login) };
                let text = logged.to_string();
                assert_eq!(LoginOutcome::of_logged(&text), Some(login), "{text}");
                let read = if reason == Reason::None { Reason::Login(login) } else { reason };
                assert_eq!(text.parse(), Ok(read), "{text}");
            }
        }
        let plain = Reason::Limit("login".into());
        assert_eq!(LoggedReason { reason: &plain, login: None }.to_string(), "limit:login");
        for none in ["", "limit:login", "login:", "login:maybe", "xlogin:failed", "login:failed x"] {
            assert_eq!(LoginOutcome::of_logged(none), None, "{none}");
        }
    }

    #[test]
    fn every_reason_survives_its_text_form() {
        let mut reasons =
            vec![Reason::None, Reason::Allow(3), Reason::Block(-1), Reason::Limit("log:in".into())];
        let of_rules = [Reason::Feed, Reason::Caught, Reason::Burst, Reason::Concurrency, Reason::Access];
        reasons.extend(of_rules.map(|reason| reason("log:in".into())));
        reasons.extend(SharedPrefix::ALL.map(|prefix| Reason::SharedLimit("login".into(), prefix)));
        reasons.extend(MalformedKind::ALL.iter().copied().map(Reason::Malformed));
        reasons.extend(UpstreamFailure::ALL.iter().copied().map(Reason::Upstream));
        reasons.extend(LoginOutcome::ALL.iter().copied().map(Reason::Login));
        reasons.extend(ConnectionLimit::ALL.iter().copied().map(Reason::Connections));
        for reason in reasons {
            assert_eq!(reason.to_string().parse(), Ok(reason));
        }
        assert!("block:x".parse::<Reason>().is_err());
        assert!("nonsense".parse::<Reason>().is_err());
    }

    #[test]
    fn verdict_indexes_follow_the_table() {
        for (n, verdict) in VerdictKind::ALL.into_iter().enumerate() {
            assert_eq!(verdict.index(), n);
            assert_eq!(verdict.as_str().parse(), Ok(verdict));
        }
    }
}
