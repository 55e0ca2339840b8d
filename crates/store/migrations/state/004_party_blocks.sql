-- Blocks of somebody behind an address: of one user, or of the anonymous clients of an address. `agents` is a
-- JSON array of user agents. Numbers are taken from those of `blocks`, so that `block:7` in the log is one block.

CREATE TABLE party_blocks (
    id         INTEGER PRIMARY KEY,
    user       TEXT,
    network    TEXT,
    agents     TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    finding_id INTEGER,
    removed_at INTEGER,
    removed_by TEXT,
    seq        INTEGER NOT NULL,
    CHECK ((user IS NULL) <> (network IS NULL))
) STRICT;
CREATE UNIQUE INDEX party_blocks_user ON party_blocks (user) WHERE removed_at IS NULL AND user IS NOT NULL;
CREATE UNIQUE INDEX party_blocks_network ON party_blocks (network)
    WHERE removed_at IS NULL AND network IS NOT NULL;
CREATE INDEX party_blocks_seq ON party_blocks (seq);

-- SQLite makes the row with the first block.
INSERT INTO sqlite_sequence (name, seq)
    SELECT 'blocks', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'blocks');

-- The user whom a finding is about; NULL: those at the address whom the gateway cannot name.
ALTER TABLE findings ADD COLUMN user TEXT;
