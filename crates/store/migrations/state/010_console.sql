-- Who may use the console and the API, and from where a change was made. Tokens and passwords are here as hashes alone.
ALTER TABLE audit ADD COLUMN origin TEXT;  -- the address of whoever did it in the console; NULL: on this machine

CREATE TABLE console_users (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT    NOT NULL COLLATE NOCASE UNIQUE,
    role        TEXT    NOT NULL,  -- viewer, operator
    password    TEXT,              -- Argon2id, as a PHC string; NULL: nobody signs in with a password
    created_at  INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL,
    disabled_at INTEGER,
    last_login  INTEGER,
    unlocked_at INTEGER            -- failed attempts before are forgotten
) STRICT;

CREATE TABLE console_sessions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    digest     BLOB    NOT NULL UNIQUE,  -- SHA-256 of the token
    user_id    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    last_used  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    address    TEXT    NOT NULL,
    user_agent TEXT    NOT NULL
) STRICT;
CREATE INDEX console_sessions_user ON console_sessions (user_id);

CREATE TABLE api_tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    digest     BLOB    NOT NULL UNIQUE,  -- SHA-256 of the token
    name       TEXT    NOT NULL COLLATE NOCASE,
    scope      TEXT    NOT NULL,  -- read, write
    user_id    INTEGER,           -- whose it is; NULL: of whoever made it at the command line
    created_by TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    last_used  INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE UNIQUE INDEX api_tokens_name ON api_tokens (name) WHERE revoked_at IS NULL;

-- Let somebody in once: to make the first account, or to choose a password.
CREATE TABLE console_links (
    digest     BLOB    PRIMARY KEY,      -- SHA-256 of the token
    user_id    INTEGER,                  -- NULL: of the first account
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
