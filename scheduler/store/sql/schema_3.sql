-- Schema 3: how many bytes each account keeps: the rows (`facts`) of its tasks, their inputs, and the results below.

-- The size of the outputs and files that `body` describes.
ALTER TABLE results ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE results SET size_bytes = results_size(body);

CREATE TABLE kept (
    account    TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO kept (account, size_bytes)
SELECT t.account, sum(length(t.facts) + coalesce(i.size_bytes, 0) + coalesce(r.size_bytes, 0))
FROM tasks t LEFT JOIN inputs i ON i.task = t.row LEFT JOIN results r ON r.task = t.row
GROUP BY t.account;
