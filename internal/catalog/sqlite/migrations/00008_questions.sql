-- +goose Up

-- Names that were asked for when nothing was known of them, and when that was: only a listing made later answers.
CREATE TABLE questions (
    vault BLOB NOT NULL,
    name  BLOB NOT NULL,
    asked TEXT NOT NULL,
    PRIMARY KEY (vault, name)
) WITHOUT ROWID;

PRAGMA user_version = 8;
