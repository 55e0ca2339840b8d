//! The hooks of one request, in the order in which Pingora calls them. Each one delegates.

mod judge;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use portcullis_model::{
    ClientIp, LoginOutcome, Protocol, Reason, RecordText, RequestId, RequestRecord, UpstreamFailure,
    VerdictKind,
};
use portcullis_policy::Permit;

use crate::attempt::{Attempt, Broken};
use crate::edge::{Edge, Seen};
use crate::facts::authority;
use crate::failure::classify;
use crate::guard::Connection;
use crate::headers::{Forwarding, join_cookies, make_origin_form, settle_body, write_forwarding};
use crate::identity::Visit;
use crate::respond::{Refusal, answer_challenge, begin_answer, redirect_to_https, refuse, refuse_for_now};
use crate::ruleset::{Bounds, Ruleset};

use judge::{Next, judge};

/// Between two messages of a connection that has become a WebSocket.
const UPGRADED_TIMEOUT: Duration = Duration::from_secs(3_600);

pub(crate) struct Hooks {
    edge: Arc<Edge>,
}

impl Hooks {
    pub(crate) fn new(edge: Arc<Edge>) -> Self {
        Self { edge }
    }
}

/// One request.
pub(crate) struct Context {
    /// The same for all hooks, whatever is reloaded meanwhile.
    rules: Arc<Ruleset>,
    /// Until it is handed to the log: by `logging`, or by `Drop` when a hook panics or the gateway ends.
    record: Option<OpenRecord>,
    upstream: Option<Attempt>,
    body_bytes: u64,
    /// `None` is no limit.
    max_body: Option<u64>,
    /// The request's places in limits of concurrency; given back when the request, or its WebSocket, has ended.
    permit: Permit,
    /// `None` when nobody can be known.
    visit: Option<Visit>,
}

struct OpenRecord {
    /// The one that the request came on.
    connection: Arc<Connection>,
    began: Instant,
    id: RequestId,
    client: ClientIp,
    is_https: bool,
    protocol: Protocol,
    verdict: VerdictKind,
    reason: Reason,
    login: Option<LoginOutcome>,
    /// Of the upstream's answer, as soon as that has begun.
    status: u16,
    text: RecordText,
    /// Whether the client asked not to be tracked, and that is honoured.
    asks_for_privacy: bool,
    /// The detector has seen it.
    is_seen: bool,
}

impl OpenRecord {
    /// Notes why there is no complete answer. What a rule in dry-run would have done is worth more than that:
    /// the status tells the rest.
    fn fail(&mut self, reason: Reason) {
        match (&reason, self.verdict) {
            (Reason::Malformed(_), _) => self.verdict = VerdictKind::Malformed,
            (_, VerdictKind::WouldBlock | VerdictKind::WouldLimit) => return,
            _ => {}
        }
        self.reason = reason;
    }

    /// Notes how the login ended that it was.
    fn log_in(&mut self, visit: Option<&Visit>) {
        self.login = visit.and_then(Visit::login);
    }

    /// Shows it to the detector, once. To be called before the client has the whole answer, which may be followed at
    /// once by the next request.
    fn show(&mut self, status: u16, bytes_out: u64) {
        if std::mem::replace(&mut self.is_seen, true) {
            return;
        }
        self.connection.edge.observe(&Seen {
            id: self.id,
            client: self.client,
            status,
            bytes_out,
            verdict: self.verdict,
            login: self.login,
            text: &self.text,
            asks_for_privacy: self.asks_for_privacy,
        });
    }

    fn close(mut self, status: u16, bytes_in: u64, bytes_out: u64) {
        self.show(status, bytes_out);
        let record = RequestRecord {
            id: self.id,
            client: self.client,
            protocol: self.protocol,
            status,
            bytes_in,
            bytes_out,
            latency_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            verdict: self.verdict,
            reason: self.reason,
            login: self.login,
            text: self.text,
        };
        self.connection.edge.finish_as_wished(record, self.asks_for_privacy);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            if let Some(visit) = &mut self.visit {
                visit.ended(&record.connection.edge.identities, false);
                record.login = visit.login();
            }
            record.fail(Reason::Upstream(UpstreamFailure::Interrupted));
            let status = record.status;
            record.close(status, 0, 0);
        }
    }
}

/// The connection that a session came on.
pub(crate) fn connection(session: &Session) -> Option<Arc<Connection>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref::<Arc<Connection>>().cloned()
}

