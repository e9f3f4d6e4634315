-- describe_target
-- Columns of a table, in order: type, whether it may be NULL, whether it is generated, whether we may read and write it.
SELECT class.relkind::text AS relkind, attribute.attname AS name,
       format_type(attribute.atttypid, attribute.atttypmod) AS type,
       format_type(attribute.atttypid, NULL) AS base_type,
       attribute.attnotnull AS not_null,
       attribute.attgenerated <> '' OR attribute.attidentity = 'a' AS generated,
       has_column_privilege(class.oid, attribute.attnum, 'SELECT') AS readable,
       has_column_privilege(class.oid, attribute.attnum, 'UPDATE') AS writable
FROM pg_class AS class
JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
WHERE namespace.nspname = :schema AND class.relname = :table
ORDER BY attribute.attnum;

-- key_index
-- A valid index of the table that starts with the key's columns in their order.
SELECT index_class.relname AS name
FROM pg_class AS class
JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
JOIN pg_index AS index ON index.indrelid = class.oid AND index.indisvalid AND index.indpred IS NULL
JOIN pg_class AS index_class ON index_class.oid = index.indexrelid
WHERE namespace.nspname = :schema AND class.relname = :table
  AND (SELECT array_agg(attribute.attname::text ORDER BY part.position)
       FROM unnest(index.indkey::int2[]) WITH ORDINALITY AS part (number, position)
       JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid AND attribute.attnum = part.number
       WHERE part.position <= cardinality(CAST(:key AS text[]))) = CAST(:key AS text[])
LIMIT 1;

-- histogram
-- Rows still to do by key group, in key order.
SELECT {key_texts}, {key_is_null} AS is_null, count(*) AS n
FROM {target} AS t
WHERE {todo}{and_not_skipped}
GROUP BY {keys}
ORDER BY {keys};

-- median_group
-- The key group in which half of the chunk's rows lie below or at it; none where all rows are one group.
SELECT {key_texts}, below, total
FROM (SELECT {keys}, sum(count(*)) OVER (ORDER BY {keys}) AS below, sum(count(*)) OVER () AS total
      FROM {target} AS t
      WHERE {range} AND {todo}
      GROUP BY {keys}) AS t
WHERE below < total
ORDER BY abs(below - total / 2.0)
LIMIT 1;

-- mark
-- Claims the chunk's rows for the run.
UPDATE {target} AS t
SET {flag} = 1
WHERE {range} AND {flag} IS DISTINCT FROM 1 AND {todo};

-- lock_rows
-- The only place where range, flag and stamp are tested: locks the rows and gives their addresses.
SELECT count(*) AS n, CAST(array_agg(locked.address) AS text) AS addresses
FROM (SELECT {address} AS address FROM {target} AS t WHERE {range} AND {todo}{and_claimed} FOR NO KEY UPDATE) AS locked;

-- lock_one_row
-- Any one row that is still to do and that nobody holds.
SELECT count(*) AS n, CAST(array_agg(locked.address) AS text) AS addresses
FROM (SELECT {address} AS address FROM {target} AS t WHERE {todo} LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS locked;

-- apply
-- Sets the columns of the job's SELECT, frees the rows and stamps them; counts what the SELECT gave, what was updated and
-- what holds the run's stamp and no flag afterwards.
WITH chunk AS MATERIALIZED (
    SELECT t.*, {address} AS row_id
    FROM unnest(CAST(:addresses AS {address_type}[])) AS {place}
    JOIN {target} AS t ON {at_place}
), new AS MATERIALIZED (
{select}
), applied AS (
    UPDATE {target} AS t SET {assignments} FROM new WHERE {at_new}
    RETURNING {settled} AS settled
)
SELECT (SELECT count(*) FROM new) AS given, count(*) AS updated, count(*) FILTER (WHERE settled) AS settled FROM applied;

-- apply_whole
-- The job's SELECT over every row that is still to do, in one statement.
WITH chunk AS (
    SELECT t.*, {address} AS row_id FROM {target} AS t WHERE {range} AND {todo}
)
UPDATE {target} AS t SET {assignments}
FROM (
{select}
) AS new
WHERE {at_new};

-- count_todo
-- Rows of a range that are still to do.
SELECT count(*) AS n FROM {target} AS t WHERE {range} AND {todo};

-- select_columns
-- The shape of the job's SELECT, without a row.
WITH chunk AS (SELECT t.*, {address} AS row_id FROM {target} AS t)
SELECT * FROM (
{select}
) AS new LIMIT 0;

-- analyze_stamp
-- Tells the planner how many rows carry the run's stamp: from before the run it expects none.
ANALYZE {target} ({stamp});

-- disagreeing_rows
-- Rows stamped by this run whose stored values differ from the job's SELECT.
WITH chunk AS (
    SELECT t.*, {address} AS row_id FROM {target} AS t WHERE {stamped}
)
SELECT {keys}
FROM {target} AS t
JOIN (
{select}
) AS new ON {at_new}
WHERE ({stored}) IS DISTINCT FROM ({defined});

-- table_rows
-- How many rows the statistics say that a table has.
SELECT greatest(class.reltuples, 0)::bigint AS n
FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
WHERE namespace.nspname = :schema AND class.relname = :table;
