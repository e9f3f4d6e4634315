-- totals
-- one row for each row of chunk: its address first, then each column to set, named as in the target
SELECT
    chunk.row_id,
    round(chunk.pieces * price.price * CASE WHEN chunk.pieces >= 10 THEN 1 - :discount_percent / 100.0 ELSE 1 END, 2)
        AS total
FROM chunk
LEFT JOIN public.__pack___prices AS price ON price.item = chunk.item
