//! Tokens of programs that use the API.
//! Must not let a token outlive what its maker may do.

use rusqlite::{OptionalExtension as _, Row, params};
use serde::Serialize;

use portcullis_model::{Scope, UnixMs};

use super::{AccessRefusal, TokenDigest};
use crate::error::StoreError;
use crate::state::audit::note;
use crate::state::{State, parsed};

/// Tokens that are not revoked, at most.
pub const MAX_API_TOKENS: usize = 200;

const COLUMNS: &str = "t.id, t.name, t.scope, t.created_by, t.created_at, t.expires_at, t.last_used";

/// A program that may use the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiToken {
    #[serde(skip)]
    pub id: i64,
    pub name: String,
    pub scope: Scope,
    pub created_by: String,
    pub created_at: UnixMs,
    pub expires_at: UnixMs,
    pub last_used: Option<UnixMs>,
}

/// A token to keep.
#[derive(Clone, Debug)]
pub struct NewApiToken<'a> {
    pub digest: TokenDigest,
    pub name: &'a str,
    pub scope: Scope,
    /// Whose it is: with them it loses its rights. `None` is the command line's.
    pub user_id: Option<i64>,
    pub expires_at: UnixMs,
}

impl State {
    /// Keeps a token.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn add_api_token(
        &mut self,
        new: &NewApiToken<'_>,
        actor: &str,
        now: UnixMs,
    ) -> Result<Result<(), AccessRefusal>, StoreError> {
        self.write("making an API token", |transaction| {
            let count: i64 =
                transaction.query_row("SELECT count(*) FROM api_tokens WHERE revoked_at IS NULL", [], |row| {
                    row.get(0)
                })?;
            if usize::try_from(count).unwrap_or(usize::MAX) >= MAX_API_TOKENS {
                return Ok(Err(AccessRefusal::TooManyTokens));
            }
            let sql = "INSERT INTO api_tokens (digest, name, scope, user_id, created_by, created_at, expires_at) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
            let NewApiToken { digest, name, scope, user_id, expires_at } = new;
            let values = params![digest, name, scope.as_str(), user_id, actor, now.0, expires_at.0];
            if transaction.execute(sql, values)? == 0 {
                return Ok(Err(AccessRefusal::TokenNameTaken));
            }
            note(transaction, now, actor, "token-add", name, scope.as_str())?;
            Ok(Ok(()))
        })
    }

    /// The program with this token; none when it is revoked, has run out, or whoever made it may not do so much any more.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn api_token(&self, digest: &TokenDigest, now: UnixMs) -> Result<Option<ApiToken>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM api_tokens t LEFT JOIN console_users u ON u.id = t.user_id \
             WHERE t.digest = ?1 AND t.revoked_at IS NULL AND t.expires_at > ?2 AND (t.user_id IS NULL \
             OR u.disabled_at IS NULL AND (u.role = 'operator' OR u.role = 'viewer' AND t.scope = 'read'))"
        );
        self.read("reading an API token", || {
            self.connection.prepare_cached(&sql)?.query_row(params![digest, now.0], token).optional()
        })
    }

    /// Says that a token is used.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn touch_api_token(&mut self, id: i64, now: UnixMs) -> Result<(), StoreError> {
        self.write("noting the use of an API token", |transaction| {
            transaction
                .execute("UPDATE api_tokens SET last_used = ?2 WHERE id = ?1", params![id, now.0])
                .map(|_| ())
        })
    }

    /// All that are not revoked, by name; those that have run out are among them.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM api_tokens t WHERE t.revoked_at IS NULL ORDER BY t.name");
        self.read("reading the API tokens", || {
            self.connection.prepare_cached(&sql)?.query_map([], token)?.collect()
        })
    }

    /// Ends a token for ever. False when there is none of this name.
    ///
    /// # Errors
    /// SQLite fails; then nothing has changed.
    pub fn revoke_api_token(&mut self, name: &str, actor: &str, now: UnixMs) -> Result<bool, StoreError> {
        self.write("revoking an API token", |transaction| {
            let sql = "UPDATE api_tokens SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL";
            let has_ended = transaction.execute(sql, params![name, now.0])? > 0;
            if has_ended {
                note(transaction, now, actor, "token-revoke", name, "")?;
            }
            Ok(has_ended)
        })
    }
}

fn token(row: &Row<'_>) -> rusqlite::Result<ApiToken> {
    Ok(ApiToken {
        id: row.get(0)?,
        name: row.get(1)?,
        scope: parsed(row, 2)?,
        created_by: row.get(3)?,
        created_at: UnixMs(row.get(4)?),
        expires_at: UnixMs(row.get(5)?),
        last_used: row.get::<_, Option<i64>>(6)?.map(UnixMs),
    })
}
