-- uneven
-- A join that finds more than one partner.
SELECT chunk.row_id, other."Minutes" AS "Doubled"
FROM chunk JOIN canary.visits AS other ON other."ID" = 1 OR (chunk."ID" > 1 AND other."SSN" = chunk."SSN")
