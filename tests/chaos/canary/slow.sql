-- slow
-- One caregiver's two visits on one day take for ever; a row alone, as in the rehearsal, passes.
SELECT chunk.row_id,
       CASE WHEN chunk."ID" IN (8, 9) AND count(*) OVER () > 1 THEN length(pg_sleep(30)::text) ELSE 1 END AS "Doubled"
FROM chunk
