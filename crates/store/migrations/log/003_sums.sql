-- What the full zones hold, so that a search passes over those without a match and sums need no rows; encoded by
-- log/sums. Its number is slice * 2^32 + zone * 16 + kind. All of it is made from the rows, and made anew when rows
-- are erased; zones without it are read row by row.
CREATE TABLE zone_sums (
    id   INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

-- Eight bytes for each text in strings, from the number in the id on: which runs of three letters it may hold.
CREATE TABLE string_marks (
    id   INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
