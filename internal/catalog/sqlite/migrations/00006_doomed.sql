-- +goose Up

-- When the last archive of a snapshot was stored; '': not known, but not long after it was made.
ALTER TABLE snapshots ADD COLUMN stored TEXT NOT NULL DEFAULT '';

-- Archives that no snapshot needs any more and that are still to be deleted.
CREATE TABLE doomed (
    num      INTEGER PRIMARY KEY,
    vault    BLOB    NOT NULL,
    archive  BLOB    NOT NULL,
    set_id   TEXT    NOT NULL,
    snap     TEXT    NOT NULL, -- id of the snapshot or attempt that it was of
    manifest INTEGER NOT NULL, -- 1: a manifest, which goes before any volume
    size     INTEGER NOT NULL,
    stored   TEXT    NOT NULL, -- not after this time
    UNIQUE (vault, archive)
);
CREATE INDEX doomed_order ON doomed (set_id, manifest DESC, num);

PRAGMA user_version = 6;
