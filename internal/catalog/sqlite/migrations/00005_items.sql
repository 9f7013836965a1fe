-- +goose Up

-- Sets of single archives (kinds items and mirror): one row for each version of each item.
CREATE TABLE items (
    set_id     TEXT    NOT NULL REFERENCES sets (id),
    path       BLOB    NOT NULL, -- relative; NUL for the slash
    n          INTEGER NOT NULL, -- of the run that stored it
    until      INTEGER,          -- of the run that replaced it or found it gone; NULL: current
    vault      BLOB    NOT NULL,
    archive    BLOB    NOT NULL, -- empty: there is nothing to store, or it is a snapshot
    snapshot   TEXT    NOT NULL, -- id, of an item in Firn's format
    size       INTEGER NOT NULL, -- of the archive
    tree_hash  BLOB    NOT NULL, -- of the archive
    stored     TEXT    NOT NULL,
    deleted    TEXT    NOT NULL, -- '': it was not
    listed     INTEGER NOT NULL, -- n of the run whose index in the vault tells of it; 0: none does
    plain      INTEGER NOT NULL, -- bytes before the codecs
    plain_hash BLOB    NOT NULL, -- tree hash of those
    state      BLOB    NOT NULL, -- of the metadata at which it was found unchanged last
    more       BLOB    NOT NULL, -- JSON
    PRIMARY KEY (set_id, path, n)
) WITHOUT ROWID;
CREATE INDEX items_archive ON items (vault, archive);
CREATE INDEX items_ended ON items (set_id, until) WHERE until IS NOT NULL AND deleted = '';

-- Uploads of items under way.
CREATE TABLE item_uploads (
    set_id TEXT NOT NULL REFERENCES sets (id),
    path   BLOB NOT NULL, -- NUL for the slash; empty: a run's index
    item   BLOB NOT NULL, -- JSON
    PRIMARY KEY (set_id, path)
) WITHOUT ROWID;

-- Runs of such sets that changed something.
CREATE TABLE item_runs (
    set_id TEXT    NOT NULL REFERENCES sets (id),
    n      INTEGER NOT NULL,
    id     TEXT    NOT NULL UNIQUE,
    vault  BLOB    NOT NULL,
    at     TEXT    NOT NULL,
    listing BLOB   NOT NULL, -- the archive of its index; empty: none
    run    BLOB    NOT NULL, -- JSON
    PRIMARY KEY (set_id, n)
) WITHOUT ROWID;

PRAGMA user_version = 5;
