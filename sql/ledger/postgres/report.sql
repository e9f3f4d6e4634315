-- report_clock
-- What time it is in the ledger's database.
SELECT clock_timestamp() AS now;

-- report_steps
-- The steps of a run in order, with the account of their chunks.
SELECT step.name, step.kind, step.target, step.started_at, step.finished_at, coalesce(chunk.waves, 0) AS waves, step.rounds,
       step.planned_rows, step.late_rows, step.drift_rows, step.held,
       extract(epoch FROM clock_timestamp() - step.held_since)::float AS held_seconds,
       extract(epoch FROM coalesce(step.finished_at, run.finished_at, clock_timestamp()) - step.started_at)::float AS seconds,
       coalesce(chunk.rows_marked, 0)::bigint AS rows_marked,
       coalesce(chunk.rows_updated, 0)::bigint AS rows_updated,
       coalesce(chunk.done, 0) AS done,
       coalesce(chunk.open, 0) AS open,
       coalesce(chunk.quarantined, 0) AS quarantined,
       coalesce(chunk.skipped, 0) AS skipped,
       coalesce(chunk.split, 0) AS split
FROM sluice.step
JOIN sluice.run USING (run_id)
LEFT JOIN (
    SELECT step_no, sum(rows_marked) AS rows_marked, sum(rows_updated) AS rows_updated,
           count(DISTINCT wave) AS waves,
           count(*) FILTER (WHERE state = 'done') AS done,
           count(*) FILTER (WHERE state IN ('planned', 'marked')) AS open,
           count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
           count(*) FILTER (WHERE state = 'skipped') AS skipped,
           count(*) FILTER (WHERE state = 'split') AS split
    FROM sluice.chunk WHERE run_id = :run_id GROUP BY step_no
) AS chunk USING (step_no)
WHERE step.run_id = :run_id
ORDER BY step.step_no;

-- report_outcomes
-- Attempts of a run by how they ended.
SELECT coalesce(outcome, 'open') AS outcome, count(*) AS n
FROM sluice.attempt WHERE run_id = :run_id GROUP BY 1 ORDER BY 1;

-- report_spans
-- Stretches of time in which chunks of rows were at work: a pause longer than a minute and a fiftieth of the whole ends one.
-- When a lost attempt ended is not known, so it only tells when it began.
WITH seen AS (
    SELECT attempt.started_at,
           CASE WHEN attempt.outcome IS NULL OR attempt.outcome = 'lost' THEN attempt.started_at
                ELSE greatest(attempt.ended_at, attempt.started_at) END AS ended_at
    FROM sluice.attempt JOIN sluice.step USING (run_id, step_no)
    WHERE attempt.run_id = :run_id AND step.kind NOT IN ('sql', 'check')
), ordered AS (
    SELECT started_at, ended_at,
           max(ended_at) OVER (ORDER BY started_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before,
           greatest(interval '1 minute', (max(ended_at) OVER () - min(started_at) OVER ()) / 50) AS pause
    FROM seen
), numbered AS (
    SELECT started_at, ended_at,
           count(*) FILTER (WHERE before IS NULL OR started_at - before > pause) OVER (ORDER BY started_at) AS span
    FROM ordered
)
SELECT min(started_at) AS started_at, max(ended_at) AS ended_at,
       extract(epoch FROM max(ended_at) - min(started_at))::float AS seconds
FROM numbered GROUP BY span ORDER BY span;

-- report_progress
-- Rows committed and attempts failed in each part of the working time, in which the pauses between spans do not count.
WITH happened AS (
    SELECT event.at, event.n AS rows, 0 AS setbacks
    FROM sluice.event JOIN sluice.step USING (run_id, step_no)
    WHERE event.run_id = :run_id AND event.chunk_no IS NOT NULL AND event.event IN ('done', 'partial')
      AND step.kind NOT IN ('sql', 'check')
    UNION ALL
    SELECT attempt.ended_at, 0, 1
    FROM sluice.attempt JOIN sluice.step USING (run_id, step_no)
    WHERE attempt.run_id = :run_id AND attempt.outcome IN ('transient', 'timeout', 'failed', 'fatal', 'lost')
      AND step.kind NOT IN ('sql', 'check')
), spanned AS (
    SELECT at, rows, setbacks, greatest(width_bucket(at, CAST(:starts AS timestamptz[])), 1) AS span FROM happened
), placed AS (
    SELECT rows, setbacks,
           (CAST(:offsets AS float[]))[span]
           + greatest(0, least(extract(epoch FROM at - (CAST(:starts AS timestamptz[]))[span]),
                               (CAST(:lengths AS float[]))[span])) AS seconds
    FROM spanned
)
SELECT least(floor(seconds / :width)::integer, :parts - 1) AS part, sum(rows)::bigint AS rows, sum(setbacks)::bigint AS setbacks
FROM placed GROUP BY 1 ORDER BY 1;

-- report_rates
-- Rows by part of the working time, each commit's rows spread evenly over the time since its attempt began.
WITH work AS (
    SELECT event.n AS rows, event.at, coalesce(attempt.started_at, event.at) AS started_at,
           greatest(width_bucket(event.at, CAST(:starts AS timestamptz[])), 1) AS span
    FROM sluice.event
    JOIN sluice.step USING (run_id, step_no)
    LEFT JOIN sluice.attempt ON attempt.attempt_id = event.attempt_id
    WHERE event.run_id = :run_id AND event.chunk_no IS NOT NULL AND event.event IN ('done', 'partial') AND event.n > 0
      AND step.kind NOT IN ('sql', 'check')
), placed AS (
    SELECT rows,
           (CAST(:offsets AS float[]))[span]
           + greatest(0, extract(epoch FROM started_at - (CAST(:starts AS timestamptz[]))[span]))::float AS lo,
           (CAST(:offsets AS float[]))[span]
           + greatest(0, least(extract(epoch FROM at - (CAST(:starts AS timestamptz[]))[span]),
                               (CAST(:lengths AS float[]))[span]))::float AS hi
    FROM work
)
SELECT least(part, :parts - 1) AS part,
       sum(CASE WHEN hi > lo
                THEN rows * greatest(0, least(hi, (part + 1) * :width) - greatest(lo, part * :width)) / (hi - lo)
                ELSE rows END)::float AS rows
FROM placed, generate_series(floor(least(lo, hi) / :width)::integer, floor(hi / :width)::integer) AS part
GROUP BY 1 ORDER BY 1;

-- report_chunk_seconds
-- Chunks of rows that are done, each with the time its attempts worked on it; the time of a lost attempt is not known.
SELECT step.name AS step, chunk.chunk_no, chunk.rows_updated, attempt.n AS attempts, attempt.seconds
FROM sluice.chunk
JOIN sluice.step USING (run_id, step_no)
JOIN (
    SELECT step_no, chunk_no, count(*) AS n,
           (sum(extract(epoch FROM ended_at - started_at)) FILTER (WHERE outcome <> 'lost'))::float AS seconds
    FROM sluice.attempt WHERE run_id = :run_id GROUP BY step_no, chunk_no
) AS attempt USING (step_no, chunk_no)
WHERE chunk.run_id = :run_id AND chunk.state = 'done' AND step.kind NOT IN ('sql', 'check') AND attempt.seconds IS NOT NULL;

-- report_durations
-- How long chunks took: half of them at most, 95 and 99 in a hundred at most, the longest.
SELECT count(*) AS n, max(seconds) AS longest,
       coalesce(percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY seconds), ARRAY[0, 0, 0]::float[]) AS within
