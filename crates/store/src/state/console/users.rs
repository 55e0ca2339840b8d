//! People who may use the console.
//! Must not let a password's hash out but for comparing.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;

use portcullis_model::{Role, Secret, UnixMs};

use super::AccessRefusal;
use crate::error::StoreError;
use crate::state::audit::note;
use crate::state::{State, parsed};

/// The most users that there can be.
pub const MAX_CONSOLE_USERS: usize = 200;

const COLUMNS: &str = "id, name, role, password IS NOT NULL, created_at, changed_at, disabled_at, last_login";

/// Somebody who may use the console, unless disabled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsoleUser {
    #[serde(skip)]
    pub id: i64,
    pub name: String,
    pub role: Role,
    /// Without one only a one-time link lets them in.
    pub has_password: bool,
    pub created_at: UnixMs,
    /// When role, password or access was changed.
    pub changed_at: UnixMs,
    pub disabled_at: Option<UnixMs>,
    pub last_login: Option<UnixMs>,
}

/// What a sign-in is compared with.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub user: ConsoleUser,
    /// Argon2id, as a PHC string.
    pub password: Option<Secret>,
    /// Failed attempts before are forgotten.
    pub unlocked_at: Option<UnixMs>,
}

/// Somebody to add.
#[derive(Clone, Debug)]
pub struct NewUser<'a> {
    pub name: &'a str,
    pub role: Role,
    /// The hash, as a PHC string.
    pub password: Option<&'a Secret>,
}

impl State {
    /// Everybody, by name.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn console_users(&self) -> Result<Vec<ConsoleUser>, StoreError> {
        self.read("reading the users", || {
            let sql = format!("SELECT {COLUMNS} FROM console_users ORDER BY name");
            self.connection.prepare_cached(&sql)?.query_map([], user)?.collect()
        })
    }

    /// Whether there is anybody.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn has_console_users(&self) -> Result<bool, StoreError> {
        self.read("reading the users", || Ok(count(&self.connection)? > 0))
    }

    /// Somebody by name, in whatever case.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn credentials(&self, name: &str) -> Result<Option<Credentials>, StoreError> {
        self.read("reading a user", || {
            let sql = format!("SELECT {COLUMNS}, password, unlocked_at FROM console_users WHERE name = ?1");
            self.connection.prepare_cached(&sql)?.query_row([name], credentials).optional()
        })
    }

    /// Adds somebody.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_console_user(
        &mut self,
        new: &NewUser<'_>,
        actor: &str,
        now: UnixMs,
    ) -> Result<Result<ConsoleUser, AccessRefusal>, StoreError> {
        self.write("adding a user", |transaction| add(transaction, new, actor, now))
    }

    /// Changes a password, which ends all sessions, links and locks of the user. `None`: only a link lets them in.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn set_console_password(
        &mut self,
        user_id: i64,
        password: Option<&Secret>,
        actor: &str,
        now: UnixMs,
    ) -> Result<Result<(), AccessRefusal>, StoreError> {
        self.write("changing a password", |transaction| {
            let Some(user) = by_id(transaction, user_id)? else { return Ok(Err(AccessRefusal::NoSuchUser)) };
            set_password(transaction, &user, password, actor, now).map(Ok)
        })
    }

    /// Puts another hash of the same password in the place of the old one, unless that has been changed meanwhile.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn rehash_console_password(
        &mut self,
        user_id: i64,
        old: &Secret,
        new: &Secret,
    ) -> Result<(), StoreError> {
        self.write("hashing a password anew", |transaction| {
            let sql = "UPDATE console_users SET password = ?3 WHERE id = ?1 AND password = ?2";
            transaction.execute(sql, params![user_id, old.expose(), new.expose()])?;
            Ok(())
        })
    }

    /// Changes what somebody may do, which ends their sessions.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn set_console_role(
        &mut self,
        user_id: i64,
        role: Role,
        actor: &str,
        now: UnixMs,
    ) -> Result<Result<(), AccessRefusal>, StoreError> {
        self.write("changing a role", |transaction| {
            let Some(user) = by_id(transaction, user_id)? else { return Ok(Err(AccessRefusal::NoSuchUser)) };
            if user.role == role {
                return Ok(Ok(()));
            }
            if role != Role::Operator && is_last_operator(transaction, &user)? {
                return Ok(Err(AccessRefusal::LastOperator));
            }
            let sql = "UPDATE console_users SET role = ?2, changed_at = ?3 WHERE id = ?1";
            transaction.execute(sql, params![user_id, role.as_str(), now.0])?;
            end_sessions(transaction, user_id)?;
            note(transaction, now, actor, "user-role", &user.name, &format!("{} -> {role}", user.role))?;
            Ok(Ok(()))
        })
    }

    /// Keeps somebody out, or lets them in again. Keeping out ends their sessions and links.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn set_console_user_disabled(
        &mut self,
        user_id: i64,
        disabled: bool,
        actor: &str,
        now: UnixMs,
    ) -> Result<Result<(), AccessRefusal>, StoreError> {
        self.write("changing a user's access", |transaction| {
            let Some(user) = by_id(transaction, user_id)? else { return Ok(Err(AccessRefusal::NoSuchUser)) };
            if user.disabled_at.is_some() == disabled {
                return Ok(Ok(()));
            }
            if disabled && is_last_operator(transaction, &user)? {
                return Ok(Err(AccessRefusal::LastOperator));
            }
            let sql = "UPDATE console_users SET disabled_at = ?2, changed_at = ?3 WHERE id = ?1";
            transaction.execute(sql, params![user_id, disabled.then_some(now.0), now.0])?;
            end_sessions(transaction, user_id)?;
            transaction.execute("DELETE FROM console_links WHERE user_id = ?1", [user_id])?;
            let action = if disabled { "user-disable" } else { "user-enable" };
            note(transaction, now, actor, action, &user.name, "")?;
            Ok(Ok(()))
        })
    }

    /// Has failed attempts up to now forgotten.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn unlock_console_user(
        &mut self,
        user_id: i64,
        actor: &str,
        now: UnixMs,
    ) -> Result<Result<(), AccessRefusal>, StoreError> {
        self.write("unlocking a user", |transaction| {
            let Some(user) = by_id(transaction, user_id)? else { return Ok(Err(AccessRefusal::NoSuchUser)) };
            unlock(transaction, user_id, now)?;
            note(transaction, now, actor, "user-unlock", &user.name, "")?;
            Ok(Ok(()))
        })
    }
}

