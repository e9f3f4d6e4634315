-- apply
-- Doubles the minutes and notes on the row which run did it: every application leaves its trace.
SELECT chunk.row_id,
       chunk."Minutes" * 2 AS "Doubled",
       chunk."applied" + 1 AS "applied",
       array_append(chunk."Runs", :run_id::bigint) AS "Runs"
FROM chunk
