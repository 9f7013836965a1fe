-- +goose Up

-- Which program stored a snapshot; '': Firn. Such a one is one archive, in volumes, and has no manifest.
ALTER TABLE snapshots ADD COLUMN adopted TEXT NOT NULL DEFAULT '';
CREATE INDEX snapshots_adopted ON snapshots (set_id) WHERE adopted <> '';

PRAGMA user_version = 9;
