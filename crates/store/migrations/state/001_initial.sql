-- The state database: what people and the detector decided. Times are milliseconds since 1970 (UTC).
-- `seq` is the number of the change that last touched a row; the running gateway loads what is newer
-- than the last number that it has seen.

CREATE TABLE counter (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    seq      INTEGER NOT NULL
) STRICT;
INSERT INTO counter VALUES (1, 0);

CREATE TABLE blocks (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    network    TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    finding_id INTEGER,
    removed_at INTEGER,
    removed_by TEXT,
    seq        INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX blocks_standing ON blocks (network) WHERE removed_at IS NULL;
CREATE INDEX blocks_seq ON blocks (seq);

CREATE TABLE allows (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    network    TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    removed_by TEXT,
    seq        INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX allows_standing ON allows (network) WHERE removed_at IS NULL;
CREATE INDEX allows_seq ON allows (seq);

CREATE TABLE findings (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    client        TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    severity      INTEGER NOT NULL,  -- 0 low, 1 medium, 2 high, 3 critical
    request_count INTEGER NOT NULL,
    first_seen    INTEGER NOT NULL,
    last_seen     INTEGER NOT NULL,
    detected_at   INTEGER NOT NULL,
    details       TEXT    NOT NULL,  -- JSON
    status        TEXT    NOT NULL,
    block_id      INTEGER
) STRICT;
CREATE INDEX findings_client ON findings (client, last_seen);
CREATE INDEX findings_time ON findings (detected_at);

CREATE TABLE limit_events (
    minute   INTEGER NOT NULL,
    client   TEXT    NOT NULL,
    rule     TEXT    NOT NULL,
    endpoint TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    count    INTEGER NOT NULL,
    PRIMARY KEY (minute, client, rule, endpoint, action)
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
    key   TEXT    PRIMARY KEY,
    value TEXT    NOT NULL,
    seq   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE task_runs (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    task        TEXT    NOT NULL,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    succeeded   INTEGER NOT NULL,
    summary     TEXT    NOT NULL
) STRICT;
CREATE INDEX task_runs_task ON task_runs (task, started_at);

CREATE TABLE geo_cache (
    ip         TEXT    PRIMARY KEY,
    location   TEXT    NOT NULL,  -- JSON
    source     TEXT    NOT NULL,
    fetched_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX geo_cache_time ON geo_cache (fetched_at);

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    detail  TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_time ON audit (at);
