-- Since when a task could have run: what was due after that and did not run was missed.
CREATE TABLE tasks (
    name       TEXT    PRIMARY KEY,
    first_seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
