-- unfinished_work
-- Why a run cannot have succeeded: steps not ended, chunks in quarantine or skipped, checks that failed.
SELECT (SELECT count(*) FROM sluice.step WHERE run_id = :run_id AND finished_at IS NULL) AS steps,
       (SELECT count(*) FROM sluice.chunk WHERE run_id = :run_id AND state = 'quarantined') AS quarantined,
       (SELECT count(*) FROM sluice.chunk WHERE run_id = :run_id AND state = 'skipped') AS skipped,
       (SELECT count(*) FROM sluice.finding
        WHERE run_id = :run_id AND severity = 'error' AND row_count > 0) AS failed_checks,
       (SELECT coalesce(sum(drift_rows), 0) FROM sluice.step WHERE run_id = :run_id) AS drift_rows;

-- clear_flags
-- Frees every row of the target that is still claimed.
UPDATE {target} SET {flag} = NULL WHERE {flag} = 1;

-- broken_invariants
-- Invariants of the ledger that do not hold, each with the number of places.
WITH leaf AS (
    SELECT step_no, wave, lo, hi FROM sluice.chunk
    WHERE run_id = :run_id AND NOT is_null AND state <> 'split'
      AND EXISTS (SELECT FROM sluice.step WHERE step.run_id = :run_id AND step.step_no = chunk.step_no AND step.kind = 'update')
), chain AS (
    SELECT step_no, wave,
           count(*) FILTER (WHERE lo IS NULL) AS first, count(*) FILTER (WHERE hi IS NULL) AS last,
           count(*) FILTER (WHERE lo IS NOT NULL AND NOT EXISTS (
               SELECT FROM leaf AS before
               WHERE before.step_no = leaf.step_no AND before.wave = leaf.wave AND before.hi = leaf.lo)) AS gaps,
           count(*) - count(DISTINCT coalesce(lo, 'null'::jsonb)) AS doubles
    FROM leaf GROUP BY step_no, wave
), event AS (
    SELECT step_no, chunk_no, generation,
           sum(n) FILTER (WHERE event IN ('done', 'partial')) AS updated,
           sum(n) FILTER (WHERE event = 'marked') AS marked,
           count(*) FILTER (WHERE event = 'done') AS done
    FROM sluice.event WHERE run_id = :run_id AND chunk_no IS NOT NULL
    GROUP BY step_no, chunk_no, generation
), total AS (
    SELECT step_no, chunk_no, sum(updated) AS updated, sum(marked) AS marked FROM event GROUP BY step_no, chunk_no
), found (name, n) AS (
    SELECT 'ranges partition the key space',
           coalesce(sum(gaps + doubles + abs(first - 1) + abs(last - 1)), 0) FROM chain
    UNION ALL
    SELECT 'the events of a chunk add up to its rows', count(*)
    FROM sluice.chunk LEFT JOIN total USING (step_no, chunk_no)
    WHERE chunk.run_id = :run_id
      AND (chunk.rows_updated <> coalesce(total.updated, 0) OR chunk.rows_marked <> coalesce(total.marked, 0))
    UNION ALL
    SELECT 'a chunk is done once a generation', count(*) FROM event WHERE done > 1
    UNION ALL
    SELECT 'a split chunk has its children', count(*)
    FROM sluice.chunk AS parent
    WHERE parent.run_id = :run_id AND parent.state = 'split'
      AND (SELECT count(*) FROM sluice.chunk AS child
           WHERE child.run_id = parent.run_id AND child.step_no = parent.step_no
             AND child.parent_no = parent.chunk_no) <> 2
)
SELECT name, n FROM found WHERE n <> 0;

-- run_totals
-- The account of a run's chunks, attempts and rows.
SELECT coalesce(sum(chunk.rows_marked), 0)::bigint AS rows_marked,
       coalesce(sum(chunk.rows_updated) FILTER (WHERE step.kind = 'update'), 0)::bigint AS rows_updated,
       count(*) FILTER (WHERE chunk.state <> 'split') AS chunks,
       count(*) FILTER (WHERE chunk.state IN ('done', 'skipped')) AS chunks_done,
       count(*) FILTER (WHERE chunk.state = 'quarantined') AS quarantined,
       (SELECT count(*) FROM sluice.attempt WHERE attempt.run_id = :run_id) AS attempts,
       (SELECT coalesce(sum(planned_rows), 0)::bigint FROM sluice.step WHERE step.run_id = :run_id) AS planned_rows,
       (SELECT coalesce(sum(late_rows), 0)::bigint FROM sluice.step WHERE step.run_id = :run_id) AS late_rows,
       (SELECT coalesce(sum(drift_rows), 0)::bigint FROM sluice.step WHERE step.run_id = :run_id) AS drift_rows,
       (SELECT coalesce(sum(n), 0)::bigint FROM sluice.event
        WHERE event.run_id = :run_id AND event = 'flags_cleared') AS flags_cleared
FROM sluice.chunk JOIN sluice.step USING (run_id, step_no)
WHERE chunk.run_id = :run_id;
