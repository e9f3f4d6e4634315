-- What an operator looks at. No view shows a key or a chunk's bounds: they stay in sluice.chunk.

CREATE VIEW sluice.step_status AS
SELECT step.run_id, step.step_no, step.name AS step, step.kind,
       CASE WHEN step.finished_at IS NOT NULL THEN 'done'
            WHEN run.state <> 'running' THEN 'unfinished'
            WHEN step.wave < 0 THEN 'waiting'
            WHEN step.held IS NOT NULL THEN 'held'
            WHEN step.phase = 'mark' THEN 'marking'
            ELSE 'working' END AS state,
       step.target, step.wave AS waves, step.rounds,
       chunk.chunks, chunk.chunks_done, chunk.chunks_quarantined, chunk.chunks_skipped,
       chunk.rows_total, step.late_rows AS rows_late, chunk.rows_marked, chunk.rows_done, step.drift_rows AS rows_drift,
       CASE WHEN step.kind = 'update' AND chunk.rows_total > 0 AND step.wave >= 0
                 THEN trunc(100.0 * chunk.rows_done / chunk.rows_total, 1)
            WHEN step.finished_at IS NOT NULL THEN 100.0
            WHEN step.kind <> 'update' AND chunk.chunks > 0
                 THEN trunc(100.0 * chunk.chunks_done / chunk.chunks, 1)
            ELSE 0.0 END AS progress,
       CASE WHEN step.finished_at IS NULL THEN step.held END AS held,
       CASE WHEN step.finished_at IS NULL THEN step.held_since END AS held_since,
       step.started_at, step.finished_at
FROM sluice.step
JOIN sluice.run USING (run_id)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE chunk.state <> 'split') AS chunks,
           count(*) FILTER (WHERE chunk.state IN ('done', 'skipped')) AS chunks_done,
           count(*) FILTER (WHERE chunk.state = 'quarantined') AS chunks_quarantined,
           count(*) FILTER (WHERE chunk.state = 'skipped') AS chunks_skipped,
           -- A chunk that has ended weighs what it did; an open one what was planned, or more where it already did more.
           coalesce(sum(CASE WHEN chunk.state IN ('done', 'split', 'skipped') THEN chunk.rows_updated
                             ELSE greatest(chunk.est_rows, chunk.rows_updated) END), 0)::bigint AS rows_total,
           coalesce(sum(chunk.rows_marked), 0)::bigint AS rows_marked,
           coalesce(sum(chunk.rows_updated), 0)::bigint AS rows_done
    FROM sluice.chunk
    WHERE chunk.run_id = step.run_id AND chunk.step_no = step.step_no
) AS chunk;

