//! What becomes of a request when its head has been read: whose it is, what the rules say of it, where it goes.
//! Must not answer it: the hooks carry out what comes out of here.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Version};
use pingora::http::RequestHeader;
use portcullis_model::{
    ClientIp, Identity, MalformedKind, Reason, RequestId, UpstreamFailure, VerdictKind, normalise_path,
};
use portcullis_policy::{Decision, LimitHit, Now, Place, RequestFacts, Verdict, decide, decide_by_address};
use portcullis_wire::{check_path, is_authority, is_method};

use crate::edge::Edge;
use crate::facts::{
    HeadLines, Target, has_known_expectation, has_known_form, has_plain_framing, is_https, names_two_clients,
    protocol, resolve_client, user_agent,
};
use crate::guard::{Connection, Failure};
use crate::identity::{IdentityRules, Visit};
use crate::routes::Destination;
use crate::ruleset::{Bounds, Ruleset};
use crate::tls::is_challenge_path;

use super::{Context, OpenRecord};

/// What is done with a request.
pub(super) enum Next<'r> {
    /// It is answered with the proof that a certificate authority asks for.
    Prove(Bytes),
    /// `keep_alive`: what follows on the connection can be trusted.
    Refuse {
        status: u16,
        limit: Option<LimitHit>,
        keep_alive: bool,
    },
    /// It is sent to https, on this port.
    Redirect(u16),
    Serve(&'r Destination),
}

impl Next<'_> {
    fn refuse(status: u16, keep_alive: bool) -> Self {
        Self::Refuse { status, limit: None, keep_alive }
    }
}

/// Judges a request and opens its record, which says what came of it.
pub(super) fn judge<'r>(
    edge: &Edge,
    rules: &'r Ruleset,
    connection: &Arc<Connection>,
    head: &RequestHeader,
    ctx: &mut Context,
) -> Next<'r> {
    let asked = Asked::new(edge, rules, connection, head);
    let refusal = asked.refusal_by_address();
    ctx.visit = rules.identity.as_ref().filter(|_| refusal.is_none()).map(|known| asked.visit(known));
    let identity = ctx.visit.as_ref().and_then(Visit::identity).cloned();
    if let Some(identity) = &identity {
        connection.identified(asked.client, identity);
    }
    let identity = identity.as_deref();
    ctx.record = Some(asked.record(identity));
    // An authority that asks whether a name is ours must not be kept from it by a block or a redirect.
    if let Some(proof) = edge.challenges().file(asked.target.path).filter(|_| !connection.is_tls) {
        return Next::Prove(proof);
    }
    // The guard has given up on it before it was anybody's turn.
    if let Some((status, verdict, reason)) = connection.failure().map(Failure::outcome) {
        ctx.set(verdict, reason);
        return Next::refuse(status, false);
    }
    let mut decision = refusal.unwrap_or_else(|| asked.decide(identity));
    let destination = rules.routes.find(&asked.target.host, &asked.path);
    ctx.max_body = destination.and_then(|destination| destination.max_body);
    ctx.set(decision.kind(), decision.reason());
    ctx.permit = std::mem::take(&mut decision.permit);
    if !decision.is_served() {
        return refused(decision.verdict);
    }
    let redirect = asked.redirect();
    if let Some((status, kind)) = asked.malformed(ctx.max_body, redirect.is_some()) {
        ctx.set(VerdictKind::Malformed, Reason::Malformed(kind));
        return Next::refuse(status, false);
    }
    if let Some(port) = redirect {
        return Next::Redirect(port);
    }
    match destination {
        Some(destination) => Next::Serve(destination),
        None => {
            ctx.fail(UpstreamFailure::NoRoute);
            Next::refuse(502, false)
        }
    }
}

fn refused(verdict: Verdict) -> Next<'static> {
    match verdict {
        Verdict::Limit(hit) => Next::Refuse { status: 429, limit: Some(hit), keep_alive: true },
        Verdict::Block(_)
        | Verdict::Feed(_)
        | Verdict::Caught(_)
        | Verdict::Deny(_)
        | Verdict::Admit
        | Verdict::Allow(_) => Next::refuse(403, true),
    }
}

/// A request, and what is known of it whoever sends it.
struct Asked<'a> {
    edge: &'a Edge,
    rules: &'a Ruleset,
    connection: &'a Arc<Connection>,
    head: &'a RequestHeader,
    target: Target<'a>,
    /// In the form that rules match.
    path: Cow<'a, str>,
    client: ClientIp,
    is_https: bool,
    began: Instant,
    now: Now,
}

