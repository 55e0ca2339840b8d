//! The closed sets of reasons in words: what happened, and what to look at.
//! Must stay exhaustive: a new kind does not compile until it is explained here.

use portcullis_model::{ConnectionLimit, LoginOutcome, MalformedKind, UpstreamFailure};

/// A reason in words.
pub(super) struct Words {
    /// What happened, as a whole sentence.
    pub(super) means: &'static str,
    /// What a person can do, as whole sentences.
    pub(super) look_at: &'static str,
}

pub(super) fn malformed(kind: MalformedKind) -> Words {
    let (means, look_at) = match kind {
        MalformedKind::BadRequest => (
            "The bytes of the client were no HTTP request that is understood here: there is no request line, a \
             method in small letters, a version or an Expect that nobody speaks; or a trusted proxy sent the header \
             that names the client (server.client_ip_header) twice.",
            "Browsers never send such a thing; scanners and broken programs do. If it is a program of yours, \
             look at what it sends with \"curl -v\" or tcpdump. A proxy must replace that header, not add to it.",
        ),
        MalformedKind::Method => (
            "The method is CONNECT, which asks for a proxy to anywhere; the gateway does not forward it.",
            "Proxies that are searched for on the Internet are asked like this. Nothing needs to be done.",
        ),
        MalformedKind::IncompleteHead => (
            "The client did not send its whole request head in time, or went away in the middle of it.",
            "One of them is a bad line; many at once are an attempt to use up connections. \
             server.head_timeout says how long a client may take.",
        ),
        MalformedKind::HeadTooLarge => (
            "The request line and the headers are larger, or more, than the limits.",
            "If it was a visitor, cookies have probably piled up: clear them, or raise server.max_head or \
             server.max_headers.",
        ),
        MalformedKind::UriTooLong => (
            "The address (path and query) is longer than the limit.",
            "If the site needs such addresses, raise server.max_uri.",
        ),
        MalformedKind::IncompleteBody => (
            "The body of the request stopped arriving.",
            "The client went away or its line is bad. server.body_timeout says how long a pause may be.",
        ),
        MalformedKind::BodyTooLarge => (
            "The body of the request, an upload for example, is larger than the limit.",
            "If the site takes uploads of this size, raise server.max_body, or max_body of its [[route]].",
        ),
        MalformedKind::TlsHandshake => (
            "The client and the gateway did not agree on an encrypted connection.",
            "The client spoke plain HTTP to an HTTPS port, is too old, or did not accept the certificate. \
             Look at the certificate with \"openssl s_client -connect HOST:PORT -servername HOST\".",
        ),
        MalformedKind::Host => (
            "The request names no valid host, or contradicts itself about it.",
            "Scanners that go through addresses do this. A proxy in front of the gateway must pass on the \
             Host header.",
        ),
        MalformedKind::Framing => (
            "Two servers could disagree about where the body of this request ends: a length beside chunks, \
             several or odd lengths, or broken chunks.",
            "This is how requests are smuggled past a gateway; browsers never send it. If it is a program of \
             yours, it writes Content-Length or Transfer-Encoding itself: leave that to its HTTP library.",
        ),
        MalformedKind::LineEnding => (
            "A line of the head does not end in CR and LF, or the head holds a bare CR or a NUL.",
            "Servers differ in how they read such heads. Programs that write HTTP by hand do this: let them \
             end each line with \\r\\n.",
        ),
        MalformedKind::HeaderSyntax => (
            "A header could be read in two ways: it is folded, has a blank before its colon, or a byte that \
             does not belong there.",
            "Browsers and HTTP libraries never send this. Look at what the program sends with tcpdump.",
        ),
        MalformedKind::Target => (
            "The address could be read in two ways: it holds %2f, %5c, %00, a backslash, a control character \
             or escapes that are no UTF-8.",
            "Rules for a path could be passed by with such addresses. If the site needs %2f in its paths, set \
             server.escaped_slashes.",
        ),
        MalformedKind::Upgrade => (
            "The client asked for a WebSocket without exactly one valid Sec-WebSocket-Key and \
             Sec-WebSocket-Version, or by something else than a GET without a body.",
            "WebSocket libraries do none of that. Nothing needs to be done.",
        ),
        MalformedKind::ProxyProtocol => (
            "The connection did not begin with a valid PROXY header in time, or came from a peer that may not \
             send one.",
            "Is PROXY protocol switched on in the load balancer, and is its address in \
             server.trusted_proxies? Clients that connect past the load balancer are refused like this.",
        ),
        MalformedKind::Http2 => (
            "The HTTP/2 connection or one of its streams broke the protocol and was refused before there was a \
             request.",
            "Browsers never do this. If it is a program of yours, its HTTP/2 library is at fault.",
        ),
        MalformedKind::Http2Flood => (
            "The client sent more control frames (PING, SETTINGS, RST_STREAM and the like) than any honest \
             client does.",
            "This is an attack on the connection, and it was closed. Nothing needs to be done.",
        ),
        MalformedKind::SlowRead => (
            "The client did not take its answer, or took it so slowly that the connection was closed.",
            "One of them is a bad line; many at once are an attempt to use up connections. \
             server.min_rate and server.body_timeout say how slow a client may be.",
        ),
    };
    Words { means, look_at }
}