COMMENT ON VIEW sluice.step_status IS 'One row per step of a run: how far it is.';
COMMENT ON COLUMN sluice.step_status.run_id IS 'Number of the run.';
COMMENT ON COLUMN sluice.step_status.step_no IS 'Place of the step in its job, from 1.';
COMMENT ON COLUMN sluice.step_status.step IS 'Name of the step in the job file.';
COMMENT ON COLUMN sluice.step_status.kind IS 'What the step does: sql, update or check.';
COMMENT ON COLUMN sluice.step_status.state IS 'waiting: not planned yet. marking: rows are being claimed, none is applied yet. working. held: a health check holds its chunks back. done. unfinished: its run ended before.';
COMMENT ON COLUMN sluice.step_status.target IS 'Table that an update step changes.';
COMMENT ON COLUMN sluice.step_status.waves IS 'Plans after the first one, of which the last finds nothing left; -1 before the first.';
COMMENT ON COLUMN sluice.step_status.rounds IS 'Manifests that were handed out for the step.';
COMMENT ON COLUMN sluice.step_status.chunks IS 'Chunks of the step, without those that were split, whose parts are counted instead.';
COMMENT ON COLUMN sluice.step_status.chunks_done IS 'Chunks that need no more work: done or skipped.';
COMMENT ON COLUMN sluice.step_status.chunks_quarantined IS 'Chunks set aside because they failed too often; the run fails unless they are retried or skipped.';
COMMENT ON COLUMN sluice.step_status.chunks_skipped IS 'Chunks that an operator left undone.';
COMMENT ON COLUMN sluice.step_status.rows_total IS 'Rows to apply as far as is known: what ended chunks applied and what open chunks were planned with. Late rows raise it. For a sql step, rows that its last statement touched.';
COMMENT ON COLUMN sluice.step_status.rows_late IS 'Rows that were planned after the first plan, because they came or moved during the run.';
COMMENT ON COLUMN sluice.step_status.rows_marked IS 'Times that a row was claimed with the flag.';
COMMENT ON COLUMN sluice.step_status.rows_done IS 'Rows applied and committed. For a sql step, rows that its last statement touched.';
COMMENT ON COLUMN sluice.step_status.rows_drift IS 'Rows that the finished step left undone on purpose: late rows it only reports, and skipped chunks.';
COMMENT ON COLUMN sluice.step_status.progress IS 'Percent, 0 to 100, rounded down: rows_done of rows_total for an update step, else chunks_done of chunks. Falls only where late rows raise rows_total.';
COMMENT ON COLUMN sluice.step_status.held IS 'Why a health check holds the chunks back; empty where none does.';
COMMENT ON COLUMN sluice.step_status.held_since IS 'Since when the chunks are held back.';
COMMENT ON COLUMN sluice.step_status.started_at IS 'When the step was first planned.';
COMMENT ON COLUMN sluice.step_status.finished_at IS 'When a plan found nothing left to do.';

CREATE VIEW sluice.run_status AS
SELECT run.run_id, run.job, run.run_key,
       CASE WHEN run.state <> 'running' THEN run.state::text
            WHEN control.desired = 'pause' THEN 'paused'
            WHEN control.desired = 'cancel' THEN 'cancelling'
            WHEN step.held IS NOT NULL THEN 'held'
            ELSE 'running' END AS state,
       CASE WHEN run.state <> 'running' THEN NULL
            WHEN control.desired <> 'run' THEN control.reason
            ELSE step.held END AS reason,
       run.generation, run.run_ts, run.params,
       step.steps, step.steps_done, step.step,
       step.chunks, step.chunks_done, step.chunks_quarantined, step.chunks_skipped,
       step.rows_total, step.rows_late, step.rows_marked, step.rows_done, step.rows_drift, step.progress,
       attempt.attempts, attempt.attempts_failed, attempt.attempts_open,
       run.opened_at, run.finished_at,
       greatest(event.last_at, attempt.last_at, run.opened_at) AS last_sign_at,
       run.error_code, run.error, run.report
FROM sluice.run
JOIN sluice.control USING (run_id)
CROSS JOIN LATERAL (
    SELECT count(*) AS steps,
           count(*) FILTER (WHERE finished_at IS NOT NULL) AS steps_done,
           (array_agg(step ORDER BY step_no) FILTER (WHERE finished_at IS NULL))[1] AS step,
           (array_agg(held ORDER BY step_no) FILTER (WHERE finished_at IS NULL))[1] AS held,
           coalesce(sum(chunks), 0)::bigint AS chunks,
           coalesce(sum(chunks_done), 0)::bigint AS chunks_done,
           coalesce(sum(chunks_quarantined), 0)::bigint AS chunks_quarantined,
           coalesce(sum(chunks_skipped), 0)::bigint AS chunks_skipped,
           coalesce(sum(rows_total) FILTER (WHERE kind = 'update'), 0)::bigint AS rows_total,
           coalesce(sum(rows_late), 0)::bigint AS rows_late,
           coalesce(sum(rows_marked), 0)::bigint AS rows_marked,
           coalesce(sum(rows_done) FILTER (WHERE kind = 'update'), 0)::bigint AS rows_done,
           coalesce(sum(rows_drift), 0)::bigint AS rows_drift,
           trunc(coalesce(avg(progress) FILTER (WHERE kind = 'update'), avg(progress), 0), 1) AS progress
    FROM sluice.step_status
    WHERE step_status.run_id = run.run_id
) AS step
CROSS JOIN LATERAL (
    SELECT count(*) AS attempts,
           count(*) FILTER (WHERE outcome IN ('transient', 'timeout', 'failed', 'fatal', 'lost')) AS attempts_failed,
           count(*) FILTER (WHERE ended_at IS NULL) AS attempts_open,
           greatest(max(started_at), max(ended_at)) AS last_at
    FROM sluice.attempt
    WHERE attempt.run_id = run.run_id
) AS attempt
LEFT JOIN LATERAL (
    SELECT at AS last_at FROM sluice.event WHERE event.run_id = run.run_id ORDER BY event_id DESC LIMIT 1
) AS event ON true;

