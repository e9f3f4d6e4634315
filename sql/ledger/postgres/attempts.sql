-- start_attempt
-- Writes down who works the chunk, under which lease; tells how many earlier attempts have not ended.
WITH started AS (
    INSERT INTO sluice.attempt (attempt_id, run_id, step_no, chunk_no, request_id, pid, backend_start, lease_until)
    SELECT CAST(:attempt_id AS uuid), :run_id, :step_no, :chunk_no, :request_id, activity.pid, activity.backend_start,
           clock_timestamp() + make_interval(secs => :lease_seconds)
    FROM pg_stat_activity AS activity WHERE activity.pid = pg_backend_pid()
)
SELECT count(*) AS open_before FROM sluice.attempt
WHERE run_id = :run_id AND step_no = :step_no AND chunk_no = :chunk_no AND ended_at IS NULL;

-- lose_attempts
-- Ends the attempts whose session is gone or whose lease is long over, and counts them as failures of a chunk that is
-- still open; chunks that another session holds are left alone.
WITH free AS (
    SELECT chunk_no FROM sluice.chunk
    WHERE run_id = :run_id AND step_no = :step_no
      AND (CAST(:chunk_no AS integer) IS NULL OR chunk_no = :chunk_no)
      AND EXISTS (SELECT FROM sluice.attempt
                  WHERE attempt.run_id = :run_id AND attempt.step_no = :step_no
                    AND attempt.chunk_no = chunk.chunk_no AND attempt.ended_at IS NULL)
    FOR NO KEY UPDATE SKIP LOCKED
), lost AS (
    UPDATE sluice.attempt
    SET ended_at = clock_timestamp(), outcome = 'lost', code = 'Lost', error = :error
    FROM free
    WHERE attempt.run_id = :run_id AND attempt.step_no = :step_no AND attempt.chunk_no = free.chunk_no
      AND attempt.ended_at IS NULL AND attempt.pid <> pg_backend_pid()
      AND (attempt.lease_until < clock_timestamp() - interval '30 seconds'
           OR NOT EXISTS (SELECT FROM pg_stat_activity AS activity
                          WHERE activity.pid = attempt.pid AND activity.backend_start = attempt.backend_start))
    RETURNING attempt.chunk_no
), counted AS (
    SELECT chunk_no, count(*) AS n FROM lost GROUP BY chunk_no
)
UPDATE sluice.chunk
SET failures = failures + counted.n, last_code = 'Lost', last_error = :error
FROM counted
WHERE chunk.run_id = :run_id AND chunk.step_no = :step_no AND chunk.chunk_no = counted.chunk_no
  AND chunk.state IN ('planned', 'marked');

-- stop_overdue_attempts
-- Cancels what a session still runs for the chunk after its lease; ends the session where it was told 5 s ago.
WITH overdue AS (
    SELECT attempt.attempt_id, attempt.pid, attempt.cancelled_at
    FROM sluice.attempt
    JOIN pg_stat_activity AS activity
      ON activity.pid = attempt.pid AND activity.backend_start = attempt.backend_start
     AND activity.application_name = 'sluice:' || attempt.run_id || ':' || attempt.step_no || ':' || attempt.chunk_no
                                     || ':' || left(attempt.attempt_id::text, 8)
    WHERE attempt.run_id = :run_id AND attempt.step_no = :step_no AND attempt.chunk_no = :chunk_no
      AND attempt.ended_at IS NULL AND attempt.lease_until < clock_timestamp() AND activity.state <> 'idle'
), stopped AS (
    SELECT attempt_id,
           CASE WHEN cancelled_at < clock_timestamp() - interval '5 seconds' THEN pg_terminate_backend(pid)
                ELSE pg_cancel_backend(pid) END AS told
    FROM overdue
)
UPDATE sluice.attempt SET cancelled_at = coalesce(cancelled_at, clock_timestamp())
FROM stopped WHERE attempt.attempt_id = stopped.attempt_id;

-- end_attempt
-- Writes down how an attempt ended and counts it on the chunk: failures, timeouts and transient errors apart; after a
-- fatal one no other attempt is made.
WITH ended AS (
    UPDATE sluice.attempt
    SET ended_at = clock_timestamp(), outcome = :outcome, code = :code, error = :error
    WHERE attempt_id = CAST(:attempt_id AS uuid) AND ended_at IS NULL
    RETURNING run_id, step_no, chunk_no
)
UPDATE sluice.chunk
SET failures = failures + CASE WHEN :outcome = 'failed' THEN 1 ELSE 0 END,
    timeouts = timeouts + CASE WHEN :outcome = 'timeout' THEN 1 ELSE 0 END,
    transients = transients + CASE WHEN :outcome = 'transient' THEN 1 ELSE 0 END,
    fatal = fatal OR :outcome = 'fatal',
    last_code = :code,
    last_error = :error
FROM ended
WHERE chunk.run_id = ended.run_id AND chunk.step_no = ended.step_no AND chunk.chunk_no = ended.chunk_no
  AND :outcome IN ('failed', 'fatal', 'timeout', 'transient');
