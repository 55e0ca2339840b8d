-- The log database: one row of `slices` per time slice; the slice's own tables (requests_N, clients_N)
-- are made when it is opened and dropped whole when it is too old. What the rows of all slices refer
-- to is in strings, shapes and places; slice N has the numbers from N * 2^32 on, and its rows hold
-- what is above that.

CREATE TABLE slices (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    base_ms   INTEGER NOT NULL,  -- requests_N.t counts from here
    sealed_ms INTEGER,           -- NULL: rows are still appended
    rows      INTEGER NOT NULL,  -- committed with the rows themselves
    min_ms    INTEGER,           -- the earliest and the latest start of a request
    max_ms    INTEGER,
    indexed   INTEGER NOT NULL   -- 1: requests_N has its index on client
);

-- The earliest and latest start of each run of rows, so that a time finds its rows without an index.
CREATE TABLE zones (
    slice    INTEGER NOT NULL,
    last_row INTEGER NOT NULL,
    min_ms   INTEGER NOT NULL,
    max_ms   INTEGER NOT NULL,
    PRIMARY KEY (slice, last_row)
) WITHOUT ROWID;

-- Texts that came more than once; the first of each slice is empty.
CREATE TABLE strings (
    id   INTEGER PRIMARY KEY,
    text TEXT NOT NULL
);

-- What of a request takes few values, together.
CREATE TABLE shapes (
    id            INTEGER PRIMARY KEY,
    method        TEXT    NOT NULL,
    host          TEXT    NOT NULL,
    status        INTEGER NOT NULL,
    protocol      TEXT    NOT NULL,
    verdict       TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    is_suspicious INTEGER NOT NULL
);

-- Where clients are.
CREATE TABLE places (
    id        INTEGER PRIMARY KEY,
    country   TEXT,
    city      TEXT,
    region    TEXT,
    latitude  REAL,
    longitude REAL,
    isp       TEXT,
    asn       INTEGER
);