COMMENT ON VIEW sluice.run_status IS 'One row per run: where it is and what became of it. Ask with WHERE run_id = …: it counts the chunks of the runs it shows.';
COMMENT ON COLUMN sluice.run_status.run_id IS 'Number of the run.';
COMMENT ON COLUMN sluice.run_status.job IS 'Job as pack/job.';
COMMENT ON COLUMN sluice.run_status.run_key IS 'Name of the run within its job, given by whoever started it.';
COMMENT ON COLUMN sluice.run_status.state IS 'running. held: a health check holds its chunks back. paused: an operator stopped it. cancelling: an operator ended it, the next round makes it cancelled. succeeded. succeeded_with_drift: rows were left undone on purpose. failed. cancelled.';
COMMENT ON COLUMN sluice.run_status.reason IS 'Why the run is held, paused or being cancelled.';
COMMENT ON COLUMN sluice.run_status.generation IS 'How often the run was reset, plus one.';
COMMENT ON COLUMN sluice.run_status.run_ts IS 'The run''s time, frozen when it was opened: what :run_ts gives to its SQL and what stamps its rows.';
COMMENT ON COLUMN sluice.run_status.params IS 'Parameters of the run, by name.';
COMMENT ON COLUMN sluice.run_status.steps IS 'Steps of the job.';
COMMENT ON COLUMN sluice.run_status.steps_done IS 'Steps that are finished.';
COMMENT ON COLUMN sluice.run_status.step IS 'The step that is under way or comes next; empty after the last.';
COMMENT ON COLUMN sluice.run_status.chunks IS 'Chunks planned so far in all steps, without those that were split, whose parts are counted instead.';
COMMENT ON COLUMN sluice.run_status.chunks_done IS 'Chunks that need no more work: done or skipped.';
COMMENT ON COLUMN sluice.run_status.chunks_quarantined IS 'Chunks set aside because they failed too often; the run fails unless they are retried or skipped.';
COMMENT ON COLUMN sluice.run_status.chunks_skipped IS 'Chunks that an operator left undone.';
COMMENT ON COLUMN sluice.run_status.rows_total IS 'Rows to apply in the update steps planned so far: what ended chunks applied and what open chunks were planned with. Late rows raise it.';
COMMENT ON COLUMN sluice.run_status.rows_late IS 'Rows that were planned after a step''s first plan, because they came or moved during the run.';
COMMENT ON COLUMN sluice.run_status.rows_marked IS 'Times that a row was claimed with the flag.';
COMMENT ON COLUMN sluice.run_status.rows_done IS 'Rows applied and committed in the update steps.';
COMMENT ON COLUMN sluice.run_status.rows_drift IS 'Rows that finished steps left undone on purpose: late rows they only report, and skipped chunks.';
COMMENT ON COLUMN sluice.run_status.progress IS 'Percent, 0 to 100, rounded down: the mean over the update steps, or over all steps where there is no update step. Falls only where late rows raise rows_total.';
COMMENT ON COLUMN sluice.run_status.attempts IS 'Times that a worker began a chunk.';
COMMENT ON COLUMN sluice.run_status.attempts_failed IS 'Attempts that ended in an error, a timeout or with the loss of their worker.';
COMMENT ON COLUMN sluice.run_status.attempts_open IS 'Attempts that have not said how they ended: at work, or lost without a word (see stuck_chunks).';
COMMENT ON COLUMN sluice.run_status.opened_at IS 'When the run was first opened.';
COMMENT ON COLUMN sluice.run_status.finished_at IS 'When the run got its final state; empty before.';
COMMENT ON COLUMN sluice.run_status.last_sign_at IS 'When anything last happened in the run.';
COMMENT ON COLUMN sluice.run_status.error_code IS 'Why the run failed: an SQLSTATE or the name of an error.';
COMMENT ON COLUMN sluice.run_status.error IS 'Why the run failed, in one line without a row''s value.';
COMMENT ON COLUMN sluice.run_status.report IS 'Where the report of the run lies.';

