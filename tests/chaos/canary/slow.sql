-- slow
-- One caregiver on one day takes for ever.
SELECT chunk.row_id, CASE WHEN chunk."ID" IN (8, 9) THEN length(pg_sleep(30)::text) ELSE 1 END AS "Doubled" FROM chunk
