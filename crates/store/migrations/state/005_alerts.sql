-- What people are told of by mail and webhook. Times are milliseconds since 1970 (UTC).

-- Events that were put together; `body` says which. Each channel has its own place in them.
CREATE TABLE alerts (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    severity INTEGER NOT NULL,  -- of the worst: 0 low, 1 medium, 2 high, 3 critical
    events   INTEGER NOT NULL,
    body     TEXT    NOT NULL   -- JSON
) STRICT;

CREATE TABLE alert_channels (
    channel       TEXT    PRIMARY KEY,
    done_id       INTEGER NOT NULL,            -- every alert up to it was told or given up
    trying_id     INTEGER,                     -- the alerts up to it are being told
    failures      INTEGER NOT NULL DEFAULT 0,  -- in a row
    failing_since INTEGER,
    next_try_at   INTEGER,
    last_error    TEXT,
    sent          INTEGER NOT NULL DEFAULT 0,  -- messages, reports included
    last_sent_at  INTEGER,
    lost          INTEGER NOT NULL DEFAULT 0   -- events that nobody was told of
) STRICT, WITHOUT ROWID;

-- Messages about events, for the cap per hour. A try that is known to have failed has no row.
CREATE TABLE alert_sends (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    events  INTEGER NOT NULL,
    sent    INTEGER NOT NULL    -- 0: nobody knows whether it arrived
) STRICT;
CREATE INDEX alert_sends_channel ON alert_sends (channel, at);

-- Whole messages that wait for a channel: reports.
CREATE TABLE alert_outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    channel    TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    name       TEXT    NOT NULL,  -- such as report-2026-11-19; the same message is kept once
    message    TEXT    NOT NULL,  -- JSON
    UNIQUE (channel, name)
) STRICT;
