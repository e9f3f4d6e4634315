-- duplicate
-- Two visits of one caregiver are one too many for the column.
SELECT chunk.row_id, chunk."SSN" AS "Copy" FROM chunk
