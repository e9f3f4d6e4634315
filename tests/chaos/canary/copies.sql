-- copies
-- Cannot fail.
SELECT chunk.row_id, chunk."Minutes" * 2 AS "Doubled" FROM chunk