pub(super) fn add(
    transaction: &Connection,
    new: &NewUser<'_>,
    actor: &str,
    now: UnixMs,
) -> rusqlite::Result<Result<ConsoleUser, AccessRefusal>> {
    if usize::try_from(count(transaction)?).unwrap_or(usize::MAX) >= MAX_CONSOLE_USERS {
        return Ok(Err(AccessRefusal::TooManyUsers));
    }
    let sql = "INSERT INTO console_users (name, role, password, created_at, changed_at) VALUES (?1, ?2, ?3, ?4, ?4) \
               ON CONFLICT (name) DO NOTHING";
    let password = new.password.map(Secret::expose);
    if transaction.execute(sql, params![new.name, new.role.as_str(), password, now.0])? == 0 {
        return Ok(Err(AccessRefusal::NameTaken));
    }
    let id = transaction.last_insert_rowid();
    note(transaction, now, actor, "user-add", new.name, new.role.as_str())?;
    Ok(by_id(transaction, id)?.ok_or(AccessRefusal::NoSuchUser))
}

/// Locks hold against who guesses the old password, sessions and links may be a thief's.
pub(super) fn set_password(
    transaction: &Connection,
    user: &ConsoleUser,
    password: Option<&Secret>,
    actor: &str,
    now: UnixMs,
) -> rusqlite::Result<()> {
    let sql = "UPDATE console_users SET password = ?2, changed_at = ?3 WHERE id = ?1";
    transaction.execute(sql, params![user.id, password.map(Secret::expose), now.0])?;
    unlock(transaction, user.id, now)?;
    end_sessions(transaction, user.id)?;
    transaction.execute("DELETE FROM console_links WHERE user_id = ?1", [user.id])?;
    let detail = if password.is_some() { "" } else { "removed" };
    note(transaction, now, actor, "user-password", &user.name, detail)
}

pub(super) fn by_id(connection: &Connection, id: i64) -> rusqlite::Result<Option<ConsoleUser>> {
    let sql = format!("SELECT {COLUMNS} FROM console_users WHERE id = ?1");
    connection.prepare_cached(&sql)?.query_row([id], user).optional()
}

pub(super) fn count(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM console_users", [], |row| row.get(0))
}

fn unlock(transaction: &Connection, user_id: i64, now: UnixMs) -> rusqlite::Result<()> {
    transaction
        .execute("UPDATE console_users SET unlocked_at = ?2 WHERE id = ?1", params![user_id, now.0])
        .map(|_| ())
}

fn end_sessions(transaction: &Connection, user_id: i64) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM console_sessions WHERE user_id = ?1", [user_id]).map(|_| ())
}

fn is_last_operator(transaction: &Connection, user: &ConsoleUser) -> rusqlite::Result<bool> {
    if user.role != Role::Operator || user.disabled_at.is_some() {
        return Ok(false);
    }
    let sql =
        "SELECT count(*) FROM console_users WHERE role = 'operator' AND disabled_at IS NULL AND id <> ?1";
    transaction.query_row(sql, [user.id], |row| Ok(row.get::<_, i64>(0)? == 0))
}

fn user(row: &Row<'_>) -> rusqlite::Result<ConsoleUser> {
    Ok(ConsoleUser {
        id: row.get(0)?,
        name: row.get(1)?,
        role: parsed(row, 2)?,
        has_password: row.get(3)?,
        created_at: UnixMs(row.get(4)?),
        changed_at: UnixMs(row.get(5)?),
        disabled_at: row.get::<_, Option<i64>>(6)?.map(UnixMs),
        last_login: row.get::<_, Option<i64>>(7)?.map(UnixMs),
    })
}

fn credentials(row: &Row<'_>) -> rusqlite::Result<Credentials> {
    let password: Option<String> = row.get(8)?;
    Ok(Credentials {
        user: user(row)?,
        password: password.as_deref().map(Secret::new),
        unlocked_at: row.get::<_, Option<i64>>(9)?.map(UnixMs),
    })
}
