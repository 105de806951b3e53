-- Schema 1: tasks, their bodies, idempotency keys.
-- An applied version is never edited; the next one is a new file, and `user_version` says which ones a store has had.

-- One row a task. `facts` is the whole task (MessagePack); the columns beside it are only what queries filter on.
-- A rowid table, because rows with heads of output are large, and `inputs` and `results` refer to the rowid.
CREATE TABLE tasks (
    row        INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    account    TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    image      TEXT    NOT NULL,
    name       TEXT,
    expires_us INTEGER,            -- null until the task has ended
    facts      BLOB    NOT NULL
);

-- Lists, newest first, one query a state: a list of all states merges the six. Indexes without the state beside these
-- would cost each finished task more pages.
CREATE INDEX tasks_by_state ON tasks (account, state, id);
CREATE INDEX tasks_by_image ON tasks (account, image, state, id);
CREATE INDEX tasks_by_name  ON tasks (account, name, state, id) WHERE name IS NOT NULL;

-- These stay small however many tasks have ended.
CREATE INDEX tasks_unfinished ON tasks (id) WHERE kind = 'async' AND state IN ('queued', 'running');
CREATE INDEX tasks_expiry ON tasks (expires_us) WHERE expires_us IS NOT NULL;

-- The standard input of an async task until it ends. Exactly one of `inline` and `blob` is set.
CREATE TABLE inputs (
    task       INTEGER PRIMARY KEY, -- tasks.row
    size_bytes INTEGER NOT NULL,
    inline     BLOB,
    blob       TEXT
);

-- The results of an async task (MessagePack of `Results`).
CREATE TABLE results (
    task INTEGER PRIMARY KEY, -- tasks.row
    body BLOB NOT NULL
);

-- Every blob that an input or a result names, and those that are nobody's since (task 0) until they are deleted.
CREATE TABLE blobs (
    name TEXT PRIMARY KEY,
    task INTEGER NOT NULL -- tasks.row, or 0
) WITHOUT ROWID;
CREATE INDEX blobs_by_task ON blobs (task);

-- Idempotency keys of the last 24 hours.
CREATE TABLE idempotency (
    account     TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    task_id     TEXT    NOT NULL,
    created_us  INTEGER NOT NULL,
    PRIMARY KEY (account, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_task ON idempotency (task_id);
CREATE INDEX idempotency_by_age ON idempotency (created_us);

-- How often the log was folded into the database. Written after each checkpoint: that write starts the log again.
CREATE TABLE upkeep (
    checkpoints INTEGER NOT NULL
);
INSERT INTO upkeep VALUES (0);