CREATE VIEW sluice.chunk_status AS
SELECT chunk.run_id, run.job, run.run_key, chunk.step_no, step.name AS step, step.kind, chunk.chunk_no,
       chunk.state::text AS state, chunk.wave, chunk.parent_no, chunk.is_null, chunk.groups,
       chunk.est_rows AS rows_planned, chunk.rows_marked, chunk.rows_updated AS rows_done, chunk.rounds,
       attempt.attempts, chunk.failures, chunk.timeouts, chunk.transients,
       open_attempt.alive AS at_work, open_attempt.pid, open_attempt.started_at AS attempt_since, open_attempt.lease_until,
       chunk.started_at, chunk.done_at, chunk.last_code, chunk.last_error
FROM sluice.chunk
JOIN sluice.run USING (run_id)
JOIN sluice.step USING (run_id, step_no)
CROSS JOIN LATERAL (
    SELECT count(*) AS attempts FROM sluice.attempt
    WHERE attempt.run_id = chunk.run_id AND attempt.step_no = chunk.step_no AND attempt.chunk_no = chunk.chunk_no
) AS attempt
LEFT JOIN LATERAL (
    -- The start of another role's session may be hidden from the reader: its process number then has to do.
    SELECT pid, started_at, lease_until,
           EXISTS (SELECT FROM pg_stat_activity AS activity
                   WHERE activity.pid = open.pid
                     AND coalesce(activity.backend_start, open.backend_start) = open.backend_start) AS alive
    FROM sluice.attempt AS open
    WHERE open.run_id = chunk.run_id AND open.step_no = chunk.step_no AND open.chunk_no = chunk.chunk_no
      AND open.ended_at IS NULL
    ORDER BY alive DESC, started_at DESC
    LIMIT 1
) AS open_attempt ON true;

