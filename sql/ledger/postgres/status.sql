-- recent_runs
-- The newest runs, of one job or of all.
SELECT * FROM sluice.run_status
WHERE run_id IN (SELECT run_id FROM sluice.run WHERE CAST(:job AS text) IS NULL OR job = :job
                 ORDER BY run_id DESC LIMIT :most)
ORDER BY run_id DESC;

-- run_status
-- How far a run is.
SELECT * FROM sluice.run_status WHERE run_id = :run_id;

-- step_status
-- How far each step of a run is.
SELECT * FROM sluice.step_status WHERE run_id = :run_id ORDER BY step_no;

-- recent_rows
-- Rows that update steps applied within the last minute of work, or in all where the run has ended, and the seconds it took.
WITH span AS (
    SELECT min(step.started_at) AS start, run.state <> 'running' AS ended,
           CASE WHEN bool_and(step.finished_at IS NOT NULL) THEN max(step.finished_at)
                ELSE coalesce(run.finished_at, clock_timestamp()) END AS until
    FROM sluice.run JOIN sluice.step USING (run_id)
    WHERE run.run_id = :run_id AND step.kind = 'update' AND step.started_at IS NOT NULL
    GROUP BY run.run_id
), lately AS (
    SELECT CASE WHEN ended THEN start ELSE greatest(start, until - interval '1 minute') END AS since, until FROM span
)
SELECT (SELECT coalesce(sum(event.n), 0)::bigint
        FROM sluice.event JOIN sluice.step USING (run_id, step_no)
        WHERE event.run_id = :run_id AND step.kind = 'update' AND event.event IN ('done', 'partial')
          AND event.at >= lately.since) AS rows,
       extract(epoch FROM until - since)::float AS seconds
FROM lately;

-- list_chunks
-- Chunks of a run in order, of one step or state where one is given; chunks that were split are shown only when asked for.
SELECT * FROM sluice.chunk_status
WHERE run_id = :run_id
  AND (CAST(:step AS text) IS NULL OR step = :step)
  AND CASE WHEN CAST(:state AS text) IS NULL THEN state <> 'split'
           WHEN :state = 'open' THEN state IN ('planned', 'marked')
           ELSE state = :state END
ORDER BY step_no, chunk_no
LIMIT :most;

-- list_stuck
-- Chunks of a run that do not get on, and why.
SELECT * FROM sluice.stuck_chunks WHERE run_id = :run_id ORDER BY step_no, chunk_no LIMIT :most;

-- taken_keys
-- Keys of a job's runs that start like this.
SELECT run_key FROM sluice.run WHERE job = :job AND starts_with(run_key, :start);

-- chunk_and_parts
-- A chunk, and the parts that it was split into.
SELECT * FROM sluice.chunk_status
WHERE run_id = :run_id AND step = :step AND (chunk_no = :chunk_no OR parent_no = :chunk_no)
ORDER BY chunk_no;
