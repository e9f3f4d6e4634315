-- lock_step
-- Locks a step for planning: one planner at a time.
SELECT wave, phase, rounds, finished_at FROM sluice.step WHERE run_id = :run_id AND step_no = :step_no FOR NO KEY UPDATE;

-- insert_chunks
-- Adds chunks: number, bounds as arrays of text (lo, hi], NULL for an open end.
INSERT INTO sluice.chunk (run_id, step_no, chunk_no, generation, wave, parent_no, state, lo, hi, is_null, groups, est_rows)
SELECT :run_id, :step_no, new.chunk_no, run.generation, :wave, CAST(:parent_no AS integer), CAST(:state AS sluice.chunk_state),
       new.lo, new.hi, new.is_null, new.groups, new.est_rows
FROM sluice.run,
     jsonb_to_recordset(CAST(:chunks AS jsonb))
         AS new (chunk_no integer, lo jsonb, hi jsonb, is_null boolean, groups bigint, est_rows bigint)
WHERE run.run_id = :run_id;

-- last_chunk_no
-- The highest chunk number of a step, 0 where it has none.
SELECT coalesce(max(chunk_no), 0) AS chunk_no FROM sluice.chunk WHERE run_id = :run_id AND step_no = :step_no;

-- planned
-- Notes on the step what a wave planned.
UPDATE sluice.step
SET wave = :wave,
    phase = :phase,
    planned_rows = planned_rows + :rows,
    late_rows = late_rows + CASE WHEN :wave > 0 THEN :rows ELSE 0 END,
    started_at = coalesce(started_at, clock_timestamp())
WHERE run_id = :run_id AND step_no = :step_no;

-- next_round
-- Counts a round of the step; gives its number and, where chunks had been held back, why and for how long.
UPDATE sluice.step AS now
SET rounds = now.rounds + 1, held = NULL, held_since = NULL
FROM sluice.step AS before
WHERE now.run_id = :run_id AND now.step_no = :step_no AND before.run_id = now.run_id AND before.step_no = now.step_no
RETURNING now.rounds, before.held, extract(epoch FROM clock_timestamp() - before.held_since)::float AS held_seconds;

-- set_phase
-- Goes from marking to working.
UPDATE sluice.step SET phase = :phase WHERE run_id = :run_id AND step_no = :step_no;

-- set_held
-- Notes why chunks are held back; gives the seconds since they have been.
UPDATE sluice.step SET held = :reason, held_since = coalesce(held_since, clock_timestamp())
WHERE run_id = :run_id AND step_no = :step_no
RETURNING extract(epoch FROM clock_timestamp() - held_since)::float AS seconds;

-- worst_streak
-- The least number of setbacks among the open chunks: above zero where every one of them has failed since its last success.
SELECT coalesce(min(failures + timeouts + transients), 0) AS setbacks
FROM sluice.chunk WHERE run_id = :run_id AND step_no = :step_no AND state IN ('planned', 'marked');

-- read_step
-- A step by its name.
SELECT run_id, step_no, name, kind, target, flag, wave, phase, rounds, planned_rows, late_rows, drift_rows, held,
       started_at, finished_at
FROM sluice.step WHERE run_id = :run_id AND name = :name;

-- finish_step
-- Ends a step; drift is what was left undone on purpose.
UPDATE sluice.step SET finished_at = clock_timestamp(), drift_rows = :drift_rows, held = NULL, held_since = NULL
WHERE run_id = :run_id AND step_no = :step_no;

-- open_chunks
-- Chunks that still want work, in order, at most a manifest full; in the marking phase those not marked yet.
SELECT chunk_no AS chunk, est_rows AS rows
FROM sluice.chunk
WHERE run_id = :run_id AND step_no = :step_no AND state IN ('planned', 'marked')
  AND (state = 'planned' OR NOT :marking)
ORDER BY chunk_no
LIMIT :most;

-- count_obstacles
-- What keeps the run from going on after this step: chunks in quarantine and checks that failed.
SELECT (SELECT count(*) FROM sluice.chunk
        WHERE run_id = :run_id AND step_no = :step_no AND state = 'quarantined')
     + (SELECT count(*) FROM sluice.finding
        WHERE run_id = :run_id AND step_no = :step_no AND severity = 'error' AND row_count > 0) AS n;

-- exhausted_chunks
-- Locks the open chunks that failed as often as they may, or in a way that the next attempt would repeat; one that is
-- being worked is left alone.
SELECT chunk_no, last_code, last_error, fatal
FROM sluice.chunk
WHERE run_id = :run_id AND step_no = :step_no AND state IN ('planned', 'marked')
  AND (fatal OR failures >= :max_failures OR transients >= :max_transient)
ORDER BY chunk_no
FOR NO KEY UPDATE SKIP LOCKED;