FROM ({chunk_seconds}) AS chunk;

-- report_histogram
-- Chunks by how long they took, in bars of equal width; the last one is open.
SELECT least(floor(seconds / :width)::integer, :bars - 1) AS bar, count(*) AS n
FROM ({chunk_seconds}) AS chunk GROUP BY 1 ORDER BY 1;

-- report_slowest
-- The chunks that took longest.
SELECT step, chunk_no, rows_updated, attempts, seconds
FROM ({chunk_seconds}) AS chunk ORDER BY seconds DESC, step, chunk_no LIMIT :most;

-- report_errors
-- Errors of attempts by code, each with the text that came last.
SELECT code, count(*) AS n, count(DISTINCT (step_no, chunk_no)) AS chunks,
       min(ended_at) AS first_at, max(ended_at) AS last_at,
       (array_agg(left(error, 500) ORDER BY ended_at DESC, attempt_id))[1] AS text, count(*) OVER () AS total
FROM sluice.attempt
WHERE run_id = :run_id AND code IS NOT NULL
GROUP BY code ORDER BY n DESC, code LIMIT :most;

-- report_events
-- What happened to the run as a whole: the latest events, with how many there are; holds are told apart.
SELECT event.at, event.event, step.name AS step, event.n, event.detail, count(*) OVER () AS total
FROM sluice.event LEFT JOIN sluice.step USING (run_id, step_no)
WHERE event.run_id = :run_id AND event.chunk_no IS NULL AND event.event <> 'held'
ORDER BY event.event_id DESC LIMIT :most;

-- report_moves
-- Chunks that were split, set aside, given a new start or left undone, by step and reason.
SELECT min(event.at) AS at, max(event.at) AS until, event.event, step.name AS step, count(*) AS n,
       (array_agg(event.chunk_no ORDER BY event.event_id))[1:10] AS chunk_nos,
       CASE WHEN event.event <> 'split' THEN left(event.detail, 500) END AS detail,
       count(*) OVER () AS total
FROM sluice.event JOIN sluice.step USING (run_id, step_no)
WHERE event.run_id = :run_id AND event.chunk_no IS NOT NULL
  AND event.event IN ('split', 'quarantined', 'planned', 'skipped')
GROUP BY event.event, step.name, 7
ORDER BY n DESC, at LIMIT :most;

-- report_holds
-- How often and for how many seconds health checks held chunks back, by check, each with the reason that came last.
SELECT step.name AS step, split_part(event.detail, ':', 1) AS check_name, count(*) AS n, sum(event.n)::bigint AS seconds,
       (array_agg(left(event.detail, 500) ORDER BY event.event_id DESC))[1] AS reason
FROM sluice.event JOIN sluice.step USING (run_id, step_no)
WHERE event.run_id = :run_id AND event.event = 'held'
GROUP BY 1, 2 ORDER BY seconds DESC, step, check_name LIMIT :most;

-- show_keys
-- The first keys that a check found: quoted in the report for an operator's own session, never run by the engine.
SELECT jsonb_pretty(keys) AS keys FROM sluice.finding WHERE run_id = :run_id AND name = :name;
