-- What each HTTP source of locations said about an address: one row per source, so that a person can see
-- who said what. A location that is {} means that the source does not know the address.
DROP TABLE geo_cache;
CREATE TABLE geo_cache (
    ip         TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    location   TEXT    NOT NULL,  -- JSON
    fetched_at INTEGER NOT NULL,
    PRIMARY KEY (ip, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX geo_cache_time ON geo_cache (fetched_at);

-- How it is with each source: quota used, failures, until when it is left alone.
CREATE TABLE geo_sources (
    name  TEXT PRIMARY KEY,
    state TEXT NOT NULL  -- JSON, written and read by the gateway's geo part alone
) STRICT, WITHOUT ROWID;
