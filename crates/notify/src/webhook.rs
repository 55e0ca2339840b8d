//! What is posted to a webhook, and what its answer means. Must not open connections: the binary does.

use std::time::Duration;

use portcullis_model::{Secret, UnixMs};
use ring::hmac;
use serde_json::{Value, json};

use crate::escape::{discord, line, slack};
use crate::render::{Detail, Scene, headline};
use crate::smtp::MAX_SUBJECT;
use crate::words::iso;
use crate::{Digest, Message, NotifyError, Webhook, WebhookKind};

/// The header with the signature: `t=SECONDS,v1=HEX`, where HEX is HMAC-SHA-256 of `SECONDS.BODY`.
const SIGNATURE: &str = "X-Portcullis-Signature";
/// Discord refuses longer messages.
const MAX_DISCORD: usize = 2_000;
/// Slack cuts longer ones.
const MAX_SLACK: usize = 4_000;
/// Clients in JSON.
const MAX_CLIENTS_TOLD: usize = 20;
/// Do not show what links lead to.
const SUPPRESS_EMBEDS: u64 = 4;

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    pub url: Secret,
    pub headers: Vec<(String, Secret)>,
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Its `Retry-After`, in seconds.
    pub retry_after: Option<Duration>,
}

/// The request that tells a webhook. `digest` is there for messages about events, not for reports.
pub fn post(
    webhook: &Webhook,
    message: &Message,
    digest: Option<(&Digest, Detail)>,
    scene: &Scene<'_>,
    now: UnixMs,
) -> Post {
    let body = match webhook.kind {
        WebhookKind::Json => as_json(message, digest, scene, now),
        WebhookKind::Slack => json!({
            "text": cut(&slack(&message.text), MAX_SLACK),
            "mrkdwn": false,
            "parse": "none",
            "link_names": false,
            "unfurl_links": false,
            "unfurl_media": false,
        }),
        WebhookKind::Discord => json!({
            "content": cut(&discord(&message.text), MAX_DISCORD),
            "allowed_mentions": { "parse": [] },
            "flags": SUPPRESS_EMBEDS,
        }),
    };
    let body = body.to_string().into_bytes();
    let mut headers = vec![("Content-Type".to_owned(), Secret::new("application/json"))];
    headers.extend(webhook.headers.iter().cloned());
    if let Some(secret) = &webhook.secret {
        headers.push((SIGNATURE.to_owned(), Secret::new(&signature(secret, &body, now))));
    }
    Post { url: webhook.url.clone(), headers, body }
}

fn as_json(message: &Message, digest: Option<(&Digest, Detail)>, scene: &Scene<'_>, now: UnixMs) -> Value {
    let mut document = json!({
        "version": 1,
        "id": message.id,
        "gateway": scene.name,
        "sent_at": iso(now),
        "subject": line(&message.subject, MAX_SUBJECT),
        "text": message.text,
    });
    if let Some((digest, detail)) = digest {
        document["kind"] = json!("alert");
        document["headline"] = json!(headline(digest, detail));
        document["severity"] = json!(digest.worst);
        document["events"] = json!(digest.events);
        document["events_by_kind"] = json!(digest.kinds);
        document["first_at"] = json!(iso(digest.first_at));
        document["last_at"] = json!(iso(digest.last_at));
        if detail == Detail::Full {
            let clients = digest.top_clients(MAX_CLIENTS_TOLD);
            let clients = clients.iter().map(|(client, n)| json!({ "client": client, "events": n }));
            document["clients"] = clients.collect();
            let samples = digest.samples.iter().map(|sample| {
                json!({
                    "at": iso(sample.at),
                    "kind": sample.kind,
                    "severity": sample.severity,
                    "client": sample.client,
                    "title": sample.title,
                    "text": sample.text,
                })
            });
            document["samples"] = samples.collect();
        }
    } else {
        document["kind"] = json!("report");
        document["report"] = json!(message.data);
    }
    document
}

/// Whole characters, with a mark where something is missing.
fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

fn signature(secret: &Secret, body: &[u8], now: UnixMs) -> String {
    let seconds = now.0.div_euclid(1_000);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    pub problem: String,
    /// The request may have been understood all the same.
    pub may_have_arrived: bool,
}