-- slow_chunks
-- Locks the open chunks that ran into the time limit twice; one that is being worked is left alone.
SELECT chunk_no FROM sluice.chunk
WHERE run_id = :run_id AND step_no = :step_no AND state IN ('planned', 'marked') AND timeouts >= 2
ORDER BY chunk_no
FOR NO KEY UPDATE SKIP LOCKED;

-- lock_chunk
-- Locks the run's row (shared: holds off reset and the run's end), then the chunk's; reads both as they are now. The
-- chunk's lock lets other attempts be written down, which refer to it.
WITH run AS MATERIALIZED (
    SELECT run_id, generation, state::text AS run_state, run_ts FROM sluice.run WHERE run_id = :run_id FOR SHARE
)
SELECT run.generation, run.run_state, run.run_ts, control.desired, step.phase,
       chunk.state::text AS state, chunk.lo, chunk.hi, chunk.is_null, chunk.wave, chunk.rounds, chunk.est_rows,
       chunk.rows_marked, chunk.rows_updated
FROM run
JOIN sluice.control ON control.run_id = run.run_id
JOIN sluice.step ON step.run_id = run.run_id AND step.step_no = :step_no
JOIN sluice.chunk ON chunk.run_id = run.run_id AND chunk.step_no = :step_no AND chunk.chunk_no = :chunk_no
FOR NO KEY UPDATE OF chunk;

-- chunk_marked
-- Notes that the chunk's rows carry the flag.
WITH marked AS (
    UPDATE sluice.chunk
    SET state = 'marked', rows_marked = rows_marked + :n, started_at = coalesce(started_at, clock_timestamp())
    WHERE run_id = :run_id AND step_no = :step_no AND chunk_no = :chunk_no
    RETURNING generation
)
INSERT INTO sluice.event (run_id, step_no, chunk_no, generation, attempt_id, event, n)
SELECT :run_id, :step_no, :chunk_no, generation, CAST(:attempt_id AS uuid), 'marked', :n FROM marked;

-- chunk_applied
-- Notes n applied rows; done where nothing is left, else back to planned for another round.
WITH applied AS (
    UPDATE sluice.chunk
    SET state = CAST(CASE WHEN :rows_left = 0 THEN 'done' ELSE 'planned' END AS sluice.chunk_state),
        rows_updated = rows_updated + :n,
        rounds = rounds + 1,
        failures = 0, transients = 0, timeouts = 0, fatal = false,
        started_at = coalesce(started_at, clock_timestamp()),
        done_at = CASE WHEN :rows_left = 0 THEN clock_timestamp() END
    WHERE run_id = :run_id AND step_no = :step_no AND chunk_no = :chunk_no
    RETURNING generation
), ended AS (
    UPDATE sluice.attempt SET ended_at = clock_timestamp(), outcome = 'done'
    WHERE attempt_id = CAST(:attempt_id AS uuid) AND :rows_left = 0
)
INSERT INTO sluice.event (run_id, step_no, chunk_no, generation, attempt_id, event, n)
SELECT :run_id, :step_no, :chunk_no, generation, CAST(:attempt_id AS uuid), CASE WHEN :rows_left = 0 THEN 'done' ELSE 'partial' END, :n
FROM applied;

-- set_chunk_state
-- Moves a chunk by hand or by the planner, with the reason.
WITH moved AS (
    UPDATE sluice.chunk
    SET state = CAST(:state AS sluice.chunk_state), last_error = coalesce(:reason, last_error),
        failures = 0, transients = 0, timeouts = 0, fatal = false
    WHERE run_id = :run_id AND step_no = :step_no AND chunk_no = :chunk_no
    RETURNING generation
)
INSERT INTO sluice.event (run_id, step_no, chunk_no, generation, event, detail)
SELECT :run_id, :step_no, :chunk_no, generation, :state, :reason FROM moved;

-- take_back_planned
-- Starts every chunk that is not finished anew under the run's new generation.
UPDATE sluice.chunk
SET state = 'planned', generation = generation + 1, failures = 0, transients = 0, timeouts = 0, fatal = false, rounds = 0
WHERE run_id = :run_id AND state IN ('planned', 'marked', 'quarantined');

-- raise_generation
-- Makes every attempt of before the reset stale.
UPDATE sluice.run SET generation = generation + 1 WHERE run_id = :run_id RETURNING generation;

-- skipped_chunks
-- Bounds of the chunks that an operator decided to leave undone.
SELECT lo, hi, is_null FROM sluice.chunk WHERE run_id = :run_id AND step_no = :step_no AND state = 'skipped';

-- has_chunk
-- Whether a step has a chunk of that number.
SELECT EXISTS (SELECT FROM sluice.chunk
               WHERE run_id = :run_id AND step_no = :step_no AND chunk_no = :chunk_no) AS there;