/// How slow the client may be. On HTTP/1 the guard sees to it, but for WebSockets, which may be silent.
fn bound_client(session: &mut Session, connection: &Connection, bounds: &Bounds) {
    let pause = match session.req_header().version {
        Version::HTTP_2 => Some(bounds.body_timeout),
        _ if connection.asks_for_websocket() => Some(UPGRADED_TIMEOUT),
        _ => None,
    };
    session.set_read_timeout(pause);
    session.set_write_timeout(pause);
}

#[async_trait]
impl ProxyHttp for Hooks {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let rules = self.edge.rules.load_full();
        Context {
            rules,
            record: None,
            upstream: None,
            body_bytes: 0,
            max_body: None,
            permit: Permit::default(),
            visit: None,
        }
    }

    /// Judges the request; answers it if it is refused.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        let Some(connection) = connection(session) else {
            return Error::e_explain(ErrorType::InternalError, "a request without a guarded connection");
        };
        let rules = Arc::clone(&ctx.rules);
        let next = judge(&self.edge, &rules, &connection, session.req_header(), ctx);
        match next {
            Next::Serve(destination) => {
                ctx.upstream = Some(Attempt::new(Arc::clone(&destination.pool)));
                bound_client(session, &connection, &rules.bounds);
                return Ok(false);
            }
            Next::Prove(proof) => answer_challenge(session, proof).await,
            Next::Redirect(port) => redirect_to_https(session, port).await,
            Next::Refuse { status, limit, keep_alive } => {
                ctx.show(status);
                if let Some(id) = ctx.record.as_ref().map(|record| record.id) {
                    refuse(session, &rules, &Refusal { status, id, limit: limit.as_ref(), keep_alive }).await;
                }
            }
        }
        Ok(true)
    }

    /// Bounds the body that is streamed to the upstream.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        // Pingora writes an empty last part as a chunk, which is the end of the body, and then the end once
        // more: the upstream would take that for the beginning of the next request.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        if let Some(attempt) = &mut ctx.upstream {
            attempt.body_goes_on(end_of_stream);
        }
        ctx.body_bytes += body.as_ref().map_or(0, |part| part.len() as u64);
        let Some(max) = ctx.max_body else { return Ok(()) };
        if ctx.body_bytes > max && !session.was_upgraded() {
            let error = Error::explain(ErrorType::HTTPStatus(413), "the body is larger than max_body");
            return Err(error.into_down());
        }
        Ok(())
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Context,
    ) -> pingora::Result<Box<HttpPeer>> {
        let (Some(attempt), Some(record)) = (&mut ctx.upstream, &ctx.record) else {
            return Error::e_explain(ErrorType::InternalError, "a request without an upstream");
        };
        let Some(lease) = attempt.next_server(record.client.limit_key()).await else {
            return Err(Error::explain(ErrorType::ConnectNoRoute, "no server may be asked").into_up());
        };
        let is_restrained = !record.connection.has_taken_an_answer() && self.edge.lobby.is_busy();
        let mut peer = if is_restrained { lease.restrained_peer() } else { lease.peer() };
        if record.connection.asks_for_websocket() {
            peer.options.read_timeout = Some(UPGRADED_TIMEOUT);
        }
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // ServerConf bounds the tries.
        error.set_retry(ctx.upstream.as_mut().is_some_and(|attempt| attempt.not_connected(&error)));
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        let broken = Broken {
            is_idempotent: session.req_header().method.is_idempotent(),
            was_kept: client_reused,
            body_bytes: ctx.body_bytes,
            has_answer: session.response_written().is_some(),
        };
        let repeat = ctx.upstream.as_mut().is_some_and(|attempt| attempt.broke(&error, broken));
        error.set_retry(repeat);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        let Some(record) = &ctx.record else { return Ok(()) };
        record.connection.site_is_asked();
        let about = Forwarding {
            client: record.client,
            is_https: record.is_https,
            host: authority(session.req_header()),
            id: record.id,
            forwarded: ctx.rules.forwarded_header,
            certificate: record.connection.certificate.get(),
        };
        write_forwarding(request, &about)?;
        // An Upgrade that Connection does not name is none, and upstreams that take it for one must not.
        if !record.connection.asks_for_websocket() {
            request.remove_header(&UPGRADE);
        }
        if let (Some(identity), Some(visit)) = (&ctx.rules.identity, &ctx.visit) {
            identity.prepare(visit, request);
        }
        let has_host = request.headers.contains_key(HOST);
        if let Some(lease) = ctx.upstream.as_ref().and_then(Attempt::lease)
            && let Some(host) = lease.host_header(has_host)
        {
            request.insert_header(HOST, host)?;
        }
        if session.req_header().version == Version::HTTP_2 {
            join_cookies(request)?;
        }
        settle_body(request, !session.is_body_empty(), session.req_header().version)?;
        make_origin_form(request);
        Ok(())
    }

    /// The client is spoken to in the gateway's own version: an upstream that still speaks HTTP/1.0 must
    /// not cost it keep-alive.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        if let Some(record) = &mut ctx.record {
            record.status = response.status.as_u16();
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(record) = &ctx.record {
                record.connection.upgrade();
            }
        } else if !response.status.is_informational() {
            begin_answer(session);
        }
        if let (Some(identity), Some(visit)) = (&ctx.rules.identity, &mut ctx.visit) {
            let (live, request) = (&self.edge.identities, session.req_header());
            identity.answered(live, visit, request, response, || self.edge.clock.now().wall);
        }
        if !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS {
            let announced = response.headers.get(CONTENT_LENGTH);
            let length = announced.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
            ctx.answer_begins(response.status.as_u16(), length);
        }
        if let Some(hsts) = ctx.rules.hsts.as_ref().filter(|_| ctx.is_https()) {
            response.insert_header(STRICT_TRANSPORT_SECURITY, hsts)?;
        }
        if !response.status.is_informational() {
            ctx.rules.privacy.announce(response)?;
        }
        if let Some(attempt) = &mut ctx.upstream {
            attempt.answered(response.status.as_u16());
        }
        if response.version < Version::HTTP_11 && session.req_header().version == Version::HTTP_11 {
            response.set_version(Version::HTTP_11);
        }
        // HTTP/1.0 knows no chunks; without them the end of the connection is the end of the body.
        if session.req_header().version == Version::HTTP_10 {
            response.remove_header(&TRANSFER_ENCODING);
        }
        Ok(())
    }

    /// Looks on while the body passes.
    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> pingora::Result<Option<Duration>> {
        if let Some(visit) = &mut ctx.visit {
            visit.body_passes(&self.edge.identities, body.as_ref(), end_of_stream);
        }
        // A page that may say that a login failed has been looked through.
        if let Some(record) = ctx.record.as_ref().filter(|record| !record.is_seen) {
            ctx.answer_begins(record.status, 0);
        }
        Ok(None)
    }

    fn upstream_response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        if let Some(identity) = &ctx.rules.identity {
            identity.clean_trailers(trailers);
        }
        Ok(())
    }

    /// Answers a request that could not be served, and says why in the record.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let unasked = ctx.upstream.as_ref().and_then(Attempt::unasked);
        let (mut status, reason) = match unasked {
            Some(unasked) => (unasked.status, Reason::Upstream(unasked.failure)),
            None => classify(error),
        };
        if let (Some(attempt), Reason::Upstream(failure)) = (&mut ctx.upstream, &reason) {
            attempt.ended(*failure, error);
        }
        let Some(record) = &mut ctx.record else {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        // A failure that the guard or a hook named is more exact than what Pingora makes of it.
        if let Some(failure) = record.connection.failure() {
            (status, record.verdict, record.reason) = failure.outcome();
        } else if !matches!(record.reason, Reason::Upstream(_)) {
            record.fail(reason);
        }
        if status > 0 {
            let refusal = Refusal { status, id: record.id, limit: None, keep_alive: false };
            let retry_after = unasked.and_then(|unasked| unasked.retry_after);
            refuse_for_now(session, &ctx.rules, &refusal, retry_after).await;
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        let Some(mut record) = ctx.record.take() else { return };
        if error.is_none() {
            record.connection.answer_was_taken();
        }
        if let Some(visit) = &mut ctx.visit {
            visit.ended(&self.edge.identities, error.is_none());
        }
        record.log_in(ctx.visit.as_ref());
        let status = session.response_written().map_or(0, |answer| answer.status.as_u16());
        record.close(status, session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
    }

    /// The record says it all; a line per failure would be an attacker's way to fill the disk.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _at: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Context {
    /// Shows the request to the detector as soon as its answer says all: how a login ended may stand in the body.
    fn answer_begins(&mut self, status: u16, bytes_out: u64) {
        let Some(record) = &mut self.record else { return };
        if self.visit.as_ref().is_some_and(Visit::reads_the_answer) {
            return;
        }
        record.log_in(self.visit.as_ref());
        record.show(status, bytes_out);
    }

    /// The same for an answer of the gateway's own.
    fn show(&mut self, status: u16) {
        if let Some(record) = &mut self.record {
            record.show(status, 0);
        }
    }

    fn is_https(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.is_https)
    }

    fn set(&mut self, verdict: VerdictKind, reason: Reason) {
        if let Some(record) = &mut self.record {
            (record.verdict, record.reason) = (verdict, reason);
        }
    }

    fn fail(&mut self, failure: UpstreamFailure) {
        if let Some(record) = &mut self.record {
            record.fail(Reason::Upstream(failure));
        }
    }
}
