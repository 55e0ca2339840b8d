//! Who has signed in.
//! Must not know cookies.

use std::net::IpAddr;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use portcullis_model::{Role, UnixMs};

use super::TokenDigest;
use crate::error::StoreError;
use crate::state::audit::note;
use crate::state::{State, parsed, row_limit};

/// Sessions that one person may have at once; another sign-in ends the one that was unused the longest.
pub const MAX_SESSIONS_PER_USER: usize = 20;
/// Characters of a user agent that are kept.
const MAX_USER_AGENT: usize = 200;

const COLUMNS: &str =
    "s.id, s.user_id, u.name, u.role, s.created_at, s.last_used, s.expires_at, s.address, s.user_agent";

/// A session that has not ended, of somebody who may sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleSession {
    pub id: i64,
    pub user_id: i64,
    pub user: String,
    pub role: Role,
    pub created_at: UnixMs,
    pub last_used: UnixMs,
    pub expires_at: UnixMs,
    /// From where the sign-in was.
    pub address: String,
    pub user_agent: String,
}

/// A session to begin.
#[derive(Clone, Debug)]
pub struct NewSession<'a> {
    pub digest: TokenDigest,
    pub user_id: i64,
    pub expires_at: UnixMs,
    pub address: IpAddr,
    pub user_agent: &'a str,
}

impl State {
    /// Begins a session, and notes the sign-in.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn begin_session(&mut self, new: &NewSession<'_>, user: &str, now: UnixMs) -> Result<(), StoreError> {
        self.write("beginning a session", |transaction| {
            let sql = "DELETE FROM console_sessions WHERE id IN (SELECT id FROM console_sessions WHERE user_id = ?1 \
                       ORDER BY last_used DESC LIMIT -1 OFFSET ?2)";
            transaction.execute(sql, params![new.user_id, row_limit(MAX_SESSIONS_PER_USER - 1)])?;
            transaction.execute(
                "INSERT INTO console_sessions (digest, user_id, created_at, last_used, expires_at, address, user_agent) \
                 VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6)",
                params![
                    new.digest,
                    new.user_id,
                    now.0,
                    new.expires_at.0,
                    new.address.to_string(),
                    new.user_agent.chars().take(MAX_USER_AGENT).collect::<String>()
                ],
            )?;
            transaction
                .execute("UPDATE console_users SET last_login = ?2 WHERE id = ?1", params![new.user_id, now.0])?;
            note(transaction, now, &format!("console:{user}"), "login", user, "")
        })
    }

    /// The session of a token, unless it has run out, was unused for `idle`, or its user is disabled.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn session(
        &self,
        digest: &TokenDigest,
        idle: Duration,
        now: UnixMs,
    ) -> Result<Option<ConsoleSession>, StoreError> {
        self.read("reading a session", || {
            let sql = standing("s.digest = ?3");
            let bounds = params![now.0, now.minus(idle).0, digest];
            self.connection.prepare_cached(&sql)?.query_row(bounds, session).optional()
        })
    }

    /// The sessions of one user, the one that was used last first.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn sessions_of(
        &self,
        user_id: i64,
        idle: Duration,
        now: UnixMs,
    ) -> Result<Vec<ConsoleSession>, StoreError> {
        self.read("reading sessions", || {
            let sql = standing("s.user_id = ?3 ORDER BY s.last_used DESC");
            let bounds = params![now.0, now.minus(idle).0, user_id];
            self.connection.prepare_cached(&sql)?.query_map(bounds, session)?.collect()
        })
    }

    /// Says that a session is used.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn touch_session(&mut self, id: i64, now: UnixMs) -> Result<(), StoreError> {
        self.write("noting the use of a session", |transaction| {
            let sql = "UPDATE console_sessions SET last_used = ?2 WHERE id = ?1 AND last_used < ?2";
            transaction.execute(sql, params![id, now.0]).map(|_| ())
        })
    }

    /// Ends one session of a user. False when there is none.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn end_session(
        &mut self,
        user_id: i64,
        id: i64,
        actor: &str,
        now: UnixMs,
    ) -> Result<bool, StoreError> {
        self.write("ending a session", |transaction| {
            let Some(user) = name_of(transaction, user_id)? else { return Ok(false) };
            let sql = "DELETE FROM console_sessions WHERE id = ?1 AND user_id = ?2";
            let has_ended = transaction.execute(sql, [id, user_id])? > 0;
            if has_ended {
                note(transaction, now, actor, "logout", &user, "")?;
            }
            Ok(has_ended)
        })
    }
}

fn standing(which: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM console_sessions s JOIN console_users u ON u.id = s.user_id \
         WHERE s.expires_at > ?1 AND s.last_used > ?2 AND u.disabled_at IS NULL AND {which}"
    )
}

fn name_of(connection: &Connection, user_id: i64) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT name FROM console_users WHERE id = ?1";
    connection.prepare_cached(sql)?.query_row([user_id], |row| row.get(0)).optional()
}

fn session(row: &Row<'_>) -> rusqlite::Result<ConsoleSession> {
    Ok(ConsoleSession {
        id: row.get(0)?,
        user_id: row.get(1)?,
        user: row.get(2)?,
        role: parsed(row, 3)?,
        created_at: UnixMs(row.get(4)?),
        last_used: UnixMs(row.get(5)?),
        expires_at: UnixMs(row.get(6)?),
        address: row.get(7)?,
        user_agent: row.get(8)?,
    })
}
