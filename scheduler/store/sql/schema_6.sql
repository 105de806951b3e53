-- Schema 6: the bytes that an account keeps include the rows of its callbacks.

INSERT INTO kept (account, size_bytes)
SELECT account, sum(length(record) + coalesce(length(facts), 0)) FROM callbacks WHERE true GROUP BY account
ON CONFLICT (account) DO UPDATE SET size_bytes = size_bytes + excluded.size_bytes;
