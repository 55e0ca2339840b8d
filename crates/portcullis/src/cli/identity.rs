//! `portcullis identity`: how requests are known, and what the running gateway has seen of it.
//! Must not show cookies, tokens or keys.

use clap::Args;
use serde_json::json;

use portcullis_config::{
    Config, KeySetSettings, KeySetSource, SessionSettings, TokenSettings, TokenSource, format_duration,
};
use portcullis_fetch::masked;
use portcullis_model::UnixMs;

use crate::status::{GatewayStatus, IdentityStatus};

use super::context::Context;
use super::output::{Screen, YELLOW, count};
use super::{Format, Outcome};

const EXAMPLES: &str = "\
Examples:
  portcullis identity
  portcullis identity --json

Shows how [identity] lets the gateway know who a request is from, and what the
running gateway has seen since its start: sessions, logins, tokens, and the age
of an issuer's keys. The counts are at most five seconds old.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Identity {
    #[command(flatten)]
    format: Format,
}

impl Identity {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let seen = GatewayStatus::read(&config.data)
            .filter(|status| status.is_running(context.now))
            .and_then(|status| status.identity);
        if self.format.json {
            screen.json(&as_json(&config, seen.as_ref()))?;
            return Ok(Outcome::Done);
        }
        if config.identity.is_off() {
            screen.line("Everybody is anonymous: [identity] has neither sessions nor tokens.")?;
            return Ok(Outcome::Done);
        }
        in_words(&config, seen.as_ref(), context, screen)?;
        Ok(Outcome::Done)
    }
}

fn as_json(config: &Config, seen: Option<&IdentityStatus>) -> serde_json::Value {
    let mut shown = settings_as_json(&config.identity);
    // Of the running gateway; null when none runs.
    shown["seen"] = json!(seen);
    shown
}

/// `[identity]` without its keys.
pub(super) fn settings_as_json(identity: &portcullis_config::Identity) -> serde_json::Value {
    json!({
        "sessions": identity.sessions.as_ref().map(|sessions| json!({
            "cookie": sessions.cookie,
            "idle_seconds": sessions.rules.idle.as_secs(),
            "absolute_seconds": sessions.rules.absolute.as_secs(),
        })),
        "login_paths": identity.logins.paths.iter().map(|path| path.as_str()).collect::<Vec<_>>(),
        "user_header": identity.user_header,
        "roles_header": identity.roles_header,
        "tokens": identity.tokens.as_ref().map(|tokens| json!({
            "from": tokens.sources.iter().map(source).collect::<Vec<_>>(),
            "keys": tokens.rules.keys.len(),
            "key_set": tokens.key_set.as_ref().map(key_set_name),
        })),
    })
}

fn in_words(
    config: &Config,
    seen: Option<&IdentityStatus>,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let identity = &config.identity;
    if let Some(settings) = &identity.sessions {
        screen.field("sessions", &sessions(settings, seen))?;
    }
    if let Some(header) = &identity.user_header {
        screen.field("user", &format!("named by the site in {header}"))?;
    }
    if !identity.logins.paths.is_empty() {
        let paths: Vec<_> = identity.logins.paths.iter().map(|path| path.as_str()).collect();
        let so_far = seen.map(|seen| format!(": {}", counts(&seen.logins, "none yet"))).unwrap_or_default();
        screen.field("logins", &format!("at {}{so_far}", paths.join(", ")))?;
    }
    if let Some(settings) = &identity.tokens {
        screen.field("tokens", &tokens(settings, seen))?;
        if !settings.rules.keys.is_empty() {
            let number = count(settings.rules.keys.len() as u64, "key");
            screen.field("keys", &format!("{number} of the configuration"))?;
        }
        if let Some(key_set) = &settings.key_set {
            key_set_in_words(key_set, seen, context, screen)?;
        }
    }
    if seen.is_none() {
        screen.blank()?;
        screen.styled_field(
            "mind",
            YELLOW,
            "no gateway is running on this data folder, so there are no counts",
        )?;
    }
    Ok(())
}

fn sessions(settings: &SessionSettings, seen: Option<&IdentityStatus>) -> String {
    let known = match seen {
        Some(seen) => format!("{} known, ", count(seen.sessions, "session")),
        None => String::new(),
    };
    let (idle, absolute) = (format_duration(settings.rules.idle), format_duration(settings.rules.absolute));
    let ambiguous = match seen.map_or(0, |seen| seen.ambiguous_cookies) {
        0 => String::new(),
        number => format!("; {} had several values", count(number, "request")),
    };
    format!(
        "{known}by the cookie {:?}, for {idle} without a request and {absolute} at most{ambiguous}",
        settings.cookie
    )
}

fn tokens(settings: &TokenSettings, seen: Option<&IdentityStatus>) -> String {
    let from: Vec<String> = settings.sources.iter().map(source).collect();
    let so_far = seen.map(|seen| {
        let refused = counts(&seen.tokens_refused, "none refused");
        format!(": {} accepted; {refused}", seen.tokens_accepted)
    });
    format!("from {}{}", from.join(", "), so_far.unwrap_or_default())
}

fn source(source: &TokenSource) -> String {
    match source {
        TokenSource::Authorization => "authorization".to_owned(),
        TokenSource::Header(name) => format!("header:{name}"),
        TokenSource::Cookie(name) => format!("cookie:{name}"),
    }
}

/// The counts that are not zero, as `3 expired, 1 signature`.
fn counts(of: &std::collections::BTreeMap<String, u64>, none: &str) -> String {
    let some: Vec<String> =
        of.iter().filter(|(_, count)| **count > 0).map(|(what, count)| format!("{count} {what}")).collect();
    if some.is_empty() { none.to_owned() } else { some.join(", ") }
}

fn key_set_name(settings: &KeySetSettings) -> String {
    match &settings.source {
        KeySetSource::File(path) => path.display().to_string(),
        KeySetSource::Url(url) => masked(url),
    }
}

fn key_set_in_words(
    settings: &KeySetSettings,
    seen: Option<&IdentityStatus>,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let name = key_set_name(settings);
    let Some(state) = seen.and_then(|seen| seen.key_set.as_ref()) else {
        return Ok(screen.field("issuer", &name)?);
    };
    let keys = match state.read_at {
        Some(at) => format!("{}, read {}", count(state.keys as u64, "key"), context.time(UnixMs(at))),
        None => "no keys yet".to_owned(),
    };
    screen.field("issuer", &format!("{name}: {keys}"))?;
    if let Some(problem) = &state.problem {
        screen.styled_field("", YELLOW, &format!("the last try failed: {problem}"))?;
    }
    Ok(())
}
