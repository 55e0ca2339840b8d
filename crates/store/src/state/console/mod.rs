//! Who may use the console and the API: people, their sessions, one-time links, and tokens of programs.
//!
//! Owns the tables `console_*` and `api_tokens`. Passwords and tokens come here as hashes; must not know how they
//! are made, nor let them out in messages.

mod links;
mod sessions;
mod tokens;
mod users;

use std::fmt;

use rusqlite::types::{ToSql, ToSqlOutput};

pub use links::ConsoleLink;
pub use sessions::{ConsoleSession, MAX_SESSIONS_PER_USER, NewSession};
pub use tokens::{ApiToken, MAX_API_TOKENS, NewApiToken};
pub use users::{ConsoleUser, Credentials, MAX_CONSOLE_USERS, NewUser};

/// SHA-256 of a token of 32 random bytes, which nobody guesses or finds by comparing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest(pub [u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ToSql for TokenDigest {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_slice().into())
    }
}

/// Why users, links and tokens stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    #[error("there is a user of this name already; choose another name")]
    NameTaken,

    #[error("there are {MAX_CONSOLE_USERS} users, and no more can be made")]
    TooManyUsers,

    #[error("nobody else could change anything then; make another user an operator first")]
    LastOperator,

    #[error("there is no such user")]
    NoSuchUser,

    #[error("there is an API token of this name already; choose another name, or revoke that one")]
    TokenNameTaken,

    #[error("there are {MAX_API_TOKENS} API tokens, and no more can be made; revoke some first")]
    TooManyTokens,

    #[error("this link has been used, has run out, or is none; \"portcullis console link\" prints a new one")]
    LinkEnded,
}
