//! `portcullis console tokens` and `token`: programs that use the API.
//! Must not print a token but once.

use clap::{Args, Subcommand};
use portcullis_admin::{MAX_TOKEN_LASTS, check_name, digest_of, new_api_token};
use portcullis_config::Expiry;
use portcullis_model::{Scope, UnixMs};
use portcullis_store::{NewApiToken, State};
use serde_json::json;

use super::state_of;
use crate::cli::context::{Context, Misuse, actor, open_state};
use crate::cli::output::{Align, Cell, DIM, RED, Screen, Table, tell};
use crate::cli::{Format, Outcome, time};

const TOKENS_EXAMPLES: &str = "\
Examples:
  portcullis console tokens
  portcullis console tokens --json";

#[derive(Debug, Args)]
#[command(after_help = TOKENS_EXAMPLES)]
pub(super) struct Tokens {
    #[command(flatten)]
    format: Format,
}

impl Tokens {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let tokens = match open_state(&context.config()?.data)? {
            Some(state) => state.api_tokens()?,
            None => Vec::new(),
        };
        if self.format.json {
            screen.json(&tokens)?;
            return Ok(Outcome::Done);
        }
        if tokens.is_empty() {
            screen.line("No API tokens.")?;
            return Ok(Outcome::Done);
        }
        let mut table = Table::new(&[
            ("name", Align::Left),
            ("scope", Align::Left),
            ("ends", Align::Left),
            ("last used", Align::Left),
            ("made by", Align::Left),
        ]);
        for token in &tokens {
            let end = time::relative(token.expires_at, context.now);
            table.row(vec![
                Cell::new(&token.name),
                Cell::new(token.scope.as_str()),
                if token.expires_at <= context.now { Cell::styled(end, RED) } else { Cell::new(end) },
                token.last_used.map_or_else(
                    || Cell::styled("never", DIM),
                    |at| Cell::new(time::relative(at, context.now)),
                ),
                Cell::new(&token.created_by),
            ]);
        }
        screen.table(&mut table)?;
        Ok(Outcome::Done)
    }
}

const TOKEN_EXAMPLES: &str = "\
Examples:
  portcullis console token add grafana --scope read --expires +90d
  portcullis console token revoke grafana";

#[derive(Debug, Args)]
#[command(after_help = TOKEN_EXAMPLES)]
pub(super) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token; it is printed this once
    Add(Add),
    /// End a token for ever
    Revoke(Revoke),
}

impl Token {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        match self.action {
            Action::Add(command) => command.run(context, screen),
            Action::Revoke(command) => command.run(context, screen),
        }
    }
}

const ADD_EXAMPLES: &str = "\
Examples:
  portcullis console token add grafana
  portcullis console token add deploy --scope write --expires +7d

Programs send it to /api/v1 as \"Authorization: Bearer TOKEN\".";

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
struct Add {
    /// What it is for, in letters, digits and . _ @ + -
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,

    /// What it allows: read, or write
    #[arg(long, value_name = "SCOPE", default_value_t = Scope::Read)]
    scope: Scope,

    /// When it ends, at most in a year: +90d, 2026-12-31
    #[arg(long, value_name = "TIME", default_value = "+90d")]
    expires: Expiry,

    #[command(flatten)]
    format: Format,
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(str::to_owned)
}

impl Add {
    fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let expires_at = end(&self.expires, context)?;
        let mut state = State::open_or_create(&context.config()?.data)?;
        let token = new_api_token();
        let digest = digest_of(&token);
        let new = NewApiToken { digest, name: &self.name, scope: self.scope, user_id: None, expires_at };
        let made = state.add_api_token(&new, &actor(), context.now)?;
        made.map_err(|refusal| Misuse(refusal.to_string()))?;
        match self.format.json {
            true => {
                let Self { name, scope, .. } = self;
                let token = token.expose();
                screen.json(
                    &json!({ "name": name, "scope": scope, "expires_at": expires_at, "token": token }),
                )?;
            }
            false => {
                screen.line(token.expose())?;
                let (scope, name) = (self.scope, &self.name);
                let end = context.time(expires_at);
                tell("", &format!("{name} may {scope} until {end}; the token is not shown again"));
            }
        }
        Ok(Outcome::Done)
    }
}

fn end(expires: &Expiry, context: &Context) -> Result<UnixMs, Misuse> {
    let latest = context.now.plus(MAX_TOKEN_LASTS);
    match expires.resolve(context.now, &context.zone).map_err(Misuse)? {
        Some(at) if at <= latest => Ok(at),
        Some(_) | None => {
            Err(Misuse("a token lasts at most a year; name an earlier end, such as +90d".to_owned()))
        }
    }
}

const REVOKE_EXAMPLES: &str = "\
Examples:
  portcullis console token revoke grafana";

#[derive(Debug, Args)]
#[command(after_help = REVOKE_EXAMPLES)]
struct Revoke {
    /// Its name, as "tokens" lists it
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    format: Format,
}

impl Revoke {
    fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let mut state = state_of(&context.config()?)?;
        let has_ended = state.revoke_api_token(&self.name, &actor(), context.now)?;
        let outcome = if has_ended { Outcome::Done } else { Outcome::Nothing };
        match (self.format.json, has_ended) {
            (true, _) => screen.json(&json!({ "name": self.name, "revoked": has_ended }))?,
            (false, true) => screen.line(&format!("The token {} is revoked.", self.name))?,
            (false, false) => {
                tell("", &format!("there is no token {:?}; \"console tokens\" lists them", self.name));
            }
        }
        Ok(outcome)
    }
}
