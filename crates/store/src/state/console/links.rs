//! Links that let somebody in once: to make the first account, or to choose a password.
//! Must not let one be used twice.

use rusqlite::{Connection, OptionalExtension as _, params};

use portcullis_model::{Role, Secret, UnixMs};

use super::users::{self, ConsoleUser, NewUser};
use super::{AccessRefusal, TokenDigest};
use crate::error::StoreError;
use crate::state::State;
use crate::state::audit::note;

/// What a link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleLink {
    /// Makes the first account.
    Setup,
    /// Lets this user in, with a new password where they choose one.
    User(ConsoleUser),
}

impl State {
    /// Keeps a link, in the place of earlier ones for the same. `user_id`: `None` makes the first account.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn make_link(
        &mut self,
        digest: &TokenDigest,
        user_id: Option<i64>,
        expires_at: UnixMs,
        actor: &str,
        now: UnixMs,
    ) -> Result<Result<(), AccessRefusal>, StoreError> {
        self.write("making a link", |transaction| {
            let user = user_id.map(|id| users::by_id(transaction, id)).transpose()?.flatten();
            let name = match (user_id, &user) {
                (None, _) => "first account",
                (Some(_), Some(user)) => &user.name,
                (Some(_), None) => return Ok(Err(AccessRefusal::NoSuchUser)),
            };
            transaction.execute("DELETE FROM console_links WHERE user_id IS ?1", [user_id])?;
            let sql =
                "INSERT INTO console_links (digest, user_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, params![digest, user_id, now.0, expires_at.0])?;
            note(transaction, now, actor, "link", name, "")?;
            Ok(Ok(()))
        })
    }

    /// What a link is for; `None` when it has been used, has run out, or never was.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn link(&self, digest: &TokenDigest, now: UnixMs) -> Result<Option<ConsoleLink>, StoreError> {
        self.read("reading a link", || find(&self.connection, digest, now))
    }

    /// Makes the first account, an operator, and ends the link.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_first_user(
        &mut self,
        digest: &TokenDigest,
        name: &str,
        password: &Secret,
        now: UnixMs,
    ) -> Result<Result<ConsoleUser, AccessRefusal>, StoreError> {
        self.write("making the first account", |transaction| match find(transaction, digest, now)? {
            Some(ConsoleLink::Setup) => {
                transaction.execute("DELETE FROM console_links WHERE user_id IS NULL", [])?;
                let new = NewUser { name, role: Role::Operator, password: Some(password) };
                users::add(transaction, &new, "setup", now)
            }
            Some(ConsoleLink::User(_)) | None => Ok(Err(AccessRefusal::LinkEnded)),
        })
    }

    /// Ends the link of a user; with a password it becomes theirs.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn use_link(
        &mut self,
        digest: &TokenDigest,
        password: Option<&Secret>,
        now: UnixMs,
    ) -> Result<Result<ConsoleUser, AccessRefusal>, StoreError> {
        self.write("using a link", |transaction| match find(transaction, digest, now)? {
            Some(ConsoleLink::User(user)) => {
                transaction.execute("DELETE FROM console_links WHERE user_id = ?1", [user.id])?;
                if password.is_some() {
                    users::set_password(transaction, &user, password, "link", now)?;
                }
                Ok(Ok(user))
            }
            Some(ConsoleLink::Setup) | None => Ok(Err(AccessRefusal::LinkEnded)),
        })
    }
}

/// A link for the first account is none when there is an account; one of a disabled user is none either.
fn find(connection: &Connection, digest: &TokenDigest, now: UnixMs) -> rusqlite::Result<Option<ConsoleLink>> {
    let sql = "SELECT user_id FROM console_links WHERE digest = ?1 AND expires_at > ?2";
    let bounds = params![digest, now.0];
    let user_id: Option<Option<i64>> =
        connection.prepare_cached(sql)?.query_row(bounds, |row| row.get(0)).optional()?;
    match user_id {
        None => Ok(None),
        Some(None) => Ok((users::count(connection)? == 0).then_some(ConsoleLink::Setup)),
        Some(Some(id)) => {
            let user = users::by_id(connection, id)?.filter(|user| user.disabled_at.is_none());
            Ok(user.map(ConsoleLink::User))
        }
    }
}
