-- What was used up of a limit, as the configuration wrote it then: '3/5m', 'burst 10/1s', '4 at once'. It is part of
-- the key, which SQLite changes only by a new table.
CREATE TABLE limit_events_with_bound (
    minute   INTEGER NOT NULL,
    client   TEXT    NOT NULL,
    rule     TEXT    NOT NULL,
    endpoint TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    bound    TEXT    NOT NULL,
    count    INTEGER NOT NULL,
    PRIMARY KEY (minute, client, rule, endpoint, action, bound)
) STRICT, WITHOUT ROWID;

INSERT INTO limit_events_with_bound (minute, client, rule, endpoint, action, bound, count)
SELECT minute, client, rule, endpoint, action, '', count FROM limit_events;

DROP TABLE limit_events;
ALTER TABLE limit_events_with_bound RENAME TO limit_events;
