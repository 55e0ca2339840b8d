-- What people said is no attack: a rule that is silent about everybody, about a network, or below a path.
CREATE TABLE nevers (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    rule       TEXT    NOT NULL,
    network    TEXT,               -- of one client; NULL: whoever it is
    path       TEXT,               -- and what is below it; NULL: whatever was asked for
    note       TEXT    NOT NULL,
    finding_id INTEGER,            -- the finding that was dismissed
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    removed_at INTEGER,
    removed_by TEXT
) STRICT;

-- What was odd about clients in the last days, though in no hour enough for a finding.
CREATE TABLE weak_evidence (
    client    TEXT    NOT NULL PRIMARY KEY,
    last_seen INTEGER NOT NULL,
    memory    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
