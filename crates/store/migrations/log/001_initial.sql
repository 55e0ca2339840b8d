-- The log database: one row of `slices` per time slice; the slice's own tables (requests_N, clients_N,
-- strings_N, shapes_N, places_N) are made when it is opened and dropped whole when it is too old.

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
