-- +goose Up

-- Which account of a service an access key belongs to: asked once.
CREATE TABLE accounts (
    caller  BLOB PRIMARY KEY NOT NULL, -- a hash of the access key's id and the endpoint
    account TEXT NOT NULL
) WITHOUT ROWID;

-- Archives deleted here that had a name, also when no listing has them any more.
CREATE TABLE deletions (
    vault       BLOB NOT NULL,
    archive     BLOB NOT NULL,
    description BLOB NOT NULL,
    deleted     TEXT NOT NULL,
    PRIMARY KEY (vault, archive)
) WITHOUT ROWID;
CREATE INDEX deletions_described ON deletions (vault, description);

-- Archives are asked for by what they are called.
CREATE INDEX archives_named ON archives (vault, name) WHERE name <> x'';
CREATE INDEX archives_described ON archives (vault, description);

PRAGMA user_version = 4;
