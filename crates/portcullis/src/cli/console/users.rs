//! `portcullis console users`, `add`, `password`, `role`, `disable`, `enable` and `unlock`.
//! Must not print anything about passwords but whether there is one.

use clap::Args;
use portcullis_admin::check_name;
use portcullis_model::Role;
use portcullis_store::{AccessRefusal, ConsoleUser, NewUser, State};
use serde_json::json;

use super::password;
use super::{base_url, state_of, user_of};
use crate::cli::context::{Context, Misuse, actor, open_state};
use crate::cli::output::{Align, Cell, DIM, GREEN, RED, Screen, Table, YELLOW};
use crate::cli::{Format, Outcome, time};
use crate::console::link;

const USERS_EXAMPLES: &str = "\
Examples:
  portcullis console users
  portcullis console users --json";

#[derive(Debug, Args)]
#[command(after_help = USERS_EXAMPLES)]
pub(super) struct Users {
    #[command(flatten)]
    format: Format,
}

impl Users {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let users = match open_state(&context.config()?.data)? {
            Some(state) => state.console_users()?,
            None => Vec::new(),
        };
        if self.format.json {
            screen.json(&users)?;
            return Ok(Outcome::Done);
        }
        if users.is_empty() {
            screen.line("Nobody may sign in yet.")?;
            return Ok(Outcome::Done);
        }
        let mut table = Table::new(&[
            ("name", Align::Left),
            ("role", Align::Left),
            ("state", Align::Left),
            ("last signed in", Align::Left),
            ("added", Align::Left),
        ]);
        for user in &users {
            let (state, style) = match user {
                ConsoleUser { disabled_at: Some(_), .. } => ("disabled", RED),
                ConsoleUser { has_password: false, .. } => ("needs a link", YELLOW),
                _ => ("may sign in", GREEN),
            };
            table.row(vec![
                Cell::new(&user.name),
                Cell::new(user.role.as_str()),
                Cell::styled(state, style),
                user.last_login.map_or_else(
                    || Cell::styled("never", DIM),
                    |at| Cell::new(time::relative(at, context.now)),
                ),
                Cell::new(context.short_time(user.created_at)),
            ]);
        }
        screen.table(&mut table)?;
        Ok(Outcome::Done)
    }
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(str::to_owned)
}

const ADD_EXAMPLES: &str = "\
Examples:
  portcullis console add alice
  portcullis console add bob --role viewer --link
  pass console/bob | portcullis console add bob --password-stdin

Asks for the password without showing it. With --link the person chooses it.";

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub(super) struct Add {
    /// Letters, digits and . _ @ + -
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,

    /// What they may do: viewer or operator
    #[arg(long, value_name = "ROLE", default_value_t = Role::Operator)]
    role: Role,

    #[command(flatten)]
    secret: Secrecy,

    /// Print a link with which they choose a password
    #[arg(long, conflicts_with = "password_stdin")]
    link: bool,

    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Secrecy {
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

impl Add {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let mut state = State::open_or_create(&config.data)?;
        if state.credentials(&self.name)?.is_some() {
            return Err(refused(AccessRefusal::NameTaken));
        }
        let password = match self.link {
            true => None,
            false => Some(password::ask(&self.name, self.secret.password_stdin)?),
        };
        let new = NewUser { name: &self.name, role: self.role, password: password.as_ref() };
        let user = state.add_console_user(&new, &actor(), context.now)?.map_err(refused)?;
        let url = match self.link {
            true => {
                let console = config.console.as_ref().map_or_else(String::new, base_url);
                Some(link(&mut state, Some(user.id), &console, &actor(), context.now)?.map_err(refused)?)
            }
            false => None,
        };
        if self.format.json {
            screen.json(&json!({ "user": user, "url": url }))?;
            return Ok(Outcome::Done);
        }
        screen.line(&format!("{} may sign in as {}.", user.name, user.role))?;
        if let Some(url) = url {
            screen.line(&url)?;
        }
        Ok(Outcome::Done)
    }
}

const PASSWORD_EXAMPLES: &str = "\
Examples:
  portcullis console password alice
  pass console/alice | portcullis console password alice --password-stdin";

#[derive(Debug, Args)]
#[command(after_help = PASSWORD_EXAMPLES)]
pub(super) struct Password {
    /// Whose
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    secret: Secrecy,

    #[command(flatten)]
    format: Format,
}

impl Password {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let mut state = state_of(&context.config()?)?;
        let user = user_of(&state, &self.name)?;
        let hash = password::ask(&user.name, self.secret.password_stdin)?;
        state.set_console_password(user.id, Some(&hash), &actor(), context.now)?.map_err(refused)?;
        let done = format!("{} has a new password; all their sessions have ended.", user.name);
        told(&state, &user, &done, self.format, screen)
    }
}

