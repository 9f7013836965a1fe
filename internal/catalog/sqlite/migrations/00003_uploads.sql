-- +goose Up

-- Uploads of single files under way, so that an interrupted one goes on.
CREATE TABLE file_uploads (
    vault       BLOB    NOT NULL,
    upload      BLOB    NOT NULL,
    path        BLOB    NOT NULL, -- absolute
    size        INTEGER NOT NULL,
    mtime       TEXT    NOT NULL,
    part_size   INTEGER NOT NULL,
    name        BLOB    NOT NULL,
    description BLOB    NOT NULL,
    begun       TEXT    NOT NULL,
    tree_hash   BLOB    NOT NULL, -- zeros until all parts are there
    PRIMARY KEY (vault, upload)
) WITHOUT ROWID;
CREATE INDEX file_uploads_path ON file_uploads (vault, path);

PRAGMA user_version = 3;