COMMENT ON VIEW sluice.chunk_status IS 'One row per chunk: its state, its rows and who is at work on it.';
COMMENT ON COLUMN sluice.chunk_status.run_id IS 'Number of the run.';
COMMENT ON COLUMN sluice.chunk_status.job IS 'Job as pack/job.';
COMMENT ON COLUMN sluice.chunk_status.run_key IS 'Name of the run within its job.';
COMMENT ON COLUMN sluice.chunk_status.step_no IS 'Place of the step in its job, from 1.';
COMMENT ON COLUMN sluice.chunk_status.step IS 'Name of the step in the job file.';
COMMENT ON COLUMN sluice.chunk_status.kind IS 'What the step does: sql, update or check.';
COMMENT ON COLUMN sluice.chunk_status.chunk_no IS 'Number of the chunk within its step, as manifests name it.';
COMMENT ON COLUMN sluice.chunk_status.state IS 'planned: to do. marked: its rows carry the flag. done. split: its parts took over. quarantined: failed too often. skipped: an operator left it undone.';
COMMENT ON COLUMN sluice.chunk_status.wave IS '0 for the first plan, above for late rows.';
COMMENT ON COLUMN sluice.chunk_status.parent_no IS 'Chunk that this one is a part of, where that one was split.';
COMMENT ON COLUMN sluice.chunk_status.is_null IS 'Whether this is the chunk of the rows whose key holds a NULL.';
COMMENT ON COLUMN sluice.chunk_status.groups IS 'Key groups that were counted when the chunk was planned.';
COMMENT ON COLUMN sluice.chunk_status.rows_planned IS 'Rows that were counted when the chunk was planned.';
COMMENT ON COLUMN sluice.chunk_status.rows_marked IS 'Times that a row of the chunk was claimed with the flag.';
COMMENT ON COLUMN sluice.chunk_status.rows_done IS 'Rows of the chunk applied and committed.';
COMMENT ON COLUMN sluice.chunk_status.rounds IS 'Times that rows were applied; above one where rows came while the chunk was at work.';
COMMENT ON COLUMN sluice.chunk_status.attempts IS 'Times that a worker began the chunk.';
COMMENT ON COLUMN sluice.chunk_status.failures IS 'Errors and lost workers since the chunk last got on.';
COMMENT ON COLUMN sluice.chunk_status.timeouts IS 'Statement timeouts since the chunk last got on; the second splits it.';
COMMENT ON COLUMN sluice.chunk_status.transients IS 'Deadlocks, lock waits and lost connections since the chunk last got on.';
COMMENT ON COLUMN sluice.chunk_status.at_work IS 'Whether an attempt is open and its session is there; false where its session is gone; empty without an open attempt.';
COMMENT ON COLUMN sluice.chunk_status.pid IS 'Process number of the open attempt''s session.';
COMMENT ON COLUMN sluice.chunk_status.attempt_since IS 'When the open attempt began.';
COMMENT ON COLUMN sluice.chunk_status.lease_until IS 'When the open attempt must have ended; the next one then cancels what it still runs.';
COMMENT ON COLUMN sluice.chunk_status.started_at IS 'When the first transaction on the chunk committed.';
COMMENT ON COLUMN sluice.chunk_status.done_at IS 'When the chunk was done.';
COMMENT ON COLUMN sluice.chunk_status.last_code IS 'SQLSTATE or error name of the latest failure.';
COMMENT ON COLUMN sluice.chunk_status.last_error IS 'The latest failure or the operator''s reason, in one line without a row''s value.';

CREATE VIEW sluice.stuck_chunks AS
WITH sign AS MATERIALIZED (
    SELECT run.run_id, attempt.any_open, greatest(attempt.last_at, event.last_at, control.changed_at) AS last_at
    FROM sluice.run
    JOIN sluice.control USING (run_id)
    CROSS JOIN LATERAL (
        SELECT greatest(max(started_at), max(ended_at)) AS last_at,
               coalesce(bool_or(ended_at IS NULL AND lease_until > clock_timestamp()), false) AS any_open
        FROM sluice.attempt WHERE attempt.run_id = run.run_id
    ) AS attempt
    LEFT JOIN LATERAL (
        SELECT at AS last_at FROM sluice.event WHERE event.run_id = run.run_id ORDER BY event_id DESC LIMIT 1
    ) AS event ON true
    WHERE run.state = 'running'
)
SELECT chunk.run_id, chunk.job, chunk.run_key, chunk.step_no, chunk.step, chunk.chunk_no, chunk.state,
       stuck.reason, stuck.why, stuck.since, chunk.attempts, chunk.failures, chunk.timeouts, chunk.transients,
       chunk.pid, chunk.last_code, chunk.last_error
