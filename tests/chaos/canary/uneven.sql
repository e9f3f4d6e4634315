-- uneven
-- A join that finds more than one partner; a row alone, as in the rehearsal, passes.
SELECT chunk.row_id, other."Minutes" AS "Doubled"
FROM (SELECT *, count(*) OVER () AS rows FROM chunk) AS chunk
JOIN canary.visits AS other ON other."ID" = chunk."ID" OR (chunk.rows > 1 AND other."SSN" = chunk."SSN")
