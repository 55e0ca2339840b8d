//! `portcullis console`: where the console is and who gets in, from this machine: what always works, whoever is locked out.
//! Must not ask the gateway: it and this read the same database.

mod password;
mod tokens;
mod users;

use clap::{Args, Subcommand};
use portcullis_config::{Config, Console};
use portcullis_model::Role;
use portcullis_store::{ConsoleUser, State};
use serde::Serialize;

use super::context::{Context, Misuse, actor, open_state};
use super::output::{Screen, count, tell};
use super::{Format, Outcome};
use crate::console::link;

const EXAMPLES: &str = "\
Examples:
  portcullis console
  portcullis console link
      lets the operator in, whatever happened: for the first account, and for
      whoever is locked out or has no password any more
  portcullis console link alice
  portcullis console add bob --role viewer
  portcullis console unlock alice
  portcullis console token add grafana --scope read --expires +90d

Viewers look, operators also change. The running gateway notices at once.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct ConsoleCommand {
    #[command(flatten)]
    format: Format,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List who may sign in
    Users(users::Users),
    /// Let somebody sign in
    Add(users::Add),
    /// Change somebody's password, which ends their sessions
    Password(users::Password),
    /// Change what somebody may do, which ends their sessions
    Role(users::ChangeRole),
    /// Keep somebody out, and end their sessions
    Disable(users::Disable),
    /// Let somebody in again
    Enable(users::Enable),
    /// Forget somebody's wrong passwords
    Unlock(users::Unlock),
    /// Print a link that lets somebody in once
    Link(Link),
    /// List the tokens of programs that use the API
    Tokens(tokens::Tokens),
    /// Make or revoke such a token
    Token(tokens::Token),
}

impl ConsoleCommand {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        match self.action {
            None => show(self.format, context, screen),
            Some(Action::Users(command)) => command.run(context, screen),
            Some(Action::Add(command)) => command.run(context, screen),
            Some(Action::Password(command)) => command.run(context, screen),
            Some(Action::Role(command)) => command.run(context, screen),
            Some(Action::Disable(command)) => command.run(context, screen),
            Some(Action::Enable(command)) => command.run(context, screen),
            Some(Action::Unlock(command)) => command.run(context, screen),
            Some(Action::Link(command)) => command.run(context, screen),
            Some(Action::Tokens(command)) => command.run(context, screen),
            Some(Action::Token(command)) => command.run(context, screen),
        }
    }
}

/// The console as a whole.
#[derive(Serialize)]
struct Shown {
    /// `None` is off.
    url: Option<String>,
    users: usize,
    operators: usize,
    tokens: usize,
}

fn show(format: Format, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
    let config = context.config()?;
    let (users, tokens) = match open_state(&config.data)? {
        Some(state) => (state.console_users()?, state.api_tokens()?),
        None => (Vec::new(), Vec::new()),
    };
    let is_operator = |user: &&ConsoleUser| user.role == Role::Operator && user.disabled_at.is_none();
    let shown = Shown {
        url: config.console.as_ref().map(|console| format!("{}/", base_url(console))),
        users: users.len(),
        operators: users.iter().filter(is_operator).count(),
        tokens: tokens.iter().filter(|token| token.expires_at > context.now).count(),
    };
    if format.json {
        screen.json(&shown)?;
        return Ok(Outcome::Done);
    }
    screen.field("console", shown.url.as_deref().unwrap_or("off (console.listen turns it on)"))?;
    screen.field(
        "users",
        &format!("{}, {}", count(shown.users as u64, "user"), count(shown.operators as u64, "operator")),
    )?;
    screen.field("tokens", &count(shown.tokens as u64, "API token"))?;
    if shown.operators == 0 {
        screen.line(&format!(
            "Nobody can change anything yet. Let somebody in: {}",
            context.command("console link")
        ))?;
    }
    Ok(Outcome::Done)
}

const LINK_EXAMPLES: &str = "\
Examples:
  portcullis console link
  portcullis console link alice

Without a name it makes the first account, or is for the only operator. It works
once and for a day; a newer one for the same ends it. Whoever uses it may choose a
new password, and is let in without one.";

#[derive(Debug, Args)]
#[command(after_help = LINK_EXAMPLES)]
struct Link {
    /// Whom it lets in
    #[arg(value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    format: Format,
}

impl Link {
    fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let console = config.console.as_ref().map_or_else(String::new, base_url);
        let mut state = State::open_or_create(&config.data)?;
        let (url, whom) = match (self.name, state.has_console_users()?) {
            (Some(name), false) => return Err(no_such_user(&name).into()),
            (None, false) => (link(&mut state, None, &console, &actor(), context.now)?, None),
            (name, true) => {
                let user = match name {
                    Some(name) => user_of(&state, &name)?,
                    None => only_operator(&state)?,
                };
                (link(&mut state, Some(user.id), &console, &actor(), context.now)?, Some(user))
            }
        };
        let url = url.map_err(|refusal| Misuse(refusal.to_string()))?;
        if self.format.json {
            screen.json(&serde_json::json!({ "url": url, "user": whom.map(|user| user.name) }))?;
            return Ok(Outcome::Done);
        }
        screen.line(&url)?;
        if config.console.is_none() {
            tell("warning: ", "the console is off; console.listen in the configuration turns it on");
        }
        if whom.is_some_and(|user| user.disabled_at.is_some()) {
            tell("warning: ", "the user is disabled, and the link does nothing until \"console enable\"");
        }
        Ok(Outcome::Done)
    }
}

fn only_operator(state: &State) -> anyhow::Result<ConsoleUser> {
    let is_operator = |user: &ConsoleUser| user.role == Role::Operator && user.disabled_at.is_none();
    let mut operators: Vec<ConsoleUser> = state.console_users()?.into_iter().filter(is_operator).collect();
    match (operators.pop(), operators.len()) {
        (Some(only), 0) => Ok(only),
        _ => Err(Misuse(
            "there are several users; name the one to let in, as \"console users\" lists them".to_owned(),
        )
        .into()),
    }
}

/// Somebody by name.
fn user_of(state: &State, name: &str) -> anyhow::Result<ConsoleUser> {
    Ok(state.credentials(name)?.map(|found| found.user).ok_or_else(|| no_such_user(name))?)
}

fn no_such_user(name: &str) -> Misuse {
    Misuse(format!("there is no user {name:?} of the console; \"console users\" lists them"))
}

/// The address as far as the configuration says it.
fn base_url(console: &Console) -> String {
    console.base_url(console.listen)
}

/// The state of commands about users that there must be.
fn state_of(config: &Config) -> anyhow::Result<State> {
    Ok(State::open_existing(&config.data)?)
}
