-- Schema 5: callbacks, the messages to callers when their tasks have ended.

-- One row a callback, from the end of its task. `record` is the callback (MessagePack); the columns beside it are only
-- those that queries filter on. `facts` is the task as it ended, which may be kept for a shorter time than its callback is
-- tried; it is null once the callback was made.
CREATE TABLE callbacks (
    row        INTEGER PRIMARY KEY,
    task_id    TEXT    NOT NULL UNIQUE,
    account    TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    expires_us INTEGER,            -- null while it waits
    record     BLOB    NOT NULL,
    facts      BLOB
);
CREATE INDEX callbacks_by_state ON callbacks (account, state, task_id);

-- It stays small however many callbacks were made.
CREATE INDEX callbacks_waiting ON callbacks (task_id) WHERE state = 'waiting';
CREATE INDEX callbacks_expiry ON callbacks (expires_us) WHERE expires_us IS NOT NULL;