FROM sluice.chunk_status AS chunk
JOIN sluice.run USING (run_id)
JOIN sluice.control USING (run_id)
JOIN sluice.step USING (run_id, step_no)
LEFT JOIN sign USING (run_id)
CROSS JOIN LATERAL (
    SELECT max(ended_at) AS last_end FROM sluice.attempt
    WHERE attempt.run_id = chunk.run_id AND attempt.step_no = chunk.step_no AND attempt.chunk_no = chunk.chunk_no
) AS attempt
CROSS JOIN LATERAL (
    SELECT * FROM (VALUES
        (1, chunk.state = 'quarantined', 'quarantined',
            'it failed too often and was set aside: sluice retry, split or skip', attempt.last_end),
        (2, run.state <> 'running', 'run_ended',
            'its run has ' || run.state::text || ': starting the run again takes it up', run.finished_at),
        (3, chunk.at_work AND chunk.lease_until < clock_timestamp(), 'lease_over',
            'its attempt still has a session but should have ended: the next attempt cancels it', chunk.lease_until),
        (4, NOT chunk.at_work, 'session_gone',
            'its attempt is open but the session of its worker is gone: the next round counts it as lost',
            chunk.attempt_since),
        (5, control.desired <> 'run', 'stopped_by_operator',
            'an operator asked to ' || control.desired || coalesce(': ' || control.reason, ''), control.changed_at),
        (6, step.held IS NOT NULL, 'held', 'a health check holds it back: ' || step.held, step.held_since),
        (7, chunk.failures + chunk.timeouts + chunk.transients >= 2, 'failing',
            'its last ' || (chunk.failures + chunk.timeouts + chunk.transients) || ' attempts failed', attempt.last_end),
        (8, NOT sign.any_open AND sign.last_at < clock_timestamp() - interval '20 minutes', 'idle',
            'nothing has happened in its run for 20 minutes: no execution works it, start the run again', sign.last_at)
    ) AS possible (rank, applies, reason, why, since)
    WHERE applies
    ORDER BY rank
    LIMIT 1
) AS stuck
WHERE chunk.state IN ('planned', 'marked', 'quarantined')
  AND (run.state = 'running'
       OR run.state = 'failed'
          AND NOT EXISTS (SELECT FROM sluice.run AS newer WHERE newer.job = run.job AND newer.run_id > run.run_id));

COMMENT ON VIEW sluice.stuck_chunks IS 'Chunks that want work and do not get on, each with the gravest reason: of runs that are under way, and of a job''s latest run where it failed.';
COMMENT ON COLUMN sluice.stuck_chunks.run_id IS 'Number of the run.';
COMMENT ON COLUMN sluice.stuck_chunks.job IS 'Job as pack/job.';
COMMENT ON COLUMN sluice.stuck_chunks.run_key IS 'Name of the run within its job.';
COMMENT ON COLUMN sluice.stuck_chunks.step_no IS 'Place of the step in its job, from 1.';
COMMENT ON COLUMN sluice.stuck_chunks.step IS 'Name of the step in the job file.';
COMMENT ON COLUMN sluice.stuck_chunks.chunk_no IS 'Number of the chunk within its step.';
COMMENT ON COLUMN sluice.stuck_chunks.state IS 'planned, marked or quarantined, as in chunk_status.';
COMMENT ON COLUMN sluice.stuck_chunks.reason IS 'quarantined: failed too often. run_ended: its run failed with it open. lease_over: its attempt outlives its time. session_gone: its worker vanished. stopped_by_operator: paused or being cancelled. held: by a health check. failing: at least two failures since it last got on. idle: nobody works its run.';
COMMENT ON COLUMN sluice.stuck_chunks.why IS 'The reason as a sentence, with what to do.';
COMMENT ON COLUMN sluice.stuck_chunks.since IS 'Since when, where that is known.';
COMMENT ON COLUMN sluice.stuck_chunks.attempts IS 'Times that a worker began the chunk.';
COMMENT ON COLUMN sluice.stuck_chunks.failures IS 'Errors and lost workers since the chunk last got on.';
COMMENT ON COLUMN sluice.stuck_chunks.timeouts IS 'Statement timeouts since the chunk last got on.';
COMMENT ON COLUMN sluice.stuck_chunks.transients IS 'Deadlocks, lock waits and lost connections since the chunk last got on.';
COMMENT ON COLUMN sluice.stuck_chunks.pid IS 'Process number of the open attempt''s session.';
COMMENT ON COLUMN sluice.stuck_chunks.last_code IS 'SQLSTATE or error name of the latest failure.';
COMMENT ON COLUMN sluice.stuck_chunks.last_error IS 'The latest failure, in one line without a row''s value.';
