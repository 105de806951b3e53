-- The store's queries. Each begins with `-- name:`; the comment lines after it say what it is for.

-- name: save_tasks
-- Write tasks' present facts, new or known. The row of VALUES is repeated for each task of a commit.
INSERT INTO tasks (id, account, kind, state, image, name, expires_us, facts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    account = excluded.account, kind = excluded.kind, state = excluded.state, image = excluded.image,
    name = excluded.name, expires_us = excluded.expires_us, facts = excluded.facts;

-- name: newest_row
-- The largest row number; new tasks have the ones after it.
SELECT coalesce(max(row), 0) FROM tasks;

-- name: add_tasks
-- New tasks; an id that is there already is an error. The row of VALUES is repeated for each task.
INSERT INTO tasks (row, id, account, kind, state, image, name, expires_us, facts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: add_inputs
-- The inputs of new tasks. The row of VALUES is repeated for each of them.
INSERT INTO inputs (task, size_bytes, inline, blob)
VALUES (?, ?, ?, ?);

-- name: task_row
-- The row number of a task.
SELECT row FROM tasks WHERE id = :id;

-- name: held_tasks
-- The ids, row numbers and facts of tasks. The row of VALUES is repeated for each id.
SELECT id, row, facts FROM tasks WHERE id IN (VALUES (?));

-- name: end_task
-- The end of a task that has a row.
UPDATE tasks SET state = ?, expires_us = ?, facts = ? WHERE row = ?;

-- name: keyed_task
-- The task that an account made under a key, and the digest of that request.
SELECT k.fingerprint, k.created_us, t.facts
FROM idempotency k JOIN tasks t ON t.id = k.task_id
WHERE k.account = :account AND k.key = :key;

-- name: set_key
-- Remember which task a key made; an older use of the key is forgotten.
INSERT OR REPLACE INTO idempotency (account, key, fingerprint, task_id, created_us)
VALUES (:account, :key, :fingerprint, :task_id, :created_us);

-- name: set_results
-- The results of tasks that have ended. The row of VALUES is repeated for each of them.
INSERT OR REPLACE INTO results (task, body, size_bytes) VALUES (?, ?, ?);

-- name: drop_input
-- The input of a task that has ended.
DELETE FROM inputs WHERE task = :task;

-- name: take_inputs
-- Drop the inputs of tasks that have ended; returns their sizes, and their blobs. The row of VALUES is repeated for each.
DELETE FROM inputs WHERE task IN (VALUES (?)) RETURNING task, size_bytes, blob;

-- name: add_blob
-- A blob that a task's row now names.
INSERT OR REPLACE INTO blobs (name, task) VALUES (:name, :task);

-- name: free_blobs_of_task
-- Blobs that a task named belong to no task now, until `free_blobs` hands them out for deletion.
UPDATE blobs SET task = 0 WHERE task = :task;

-- name: add_free_blob
-- A blob that no row will name: the input of a request that made no task.
INSERT OR IGNORE INTO blobs (name, task) VALUES (:name, 0);

-- name: free_blobs
-- Blobs that are nobody's.
SELECT name FROM blobs WHERE task = 0 LIMIT :limit;

-- name: drop_blob
-- A blob that is being deleted.
DELETE FROM blobs WHERE name = ?;

-- name: get_task
-- One task.
SELECT facts FROM tasks WHERE id = :id;

-- name: get_input
-- One task's input.
SELECT i.size_bytes, i.inline, i.blob FROM inputs i JOIN tasks t ON t.row = i.task WHERE t.id = :id;

-- name: get_results
-- One task's results.
SELECT r.body FROM results r JOIN tasks t ON t.row = r.task WHERE t.id = :id;

-- name: page_state
-- One account's tasks of one state, newest first.
SELECT id, facts FROM tasks INDEXED BY tasks_by_state
WHERE account = :account AND state = :state AND id < :before
ORDER BY id DESC LIMIT :limit;

-- name: page_image
-- One account's tasks of one image in one state, newest first.
SELECT id, facts FROM tasks INDEXED BY tasks_by_image
WHERE account = :account AND image = :image AND state = :state AND id < :before
ORDER BY id DESC LIMIT :limit;

-- name: page_name
-- One account's tasks of one name in one state, newest first; `image` null: of every image.
SELECT id, facts FROM tasks INDEXED BY tasks_by_name
WHERE account = :account AND name = :name AND state = :state AND id < :before
  AND (:image IS NULL OR image = :image)
ORDER BY id DESC LIMIT :limit;

-- name: unfinished
-- Async tasks that a restarted set goes on with, oldest first, after a given id.
SELECT id, facts FROM tasks INDEXED BY tasks_unfinished
WHERE kind = 'async' AND state IN ('queued', 'running') AND id > :after
ORDER BY id LIMIT :limit;

-- name: expired
-- Ended tasks whose time has come, but for those that a living idempotency key still answers with; whether they may
-- have bodies (of sync tasks only those with output files do); the account; whether the task is a dead letter; and the
-- bytes that it kept.
SELECT t.row, t.kind = 'async' OR EXISTS (SELECT 1 FROM results r WHERE r.task = t.row), t.account, t.state = 'dead',
    length(t.facts) + coalesce((SELECT i.size_bytes FROM inputs i WHERE i.task = t.row), 0)
    + coalesce((SELECT r.size_bytes FROM results r WHERE r.task = t.row), 0)
FROM tasks t INDEXED BY tasks_expiry
WHERE t.expires_us <= :now_us AND NOT EXISTS (SELECT 1 FROM idempotency k WHERE k.task_id = t.id)
ORDER BY t.expires_us LIMIT :limit;

-- name: expire_keys
-- Forget idempotency keys made before a moment.
DELETE FROM idempotency WHERE (account, key) IN (
    SELECT account, key FROM idempotency WHERE created_us <= :made_before_us ORDER BY created_us LIMIT :limit
);

-- name: drop_results
-- The results of an expired task.
DELETE FROM results WHERE task = :task;

-- name: drop_task
-- An expired task.
DELETE FROM tasks WHERE row = :task;

-- name: oldest_dead
-- The oldest dead letter of an account.
SELECT row, facts FROM tasks INDEXED BY tasks_by_state
WHERE account = :account AND state = 'dead' ORDER BY id LIMIT 1;

-- name: results_size
-- The size of the results of one row.
SELECT size_bytes FROM results WHERE task = :task;

-- name: row_sizes
-- The accounts and sizes of tasks' rows. The row of VALUES is repeated for each id.
SELECT account, length(facts) FROM tasks WHERE id IN (VALUES (?));

-- name: kept_sums
-- How many bytes each account keeps.
SELECT account, size_bytes FROM kept;

-- name: change_kept_sum
-- An account keeps more bytes, or fewer; how many it keeps then.
INSERT INTO kept (account, size_bytes) VALUES (:account, :size_bytes)
ON CONFLICT (account) DO UPDATE SET size_bytes = size_bytes + excluded.size_bytes
RETURNING size_bytes;

-- name: drop_kept_sum
-- An account that keeps nothing has no row.
DELETE FROM kept WHERE account = :account;

-- name: first_to_expire
-- When the oldest ended task of an account in one state is removed.
SELECT expires_us FROM tasks INDEXED BY tasks_by_state
WHERE account = :account AND state = :state ORDER BY id LIMIT 1;

-- name: input_size
-- The size of the input of one row.
SELECT size_bytes FROM inputs WHERE task = :task;

-- name: move_input
-- A replay has the input of the dead letter.
UPDATE inputs SET task = :new WHERE task = :task;

-- name: move_blobs
-- A replay has the blob of that input, too. A dead letter has no results, so no other blobs.
UPDATE blobs SET task = :new WHERE task = :task;

-- name: dead_totals
-- How many dead letters an account has, and the bytes of their inputs.
SELECT tasks, size_bytes FROM dead_letters WHERE account = :account;

-- name: change_dead_totals
-- An account has more dead letters, or fewer.
INSERT INTO dead_letters (account, tasks, size_bytes) VALUES (:account, :tasks, :size_bytes)
ON CONFLICT (account) DO UPDATE SET
    tasks = tasks + excluded.tasks, size_bytes = size_bytes + excluded.size_bytes;

-- name: drop_dead_totals
-- An account without dead letters has no row.
DELETE FROM dead_letters WHERE account = :account AND tasks = 0;

-- name: blobs_in_use
-- Names of blobs that tasks name, in order, after a given one.
SELECT name FROM blobs WHERE name > :after AND task <> 0 ORDER BY name LIMIT :limit;

-- name: count_checkpoint
-- The write that starts the log again from its beginning, so that no later one on the event loop has to sync the log's new header.
UPDATE upkeep SET checkpoints = checkpoints + 1;

-- name: add_batch
-- A new batch.
INSERT INTO batches (id, account, is_open, key, fingerprint, created_us, size_bytes, facts)
VALUES (:id, :account, 1, :key, :fingerprint, :created_us, :size_bytes, :facts);

-- name: save_batch
-- Write a batch's present facts.
UPDATE batches SET is_open = :is_open, expires_us = :expires_us, size_bytes = :size_bytes, facts = :facts
WHERE id = :id;

-- name: get_batch
-- One batch.
SELECT row, facts, size_bytes FROM batches WHERE id = :id;

-- name: keyed_batch
-- The newest batch that an account made under a key, and the digest of that request.
SELECT fingerprint, created_us, facts FROM batches
WHERE account = :account AND key = :key ORDER BY created_us DESC LIMIT 1;

-- name: count_batches
-- How many batches of an account are kept.
SELECT count(*) FROM batches INDEXED BY batches_by_account WHERE account = :account;

-- name: page_of_batches
-- Batches of an account below an id, newest first. An account has few, so no index orders them.
SELECT facts FROM batches INDEXED BY batches_by_account
WHERE account = :account AND (:before IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit;

-- name: open_batches
-- Batches that a restarted set goes on with, oldest first, after a given id.
SELECT id, facts FROM batches INDEXED BY batches_open
WHERE is_open = 1 AND id > :after ORDER BY id LIMIT :limit;

-- name: add_batch_task
-- A new task of a batch; a second task of the same input is an error.
INSERT INTO tasks (id, account, kind, state, image, name, expires_us, facts, batch, item, round)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: release_task
-- A task that is run again leaves its batch, and expires as any other.
UPDATE tasks SET batch = NULL, item = NULL, round = NULL, ended_as = NULL, expires_us = :expires_us, facts = :facts
WHERE id = :id AND batch IS NOT NULL;

-- name: count_end
-- One more task of a batch has ended, unless this one was counted before.
UPDATE batches SET ends = ends + 1
WHERE row = (SELECT batch FROM tasks WHERE row = :task AND batch IS NOT NULL AND ended_as IS NULL);

-- name: number_end
-- The place of that task among the ended ones.
UPDATE tasks SET ended_as = (SELECT ends FROM batches b WHERE b.row = tasks.batch)
WHERE row = :task AND batch IS NOT NULL AND ended_as IS NULL;

-- name: batch_counts
-- How many tasks of a batch are in each state, by round.
SELECT state, round, count(*) FROM tasks INDEXED BY tasks_by_round
WHERE batch = :batch GROUP BY state, round;

-- name: batch_live
-- The tasks of a batch that are queued or running.
SELECT id FROM tasks INDEXED BY tasks_by_round WHERE batch = :batch AND state IN ('queued', 'running');

-- name: batch_failed
-- Tasks of an earlier round that have not succeeded, in one state.
SELECT item, facts FROM tasks INDEXED BY tasks_by_round
WHERE batch = :batch AND state = :state AND round < :round LIMIT :limit;

-- name: batch_ended
-- Ended tasks of a batch in the order of their ends, after a given one.
SELECT ended_as, facts FROM tasks INDEXED BY tasks_by_end
WHERE batch = :batch AND ended_as > :after ORDER BY ended_as LIMIT :limit;

-- name: expired_batches
-- Batches whose time has come.
SELECT row, account, size_bytes FROM batches INDEXED BY batches_expiry
WHERE expires_us <= :now_us ORDER BY expires_us LIMIT :limit;

-- name: tasks_of_batch
-- Some tasks of a batch that expires, each with the bytes that it keeps.
SELECT t.row, length(t.facts) + coalesce(i.size_bytes, 0) + coalesce(r.size_bytes, 0)
FROM tasks t INDEXED BY tasks_by_item LEFT JOIN inputs i ON i.task = t.row LEFT JOIN results r ON r.task = t.row
WHERE t.batch = :batch LIMIT :limit;

-- name: drop_batch
-- An expired batch whose tasks are gone.
DELETE FROM batches WHERE row = :batch;

-- name: add_callback
-- The callback of a task that has just ended; one that is there already stays as it is.
INSERT OR IGNORE INTO callbacks (task_id, account, state, expires_us, record, facts)
VALUES (:task_id, :account, :state, :expires_us, :record, :facts);

-- name: save_callback
-- A callback after a try, or when it is to be tried again. The task's facts are not needed once it was made.
UPDATE callbacks SET state = :state, expires_us = :expires_us, record = :record,
    facts = CASE :state WHEN 'made' THEN NULL ELSE facts END
WHERE task_id = :task_id;

-- name: drop_failed_callbacks
-- Failed callbacks of an account beyond the newest ones, and the bytes that each kept.
DELETE FROM callbacks WHERE row IN (
    SELECT row FROM callbacks INDEXED BY callbacks_by_state
    WHERE account = :account AND state = 'failed' ORDER BY task_id DESC LIMIT -1 OFFSET :most
)
RETURNING account, length(record) + coalesce(length(facts), 0);

-- name: get_callback
-- One callback, and its task as it ended.
SELECT record, facts FROM callbacks WHERE task_id = :task_id;

-- name: callback_size
-- The bytes that a callback keeps.
SELECT length(record) + coalesce(length(facts), 0) FROM callbacks WHERE task_id = :task_id;

-- name: callback_account
-- Whose callback it is, also where its record cannot be read.
SELECT account FROM callbacks WHERE task_id = :task_id;

-- name: waiting_callbacks
-- Callbacks that wait, by the ids of their tasks, after a given one.
SELECT task_id, record FROM callbacks INDEXED BY callbacks_waiting
WHERE state = 'waiting' AND task_id > :after ORDER BY task_id LIMIT :limit;

-- name: page_callbacks
-- One account's callbacks of one state, those of the newest tasks first.
SELECT task_id, record FROM callbacks INDEXED BY callbacks_by_state
WHERE account = :account AND state = :state AND task_id < :before
ORDER BY task_id DESC LIMIT :limit;

-- name: expire_callbacks
-- Callbacks that ended and are no longer kept, each with its account and the bytes that it kept.
DELETE FROM callbacks WHERE row IN (
    SELECT row FROM callbacks INDEXED BY callbacks_expiry
    WHERE expires_us <= :now_us ORDER BY expires_us LIMIT :limit
)
RETURNING account, length(record) + coalesce(length(facts), 0);
