-- Rows that were erased before their slice went: `slices.rows` goes on counting them, because it is the number of
-- the last row.
CREATE TABLE erased (
    slice INTEGER PRIMARY KEY,
    rows  INTEGER NOT NULL
);

-- Which kinds of fields have been taken out of a sealed slice since; bits, see log/scrub.rs.
ALTER TABLE slices ADD COLUMN scrubbed INTEGER NOT NULL DEFAULT 0;
