-- +goose Up

-- "Firn": tells the catalog from other programs' databases.
PRAGMA application_id = 0x4669726e;

CREATE TABLE sets (
    id      TEXT PRIMARY KEY,
    name    BLOB NOT NULL,
    label   BLOB NOT NULL,
    host    BLOB NOT NULL,
    kind    TEXT NOT NULL,
    vault   BLOB NOT NULL,
    root    BLOB NOT NULL,
    created TEXT NOT NULL,
    UNIQUE (name, host)
);

CREATE TABLE snapshots (
    num              INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again: rows of entries name it
    id               TEXT    NOT NULL UNIQUE,
    set_id           TEXT    NOT NULL REFERENCES sets (id),
    n                INTEGER NOT NULL,
    chain            INTEGER NOT NULL, -- num of the chain's full snapshot
    kind             TEXT    NOT NULL,
    base             TEXT    NOT NULL,
    at               TEXT    NOT NULL,
    made             TEXT    NOT NULL,
    state            TEXT    NOT NULL,
    header           BLOB    NOT NULL, -- JSON
    params           BLOB    NOT NULL,
    vault            BLOB    NOT NULL,
    manifest_hash    BLOB,
    manifest_archive BLOB,
    manifest_size    INTEGER,
    manifest_tree    BLOB,
    totals           BLOB, -- JSON
    UNIQUE (set_id, n)
);
CREATE UNIQUE INDEX one_running ON snapshots (set_id) WHERE state = 'running';
CREATE INDEX snapshots_chain ON snapshots (chain, n);

-- Chains that are no more and whose entries are still to be removed.
CREATE TABLE garbage (chain INTEGER PRIMARY KEY);

CREATE TABLE entries (
    chain   INTEGER NOT NULL,
    path    BLOB    NOT NULL, -- NUL for the slash
    n       INTEGER NOT NULL, -- the first snapshot it is valid in
    until   INTEGER,          -- the first it is not; NULL: still valid
    stat    BLOB    NOT NULL,
    content BLOB,
    grp     BLOB,
    more    BLOB,
    PRIMARY KEY (chain, path, n)
) WITHOUT ROWID;
CREATE INDEX entries_links ON entries (grp, path) WHERE grp IS NOT NULL;

-- What an incremental put or ended.
CREATE TABLE changes (
    snap INTEGER NOT NULL,
    path BLOB    NOT NULL,
    PRIMARY KEY (snap, path)
) WITHOUT ROWID;

CREATE TABLE owners (
    num        INTEGER PRIMARY KEY,
    user_name  BLOB NOT NULL,
    group_name BLOB NOT NULL,
    UNIQUE (user_name, group_name)
);

CREATE TABLE problems (
    id     INTEGER PRIMARY KEY,
    snap   INTEGER NOT NULL REFERENCES snapshots (num),
    path   BLOB    NOT NULL,
    reason BLOB    NOT NULL
);
CREATE INDEX problems_path ON problems (snap, path);

CREATE TABLE volumes (
    snap       INTEGER NOT NULL REFERENCES snapshots (num),
    n          INTEGER NOT NULL,
    archive    BLOB    NOT NULL,
    size       INTEGER NOT NULL,
    tree_hash  BLOB    NOT NULL,
    raw        INTEGER NOT NULL,
    raw_sha256 BLOB,
    header     BLOB,
    tail       BLOB,
    checkpoint BLOB, -- JSON
    frames     BLOB    NOT NULL,
    leaves     BLOB    NOT NULL, -- last: long, and seldom read
    PRIMARY KEY (snap, n)
);

CREATE TABLE pending (
    snap       INTEGER NOT NULL REFERENCES snapshots (num),
    n          INTEGER NOT NULL, -- 0: the manifest
    upload     BLOB    NOT NULL,
    name       BLOB    NOT NULL,
    archive    BLOB    NOT NULL,
    size       INTEGER NOT NULL,
    tree_hash  BLOB    NOT NULL,
    raw        INTEGER NOT NULL,
    raw_sha256 BLOB,
    header     BLOB,
    tail       BLOB,
    checkpoint BLOB    NOT NULL, -- JSON
    hash       BLOB    NOT NULL,
    totals     BLOB    NOT NULL, -- JSON
    frames     BLOB    NOT NULL,
    leaves     BLOB    NOT NULL,
    PRIMARY KEY (snap, n)
);

CREATE TABLE retrievals (
    vault        BLOB    NOT NULL,
    token        BLOB    NOT NULL,
    archive      BLOB    NOT NULL,
    range_offset INTEGER NOT NULL,
    range_size   INTEGER NOT NULL,
    tier         TEXT    NOT NULL,
    ready        INTEGER NOT NULL,
    requested    TEXT    NOT NULL,
    expires      TEXT    NOT NULL,
    PRIMARY KEY (vault, token)
);

CREATE TABLE trusted (
    signer BLOB PRIMARY KEY NOT NULL,
    note   BLOB NOT NULL
);

CREATE TABLE runs (
    id        TEXT PRIMARY KEY,
    command   BLOB    NOT NULL,
    set_name  BLOB    NOT NULL,
    started   TEXT    NOT NULL,
    ended     TEXT    NOT NULL,
    exit_code INTEGER NOT NULL,
    summary   BLOB    NOT NULL
);
CREATE INDEX runs_started ON runs (started, id);

CREATE TABLE leases (
    set_id  TEXT PRIMARY KEY,
    holder  BLOB NOT NULL,
    expires TEXT NOT NULL
);

-- Each migration ends by naming itself: a catalog whose version is the newest needs
-- no look at goose's own table.
PRAGMA user_version = 1;
