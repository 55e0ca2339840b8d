//! The only place that answers a request instead of the upstream.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY,
};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use portcullis_model::RequestId;
use portcullis_policy::{Exhausted, LimitHit, Rate};

use crate::facts::{Target, is_https};
use crate::hooks::connection;
use crate::pages::{Message, PageTemplate, message, prefers_json};
use crate::ruleset::Ruleset;

/// The header that carries the decision ID of a refusal.
pub(crate) const DECISION_HEADER: &str = "X-Portcullis-Decision";

/// What is said, and whether the connection can go on.
pub(crate) struct Refusal<'a> {
    pub(crate) status: u16,
    pub(crate) id: RequestId,
    pub(crate) limit: Option<&'a LimitHit>,
    /// False when what follows on the connection cannot be trusted or will not be read.
    pub(crate) keep_alive: bool,
}

/// Sends the page, unless an answer has begun. A client that is gone cannot be told: what the record says of
/// the request stays as it is.
pub(crate) async fn refuse(session: &mut Session, rules: &Ruleset, refusal: &Refusal<'_>) {
    refuse_for_now(session, rules, refusal, None).await;
}

/// [`refuse`], and says when it may be different.
pub(crate) async fn refuse_for_now(
    session: &mut Session,
    rules: &Ruleset,
    refusal: &Refusal<'_>,
    retry_after: Option<Duration>,
) {
    // "100 Continue" and "103 Early Hints" are no answer yet; after "101 Switching Protocols" nothing is HTTP.
    let has_begun = session
        .response_written()
        .is_some_and(|answer| !answer.status.is_informational() || session.was_upgraded());
    if !has_begun && send(session, rules, refusal, retry_after).await.is_err() {
        session.set_keepalive(None);
    }
}

