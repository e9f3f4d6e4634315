-- refused
-- Every row fails.
SELECT chunk.row_id, ('x' || chunk."SSN")::integer AS "Doubled" FROM chunk