pub(super) fn connections(limit: ConnectionLimit) -> Words {
    let (means, look_at) = match limit {
        ConnectionLimit::Total => (
            "The gateway had as many open connections as it may have, so this one was closed at once.",
            "If visitors are that many, raise server.max_connections, and the limit of open files of the \
             service with it. If they are not, look for the client with the most: portcullis top.",
        ),
        ConnectionLimit::PerClient => (
            "This client had as many open connections as one client may have, so this one was closed at once.",
            "Browsers open a few. If it is a proxy that many visitors come through, put it into \
             server.trusted_proxies; else raise server.max_connections_per_client.",
        ),
        ConnectionLimit::Stalled => (
            "Too many connections waited in the middle of a body for their clients to send or to take more, \
             and this one had waited the longest.",
            "Many at once are an attempt to use up memory. If they are visitors on slow lines, raise \
             server.max_stalled.",
        ),
        ConnectionLimit::Crowded => (
            "So many new connections made the gateway wait for their clients that this one found no room in time.",
            "This is an attempt to use up memory, and it hit a newcomer, or one of those that made it. If they \
             are visitors on slow lines, raise server.max_stalled.",
        ),
    };
    Words { means, look_at }
}

pub(super) fn login(outcome: LoginOutcome) -> Words {
    let (means, look_at) = match outcome {
        LoginOutcome::Failed => (
            "It was a login, and the site refused the name or the password.",
            "One of them is a typing mistake. The detector counts them: portcullis suspicious.",
        ),
        LoginOutcome::Succeeded => (
            "It was a login, and the site began a session with its answer.",
            "Later requests with the session's cookie are those of its user.",
        ),
    };
    Words { means, look_at }
}

pub(super) fn upstream(failure: UpstreamFailure) -> Words {
    let (means, look_at) = match failure {
        UpstreamFailure::Connect => (
            "No connection to the site's server: it refused, could not be reached, or its name is unknown.",
            "Is the site running, and does it listen on the address in [[upstream]] servers? A firewall \
             between the two, or localhost in a container, has the same effect.",
        ),
        UpstreamFailure::ConnectTimeout => (
            "The site's server did not accept a connection in time (connect_timeout).",
            "It is overloaded, or a firewall swallows the packets. Try from this machine: curl -v URL.",
        ),
        UpstreamFailure::Tls => (
            "No encrypted connection to the site's server could be made.",
            "Its certificate has run out, is for another name, or is signed by an authority that this machine \
             does not trust: see tls_name and tls_ca in [[upstream]].",
        ),
        UpstreamFailure::Broken => (
            "The site's server closed the connection or broke the protocol before its answer was complete.",
            "Look into the site's own log at this time: it has probably crashed, been restarted, or has a \
             shorter keep-alive than idle_timeout.",
        ),
        UpstreamFailure::ReadTimeout => (
            "The site's server took the request but did not answer in time (read_timeout).",
            "Look at what the site was doing at this time. If such pages may take long, raise read_timeout in \
             [[upstream]].",
        ),
        UpstreamFailure::NoneHealthy => (
            "Every server of the pool had failed its health checks, so nobody was asked.",
            "Try the path of [upstream.health] from this machine with curl, and look at the site's servers.",
        ),
        UpstreamFailure::CircuitOpen => (
            "So many requests to the site's servers had failed that its circuit breaker was open: it was left \
             alone for a while, and nobody was asked.",
            "Look at the failed requests right before this one. [upstream.breaker] says how many are too many \
             and how long the pause is.",
        ),
        UpstreamFailure::Busy => (
            "Every server of the site was serving as many requests as max_connections allows, and the queue was \
             full or took too long.",
            "The site is too slow for its traffic at this time. If its servers can take more, raise \
             max_connections in [[upstream]]; queue and queue_timeout say how many may wait, and how long.",
        ),
        UpstreamFailure::ClientGone => (
            "The client went away before the answer was complete.",
            "Somebody closed a page or lost the connection. Many of them point to slow pages.",
        ),
        UpstreamFailure::NoRoute => (
            "No [[route]] leads from this host and path to a site.",
            "If the host is yours, add a [[route]] for it, or one without hosts and paths that takes the rest.",
        ),
        UpstreamFailure::Internal => (
            "The gateway itself failed.",
            "That is a fault of portcullis: its own log has a line of this time. Please report it.",
        ),
        UpstreamFailure::Interrupted => (
            "The gateway was stopped, or gave the request up, before the answer was complete.",
            "If it happens at restarts, raise server.grace_period, which says how long requests under way may \
             take.",
        ),
    };
    Words { means, look_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_explained_in_whole_sentences_of_its_own() {
        let malformed = MalformedKind::ALL.iter().map(|kind| malformed(*kind));
        let upstream = UpstreamFailure::ALL.iter().map(|failure| upstream(*failure));
        let connections = ConnectionLimit::ALL.iter().map(|limit| connections(*limit));
        let logins = LoginOutcome::ALL.iter().map(|outcome| login(*outcome));
        let all: Vec<Words> = malformed.chain(upstream).chain(connections).chain(logins).collect();
        for (n, words) in all.iter().enumerate() {
            assert!(words.means.ends_with('.') && words.look_at.ends_with('.'), "{}", words.means);
            assert!(!all[..n].iter().any(|other| other.means == words.means), "{}", words.means);
        }
    }
}