impl<'a> Asked<'a> {
    fn new(
        edge: &'a Edge,
        rules: &'a Ruleset,
        connection: &'a Arc<Connection>,
        head: &'a RequestHeader,
    ) -> Self {
        let instant = Instant::now();
        let client = resolve_client(connection.peer, rules, &head.headers);
        if rules.trusted.lookup(connection.peer.ip()).is_none() {
            edge.metrics.forwarding_ignored(&head.headers);
        }
        let target = Target::of(head);
        Self {
            path: normalise_path(target.path),
            is_https: is_https(connection.peer, connection.is_tls, rules, &head.headers),
            began: connection.request_began(client).unwrap_or(instant),
            now: edge.clock.at(instant),
            edge,
            rules,
            connection,
            head,
            target,
            client,
        }
    }

    /// Whoever is refused in any case costs no signature: a blocked client must not choose how much work it makes.
    fn refusal_by_address(&self) -> Option<Decision> {
        let is_asked = self.rules.identity.as_ref().is_some_and(IdentityRules::verifies_tokens);
        let decide = || decide_by_address(&self.rules.policy, &self.edge.state, self.client, true, self.now);
        is_asked.then(decide).flatten()
    }

    fn visit(&self, rules: &IdentityRules) -> Visit {
        let head = self.head;
        rules.visit(&self.edge.identities, &head.method, &head.headers, &self.path, self.now.wall)
    }

    fn record(&self, identity: Option<&Identity>) -> OpenRecord {
        let user = identity.map(Identity::name).unwrap_or_default();
        OpenRecord {
            connection: Arc::clone(self.connection),
            began: self.began,
            id: RequestId::new(self.now.wall, fastrand::u32(..)),
            client: self.client,
            is_https: self.is_https,
            protocol: protocol(self.head.version),
            verdict: VerdictKind::Admitted,
            reason: Reason::None,
            login: None,
            status: 0,
            text: self.target.record_text(self.head, &user),
            asks_for_privacy: self.rules.privacy.is_asked_for(&self.head.headers),
            is_seen: false,
        }
    }

    fn decide(&self, identity: Option<&Identity>) -> Decision {
        let (edge, rules) = (self.edge, self.rules);
        let state = &edge.state;
        let needs_agent = rules.needs.user_agent || state.parties.is_in_use() || state.caught.is_in_use();
        let user_agent = if needs_agent { user_agent(self.head) } else { Cow::Borrowed("") };
        let facts = RequestFacts {
            client: self.client,
            method: self.head.method.as_str(),
            host: &self.target.host,
            path: Cow::Borrowed(&self.path),
            raw_path: self.target.path,
            query: self.target.query,
            identity,
            user_agent: &user_agent,
            place: if rules.needs.place { edge.place(self.client) } else { Place::default() },
            headers: &HeadLines(&self.head.headers),
        };
        decide(&rules.policy, state, &facts, self.now)
    }

    /// The port of https that a plain request is sent to.
    fn redirect(&self) -> Option<u16> {
        self.rules.redirect_to_https.filter(|_| !self.is_https && !is_challenge_path(self.target.path))
    }

    /// What is wrong with the head. HTTP/1 heads have been through the guard, which is stricter.
    fn malformed(&self, max_body: Option<u64>, is_redirected: bool) -> Option<(u16, MalformedKind)> {
        let head = self.head;
        if head.version == Version::HTTP_2
            && let Some(found) = malformed_stream(head, &self.target, &self.rules.bounds)
        {
            return Some(found);
        }
        if names_two_clients(self.connection.peer, self.rules, &head.headers) {
            return Some((400, MalformedKind::BadRequest));
        }
        let announced =
            || head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if max_body.is_some_and(|max| announced().is_some_and(|length| length > max)) {
            return Some((413, MalformedKind::BodyTooLarge));
        }
        (is_redirected && self.target.host.is_empty()).then_some((400, MalformedKind::Host))
    }
}

/// What is wrong with the head of an HTTP/2 request that the library let through.
fn malformed_stream(
    head: &RequestHeader,
    target: &Target<'_>,
    bounds: &Bounds,
) -> Option<(u16, MalformedKind)> {
    // Name, colon, blank, value, line end.
    let header_bytes: usize =
        head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head.method == Method::CONNECT {
        return Some((405, MalformedKind::Method));
    }
    if !is_method(head.method.as_str().as_bytes()) {
        return Some((400, MalformedKind::BadRequest));
    }
    if head.raw_path().len() > bounds.max_uri {
        return Some((414, MalformedKind::UriTooLong));
    }
    if head.headers.len() > bounds.max_headers || header_bytes + head.raw_path().len() > bounds.max_head {
        return Some((431, MalformedKind::HeadTooLarge));
    }
    if !is_authority(target.authority) {
        return Some((400, MalformedKind::Host));
    }
    if !has_plain_framing(&head.headers) {
        return Some((400, MalformedKind::Framing));
    }
    if !has_known_expectation(&head.headers) {
        return Some((417, MalformedKind::BadRequest));
    }
    let is_star = head.raw_path() == b"*" && head.method == Method::OPTIONS;
    if !is_star && (!has_known_form(head) || check_path(target.path, bounds.escaped_slashes).is_err()) {
        return Some((400, MalformedKind::Target));
    }
    None
}
