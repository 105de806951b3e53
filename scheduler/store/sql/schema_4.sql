-- Schema 4: batches, one image over many inputs. The tasks of a batch are made a few at a time, so it has few rows of its own.

-- One row a batch. `facts` is the whole batch (MessagePack). Its spool is a blob, which belongs to the task -row.
-- `ends` counts the tasks that have ended, those that were run again included.
CREATE TABLE batches (
    row         INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    account     TEXT    NOT NULL,
    is_open     INTEGER NOT NULL,    -- 1: not all of its tasks have ended
    expires_us  INTEGER,             -- null while it is open
    key         TEXT,                -- its idempotency key, with the digest of the request
    fingerprint BLOB,
    created_us  INTEGER NOT NULL,
    ends        INTEGER NOT NULL DEFAULT 0,
    size_bytes  INTEGER NOT NULL,    -- of its facts and its spool
    facts       BLOB    NOT NULL
);
CREATE INDEX batches_open ON batches (id) WHERE is_open = 1;
CREATE INDEX batches_expiry ON batches (expires_us) WHERE expires_us IS NOT NULL;
CREATE INDEX batches_by_key ON batches (account, key, created_us) WHERE key IS NOT NULL;
CREATE INDEX batches_by_account ON batches (account);

-- The task of a batch: batches.row, the byte of the spool where its input begins, the round in which it was made, and
-- its place among the ended tasks of the batch. All are null for other tasks.
ALTER TABLE tasks ADD COLUMN batch INTEGER;
ALTER TABLE tasks ADD COLUMN item INTEGER;
ALTER TABLE tasks ADD COLUMN round INTEGER;
ALTER TABLE tasks ADD COLUMN ended_as INTEGER;

-- No input ever has two tasks.
CREATE UNIQUE INDEX tasks_by_item ON tasks (batch, item) WHERE batch IS NOT NULL;
CREATE INDEX tasks_by_round ON tasks (batch, state, round, item) WHERE batch IS NOT NULL;
CREATE INDEX tasks_by_end ON tasks (batch, ended_as) WHERE ended_as IS NOT NULL;
