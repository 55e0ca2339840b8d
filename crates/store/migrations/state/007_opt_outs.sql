-- Addresses and users who have opted out of being logged by name, as keyed hashes.
CREATE TABLE opt_outs (
    digest     TEXT    PRIMARY KEY,
    kind       TEXT    NOT NULL,  -- address, user
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    seq        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX opt_outs_seq ON opt_outs (seq);
