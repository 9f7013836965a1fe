-- +goose Up

-- Vaults that were made for a period of a template.
CREATE TABLE made_vaults (
    vault    BLOB PRIMARY KEY NOT NULL,
    template BLOB NOT NULL,
    made     TEXT NOT NULL,
    ended    TEXT NOT NULL -- '': nobody has tried to remove it yet
);

PRAGMA user_version = 7;