const ROLE_EXAMPLES: &str = "\
Examples:
  portcullis console role bob operator
  portcullis console role bob viewer";

#[derive(Debug, Args)]
#[command(after_help = ROLE_EXAMPLES)]
pub(super) struct ChangeRole {
    /// Whose
    #[arg(value_name = "NAME")]
    name: String,

    /// What they may do: viewer or operator
    #[arg(value_name = "ROLE")]
    role: Role,

    #[command(flatten)]
    format: Format,
}

impl ChangeRole {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let mut state = state_of(&context.config()?)?;
        let user = user_of(&state, &self.name)?;
        state.set_console_role(user.id, self.role, &actor(), context.now)?.map_err(refused)?;
        let done = format!("{} is {} now.", user.name, self.role);
        told(&state, &user, &done, self.format, screen)
    }
}

const DISABLE_EXAMPLES: &str = "\
Examples:
  portcullis console disable bob

Ends their sessions at once, and their API tokens with them. Undo: \"enable\".";

#[derive(Debug, Args)]
#[command(after_help = DISABLE_EXAMPLES)]
pub(super) struct Disable {
    /// Whom
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    format: Format,
}

impl Disable {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let done = "is disabled; all their sessions have ended.";
        set_disabled(&self.name, true, done, self.format, context, screen)
    }
}

const ENABLE_EXAMPLES: &str = "\
Examples:
  portcullis console enable bob";

#[derive(Debug, Args)]
#[command(after_help = ENABLE_EXAMPLES)]
pub(super) struct Enable {
    /// Whom
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    format: Format,
}

impl Enable {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        set_disabled(&self.name, false, "may sign in again.", self.format, context, screen)
    }
}

fn set_disabled(
    name: &str,
    disabled: bool,
    done: &str,
    format: Format,
    context: &Context,
    screen: &mut Screen,
) -> anyhow::Result<Outcome> {
    let mut state = state_of(&context.config()?)?;
    let user = user_of(&state, name)?;
    state.set_console_user_disabled(user.id, disabled, &actor(), context.now)?.map_err(refused)?;
    told(&state, &user, &format!("{} {done}", user.name), format, screen)
}

const UNLOCK_EXAMPLES: &str = "\
Examples:
  portcullis console unlock alice

After five wrong passwords for a name within 15 minutes no more are looked at; nor
after 20 from one address. Where somebody goes on guessing, \"console link\" lets
the person in all the same.";

#[derive(Debug, Args)]
#[command(after_help = UNLOCK_EXAMPLES)]
pub(super) struct Unlock {
    /// Whose wrong passwords are forgotten
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    format: Format,
}

impl Unlock {
    pub(super) fn run(self, context: &Context, screen: &mut Screen) -> anyhow::Result<Outcome> {
        let mut state = state_of(&context.config()?)?;
        let user = user_of(&state, &self.name)?;
        state.unlock_console_user(user.id, &actor(), context.now)?.map_err(refused)?;
        let done = format!("The wrong passwords for {} are forgotten.", user.name);
        told(&state, &user, &done, self.format, screen)
    }
}

/// Says what was done; as JSON, how the user stands now.
fn told(
    state: &State,
    user: &ConsoleUser,
    done: &str,
    format: Format,
    screen: &mut Screen,
) -> anyhow::Result<Outcome> {
    match format.json {
        true => screen.json(&user_of(state, &user.name)?)?,
        false => screen.line(done)?,
    }
    Ok(Outcome::Done)
}

fn refused(refusal: AccessRefusal) -> anyhow::Error {
    Misuse(refusal.to_string()).into()
}
