-- +goose Up

-- What is known of a vault's archives: by listings, and by what was uploaded and deleted here.
CREATE TABLE archives (
    num         INTEGER PRIMARY KEY,
    vault       BLOB    NOT NULL,
    archive     BLOB    NOT NULL,
    name        BLOB    NOT NULL,
    description BLOB    NOT NULL,
    size        INTEGER NOT NULL,
    tree_hash   BLOB    NOT NULL,
    created     TEXT    NOT NULL,
    seen        TEXT    NOT NULL, -- '': in no listing; 'last': in the last one; else the time of the last that had it
    uploaded    TEXT    NOT NULL,
    deleted     TEXT    NOT NULL,
    UNIQUE (vault, archive)
);
CREATE INDEX archives_created ON archives (vault, created, archive);

-- The last listing of each vault that was taken in.
CREATE TABLE listings (
    vault    BLOB PRIMARY KEY NOT NULL,
    as_of    TEXT    NOT NULL,
    taken    TEXT    NOT NULL,
    archives INTEGER NOT NULL,
    bytes    INTEGER NOT NULL
);

-- A listing while it is taken in.
CREATE TABLE listed (
    vault       BLOB    NOT NULL,
    archive     BLOB    NOT NULL,
    description BLOB    NOT NULL,
    size        INTEGER NOT NULL,
    tree_hash   BLOB    NOT NULL,
    created     TEXT    NOT NULL,
    PRIMARY KEY (vault, archive)
) WITHOUT ROWID;

PRAGMA user_version = 2;
