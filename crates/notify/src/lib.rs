//! Tells people: what happened, gathered into few messages, as mails and webhooks.
//!
//! Owns the events, how they are gathered and capped, how messages look, and SMTP. Must not store anything and must
//! not open HTTP connections: the binary keeps the queue in the database and hands webhooks to its HTTP client.

mod digest;
mod error;
mod escape;
mod event;
mod render;
pub mod report;
mod schedule;
mod settings;
mod smtp;
mod webhook;
pub mod words;

pub use digest::{Digest, MAX_CLIENTS, MAX_SAMPLES, Sample};
pub use error::NotifyError;
pub use escape::{is_hidden, visible};
pub use event::{Event, EventKind};
pub use render::{Detail, Message, Scene, alert};
pub use schedule::{GIVE_UP_AFTER, HOUR, Queue, Step, backoff, next_step};
pub use settings::{Address, Settings, Smtp, SmtpTls, Webhook, WebhookKind};
pub use smtp::Mailer;
pub use webhook::{Answer, NoAnswer, Post, judge, post};
