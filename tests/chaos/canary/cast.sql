-- cast
-- A row alone, as in the rehearsal, passes.
SELECT chunk.row_id, CASE WHEN count(*) OVER () = 1 THEN 1 ELSE chunk."SSN"::integer END AS "Doubled" FROM chunk