async fn send(
    session: &mut Session,
    rules: &Ruleset,
    refusal: &Refusal<'_>,
    retry_after: Option<Duration>,
) -> pingora::Result<()> {
    let json = prefers_json(session.req_header().headers.get(ACCEPT).map_or(b"", |value| value.as_bytes()));
    let (content_type, body) = page(&rules.pages, message(refusal.status), refusal.id, json);
    let mut header = ResponseHeader::build(refusal.status, Some(8))?;
    header.insert_header(CONTENT_TYPE, content_type)?;
    header.insert_header(CONTENT_LENGTH, body.len())?;
    header.insert_header(CACHE_CONTROL, "no-store")?;
    header.insert_header(DECISION_HEADER, refusal.id.to_string())?;
    if let Some(retry_after) = retry_after {
        header.insert_header(RETRY_AFTER, whole_seconds(retry_after))?;
    }
    if let Some(hit) = refusal.limit {
        add_limit(&mut header, hit)?;
    }
    add_hsts(&mut header, session, rules)?;
    rules.privacy.announce(&mut header)?;
    begin_answer(session);
    if !refusal.keep_alive {
        session.set_keepalive(None);
    }
    let bodyless = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(header), bodyless).await?;
    if !bodyless {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Has to be called right before the head of an answer is sent: what came behind the request on its connection
/// is not trusted, so that the connection ends with this answer.
pub(crate) fn begin_answer(session: &mut Session) {
    if let Some(connection) = connection(session) {
        connection.answer_begins();
        if connection.must_close() {
            session.set_keepalive(None);
        }
    }
}

/// Over https only (RFC 6797, 7.2).
fn add_hsts(header: &mut ResponseHeader, session: &Session, rules: &Ruleset) -> pingora::Result<()> {
    if let Some(hsts) = &rules.hsts
        && let Some(connection) = connection(session)
        && is_https(connection.peer, connection.is_tls, rules, &session.req_header().headers)
    {
        header.insert_header(STRICT_TRANSPORT_SECURITY, hsts)?;
    }
    Ok(())
}

/// Sends the proof that a certificate authority asked for.
pub(crate) async fn answer_challenge(session: &mut Session, proof: Bytes) {
    let sent = async {
        let mut header = ResponseHeader::build(200, Some(2))?;
        header.insert_header(CONTENT_TYPE, "application/octet-stream")?;
        header.insert_header(CONTENT_LENGTH, proof.len())?;
        let bodyless = session.req_header().method == http::Method::HEAD;
        begin_answer(session);
        session.write_response_header(Box::new(header), bodyless).await?;
        if bodyless { Ok(()) } else { session.write_response_body(Some(proof), true).await }
    };
    if sent.await.is_err() {
        session.set_keepalive(None);
    }
}

/// How long a browser may remember a redirect to https, so that an operator can take it back.
const REDIRECT_MAX_AGE: &str = "max-age=3600";

/// Sends the client to https on `port` of the host that it asked for, which the caller has found valid. Old
/// clients know 301 only, and for GET and HEAD it says the same as 308, which keeps the method of the others.
pub(crate) async fn redirect_to_https(session: &mut Session, port: u16) {
    let head = session.req_header();
    let target = Target::of(head);
    let status = if matches!(head.method, http::Method::GET | http::Method::HEAD) { 301 } else { 308 };
    let location = https_location(&target, port);
    let sent = async {
        let mut header = ResponseHeader::build(status, Some(4))?;
        header.insert_header(LOCATION, location)?;
        header.insert_header(CONTENT_LENGTH, 0)?;
        header.insert_header(CACHE_CONTROL, REDIRECT_MAX_AGE)?;
        begin_answer(session);
        session.write_response_header(Box::new(header), true).await
    };
    if sent.await.is_err() {
        session.set_keepalive(None);
    }
}

fn https_location(target: &Target<'_>, port: u16) -> Vec<u8> {
    let mut location = b"https://".to_vec();
    location.extend_from_slice(target.host.as_bytes());
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    // `*` is no path of a site.
    location.extend_from_slice(if target.path.starts_with(b"/") { target.path } else { b"/" });
    if !target.query.is_empty() {
        location.push(b'?');
        location.extend_from_slice(target.query);
    }
    location
}

/// `Retry-After` (RFC 9110) and the fields of draft-ietf-httpapi-ratelimit-headers.
fn add_limit(header: &mut ResponseHeader, hit: &LimitHit) -> pingora::Result<()> {
    let seconds = whole_seconds(hit.retry_after);
    let name: String =
        hit.rule.name.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).collect();
    let policy = match hit.exhausted {
        Exhausted::Rate | Exhausted::SharedRate(_) => hit.rule.rate.map(|rate| quota(rate, hit.times)),
        Exhausted::Burst => hit.rule.burst.map(|rate| quota(rate, hit.times)),
        Exhausted::Concurrency => {
            let most = hit.rule.concurrency.map(|most| most.saturating_mul(hit.times));
            most.map(|most| format!(r#"q={most};qu="concurrent-requests""#))
        }
    };
    header.insert_header(RETRY_AFTER, seconds)?;
    if let Some(policy) = policy {
        header.insert_header("RateLimit-Policy", format!(r#""{name}";{policy}"#))?;
    }
    header.insert_header("RateLimit", format!(r#""{name}";r=0;t={seconds}"#))?;
    Ok(())
}

fn quota(rate: Rate, times: u32) -> String {
    format!("q={};w={}", rate.count().saturating_mul(times), rate.window().as_secs())
}

/// Rounded up: a client that comes back then is not refused again.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

fn page(pages: &PageTemplate, message: Message, id: RequestId, json: bool) -> (&'static str, Bytes) {
    match json {
        true => ("application/json", pages.json(message, id)),
        false => ("text/html; charset=utf-8", pages.html(message, id)),
    }
}

/// The whole HTTP/1.1 answer to bytes that never became a request.
pub(crate) fn raw_refusal(rules: &Ruleset, is_tls: bool, message: Message, id: RequestId) -> Vec<u8> {
    let status = message.status;
    let standard = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let reason = standard.unwrap_or_default();
    let (content_type, body) = page(&rules.pages, message, id, false);
    let hsts = rules.hsts.as_ref().filter(|_| is_tls).and_then(|value| value.to_str().ok());
    let hsts = hsts.map(|value| format!("{STRICT_TRANSPORT_SECURITY}: {value}\r\n")).unwrap_or_default();
    let mut out = Vec::with_capacity(body.len() + 256);
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{DECISION_HEADER}: {id}\r\n{hsts}{}: close\r\n\r\n",
        body.len(),
        CONNECTION.as_str(),
    );
    out.extend_from_slice(&body);
    out
}
