-- Schema 2: dead letters, the async tasks that the platform gave up. Their inputs stay, for a replay.
-- Such a task has the state 'dead' in its row, while its facts say failed: so lists find it by the indexes that exist.

-- How many dead letters an account has, and the bytes of their inputs; account '' has the sum of all.
CREATE TABLE dead_letters (
    account    TEXT PRIMARY KEY,
    tasks      INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL
) WITHOUT ROWID;