/// Whether the message has arrived.
///
/// # Errors
/// It has not, or nobody knows.
pub fn judge(webhook: &Webhook, answer: Result<Answer, NoAnswer>) -> Result<(), NotifyError> {
    let place = webhook.name.clone();
    match answer {
        Ok(Answer { status: 200..=299, .. }) => Ok(()),
        Ok(Answer { status, retry_after }) => Err(NotifyError::Status { place, status, retry_after }),
        Err(NoAnswer { problem, may_have_arrived }) => {
            Err(NotifyError::Webhook { place, problem: line(&problem, 300), may_have_arrived })
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use portcullis_model::Severity;

    use super::*;
    use crate::{Event, alert};

    fn hostile() -> Digest {
        Digest::of(
            &Event::Finding {
                id: 1,
                client: "203.0.113.9".parse().unwrap(),
                user: None,
                severity: Severity::Critical,
                rule: "scan".to_owned(),
                says: "asked for /<!channel>/@everyone/`**x**`<https://evil.example|here>".to_owned(),
                requests: 3,
            },
            UnixMs(1_700_000_000_000),
        )
    }

    fn posted(kind: WebhookKind, secret: Option<&str>) -> (Post, Value) {
        let webhook = Webhook {
            name: "chat".to_owned(),
            url: Secret::new("https://hooks.example/T1/secret"),
            kind,
            secret: secret.map(Secret::new),
            headers: vec![("Authorization".to_owned(), Secret::new("Bearer x"))],
            ca: None,
        };
        let scene = Scene { name: "gate", zone: &TimeZone::UTC };
        let digest = hostile();
        let message = alert("1", &digest, Detail::Full, &scene);
        let now = UnixMs(1_700_000_030_000);
        let post = post(&webhook, &message, Some((&digest, Detail::Full)), &scene, now);
        let body = serde_json::from_slice(&post.body).unwrap();
        (post, body)
    }

    #[test]
    fn chats_get_text_that_mentions_nobody() {
        let (_, slack) = posted(WebhookKind::Slack, None);
        let text = slack["text"].as_str().unwrap();
        assert!(text.contains("203.0.113.9") && text.contains("&lt;!channel&gt;"), "{text}");
        assert!(!text.contains("<!") && !text.contains("@everyone") && !text.contains("<http"), "{text}");
        let (_, discord) = posted(WebhookKind::Discord, None);
        let text = discord["content"].as_str().unwrap();
        assert!(
            text.contains("203.0.113.9") && !text.contains("@everyone") && !text.contains(" **"),
            "{text}"
        );
        assert_eq!(discord["allowed_mentions"], json!({ "parse": [] }));
        assert!(text.chars().count() <= MAX_DISCORD);
    }

    #[test]
    fn programs_get_everything_as_fields_and_a_signature() {
        let (post, body) = posted(WebhookKind::Json, Some("Jefe"));
        assert_eq!(body["severity"], "critical");
        assert_eq!(body["events_by_kind"], json!({ "finding": 1 }));
        assert_eq!(body["clients"], json!([{ "client": "203.0.113.9", "events": 1 }]));
        assert_eq!(body["samples"][0]["at"], "2023-11-14T22:13:20.000Z");
        let header = |name: &str| {
            let (_, value) = post.headers.iter().find(|(header, _)| header == name).unwrap();
            value.expose().to_owned()
        };
        assert_eq!(header("Authorization"), "Bearer x");
        let sign = header(SIGNATURE);
        let hex = sign.strip_prefix("t=1700000030,v1=").unwrap();
        let signed = [b"1700000030.".as_slice(), &post.body].concat();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let bytes: Vec<u8> =
            (0..64).step_by(2).map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap()).collect();
        hmac::verify(&key, &signed, &bytes).unwrap();
    }

    #[test]
    fn only_a_success_is_one() {
        let webhook = Webhook {
            name: "chat".to_owned(),
            url: Secret::new("https://hooks.example/secret"),
            kind: WebhookKind::Json,
            secret: None,
            headers: Vec::new(),
            ca: None,
        };
        let answer = |status, retry_after| judge(&webhook, Ok(Answer { status, retry_after }));
        assert_eq!(answer(204, None), Ok(()));
        let busy = answer(429, Some(Duration::from_secs(7))).unwrap_err();
        assert_eq!(busy.to_string(), "the webhook chat answered 429, to be tried again in 7 s");
        assert_eq!(busy.retry_after(), Some(Duration::from_secs(7)));
        assert!(!busy.is_about_the_message() && answer(400, None).unwrap_err().is_about_the_message());
        let no_answer = NoAnswer { problem: "refused\n".to_owned(), may_have_arrived: false };
        assert!(judge(&webhook, Err(no_answer)).unwrap_err().to_string().contains("refused\\n"));
    }
}
