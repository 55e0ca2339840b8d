//! One channel, mail or webhook, and a message on its way through it. Blocks until it has arrived or failed.

use std::time::{Duration, SystemTime};

use portcullis_fetch::{FetchError, Fetcher, Request};
use portcullis_model::UnixMs;
use portcullis_notify::{
    Answer, Detail, Digest, Mailer, Message, NoAnswer, NotifyError, Post, Scene, Settings, Smtp, Webhook,
    judge, post,
};

/// The channel of the mails.
pub(crate) const MAIL: &str = "mail";
/// For a webhook to answer.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(15);
/// Of an answer nobody reads more than the status.
const MAX_ANSWER: u64 = 256 << 10;

/// A way to tell people.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Channel<'a> {
    Mail(&'a Smtp),
    Webhook(&'a Webhook),
}

impl Channel<'_> {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Mail(_) => MAIL,
            Self::Webhook(webhook) => &webhook.name,
        }
    }

    /// Where it leads, without anything secret.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Mail(smtp) => {
                let to: Vec<String> = smtp.to.iter().map(ToString::to_string).collect();
                format!("{} by {}:{}", to.join(", "), smtp.host, smtp.port)
            }
            Self::Webhook(webhook) => {
                format!("{} at {}", webhook.kind.as_str(), portcullis_fetch::masked(webhook.url.expose()))
            }
        }
    }
}

/// All channels of the configuration, mail first.
pub(crate) fn channels(settings: &Settings) -> Vec<Channel<'_>> {
    let mail = settings.smtp.iter().map(Channel::Mail);
    mail.chain(settings.webhooks.iter().map(Channel::Webhook)).collect()
}

/// Sends a message now. `digest` is what it is made of, for messages about events.
///
/// # Errors
/// It has not arrived, or nobody knows.
pub(crate) fn send(
    channel: Channel<'_>,
    message: &Message,
    digest: Option<(&Digest, Detail)>,
    scene: &Scene<'_>,
    now: UnixMs,
) -> Result<(), NotifyError> {
    match channel {
        Channel::Mail(smtp) => {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
            for left_out in Mailer::new(smtp)?.send(message, at)? {
                tracing::warn!("a mail did not go to everybody in alerts.smtp.to: {left_out}");
            }
            Ok(())
        }
        Channel::Webhook(webhook) => {
            let post = post(webhook, message, digest, scene, now);
            judge(webhook, deliver(webhook, post))
        }
    }
}

fn deliver(webhook: &Webhook, post: Post) -> Result<Answer, NoAnswer> {
    let settings = portcullis_fetch::Settings {
        timeout: WEBHOOK_TIMEOUT,
        user_agent: concat!("Portcullis/", env!("CARGO_PKG_VERSION")).to_owned(),
        ca: webhook.ca.clone(),
    };
    let mut request = Request::post(post.url.expose(), post.body, MAX_ANSWER);
    for (name, value) in &post.headers {
        request = request.header(name, value.expose());
    }
    let answer = Fetcher::new(settings).and_then(|fetcher| fetcher.send(&request));
    match answer {
        Ok(response) => {
            let after = response.header("Retry-After").and_then(|text| text.trim().parse().ok());
            Ok(Answer { status: response.status, retry_after: after.map(Duration::from_secs) })
        }
        // The status has come: only what nobody reads is too large.
        Err(FetchError::TooLarge { status, .. }) => Ok(Answer { status, retry_after: None }),
        Err(error) => {
            Err(NoAnswer { may_have_arrived: may_have_arrived(&error), problem: error.to_string() })
        }
    }
}

fn may_have_arrived(error: &FetchError) -> bool {
    match error {
        FetchError::Timeout { .. } | FetchError::Broken { .. } | FetchError::Protocol { .. } => true,
        FetchError::Url { .. }
        | FetchError::Trust { .. }
        | FetchError::Request { .. }
        | FetchError::Dns { .. }
        | FetchError::Refused { .. }
        | FetchError::Connect { .. }
        | FetchError::Tls { .. }
        | FetchError::TooLarge { .. }
        | FetchError::Redirect { .. } => false,
    }
}
