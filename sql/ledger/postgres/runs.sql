-- insert_run
-- Opens a run unless its key is taken.
INSERT INTO sluice.run (job, run_key, params, job_sha256)
VALUES (:job, :run_key, :params, :job_sha256)
ON CONFLICT DO NOTHING
RETURNING run_id;

-- insert_control
-- Lets the run run.
INSERT INTO sluice.control (run_id) VALUES (:run_id);

-- insert_step
-- Adds one step of the run.
INSERT INTO sluice.step (run_id, step_no, name, kind, target, flag)
VALUES (:run_id, :step_no, :name, :kind, :target, :flag);

-- find_run
-- The run of a job and key.
SELECT run_id FROM sluice.run WHERE job = :job AND run_key = :run_key;

-- latest_run
-- The newest run of a job.
SELECT run_id FROM sluice.run WHERE job = :job ORDER BY run_id DESC LIMIT 1;

-- read_run
-- A run with what the operator wants of it.
SELECT run.run_id, run.job, run.run_key, run.run_ts, run.generation, run.params, run.job_sha256,
       run.state::text AS state, control.desired, control.reason, run.opened_at, run.finished_at,
       run.error_code, run.error, run.report
FROM sluice.run JOIN sluice.control USING (run_id)
WHERE run.run_id = :run_id;

-- lock_run
-- Locks the run's row alone; waits for every transaction of a worker that is under way.
SELECT generation, state::text AS state FROM sluice.run WHERE run_id = :run_id FOR UPDATE;

-- share_run
-- Locks the run's row (shared) before anything else of the run: reset and the run's end take it first and alone.
SELECT FROM sluice.run WHERE run_id = :run_id FOR SHARE;

-- read_steps
-- The steps of a run in order.
SELECT run_id, step_no, name, kind, target, flag, wave, phase, rounds, planned_rows, late_rows, drift_rows, held,
       started_at, finished_at
FROM sluice.step WHERE run_id = :run_id ORDER BY step_no;

-- claim_target
-- Makes the run the active one of a target unless another is.
INSERT INTO sluice.active_target (target, run_id) VALUES (:target, :run_id) ON CONFLICT DO NOTHING;

-- other_run_on_target
-- The run that is active on a target, where it is not this one.
SELECT run.run_id, run.job, run.run_key
FROM sluice.active_target JOIN sluice.run USING (run_id)
WHERE active_target.target = :target AND active_target.run_id <> :run_id;

-- later_run_on_target
-- A run opened after this one that has worked a target since.
SELECT run.run_id, run.job, run.run_key
FROM sluice.step JOIN sluice.run USING (run_id)
WHERE step.target = :target AND step.run_id > :run_id AND step.wave >= 0
ORDER BY run.run_id DESC
LIMIT 1;

-- release_targets
-- Ends the run's claims.
DELETE FROM sluice.active_target WHERE run_id = :run_id;

-- reopen_run
-- Takes a failed run up again.
UPDATE sluice.run
SET state = 'running', finished_at = NULL, error_code = NULL, error = NULL, report = NULL, job_sha256 = :job_sha256
WHERE run_id = :run_id;

-- change_job
-- Lets a run go on with changed SQL, as an operator said.
UPDATE sluice.run SET job_sha256 = :job_sha256 WHERE run_id = :run_id;

-- reopen_quarantined
-- Gives the chunks in quarantine a new start.
UPDATE sluice.chunk
SET state = 'planned', failures = 0, transients = 0, timeouts = 0, fatal = false, rounds = 0
WHERE run_id = :run_id AND state = 'quarantined';

-- ask_again
-- Lets the checks of a run that is taken up again be asked anew, and forgets what they found.
WITH forgotten AS (
    DELETE FROM sluice.finding WHERE run_id = :run_id
)
UPDATE sluice.chunk
SET state = 'planned', generation = chunk.generation + 1, done_at = NULL
FROM sluice.step
WHERE chunk.run_id = :run_id AND step.run_id = :run_id AND step.step_no = chunk.step_no
  AND step.kind = 'check' AND chunk.state = 'done';

-- reopen_steps
-- Lets the steps that have open chunks again be worked again.
UPDATE sluice.step
SET finished_at = NULL
WHERE run_id = :run_id
  AND EXISTS (SELECT FROM sluice.chunk WHERE chunk.run_id = step.run_id AND chunk.step_no = step.step_no
              AND chunk.state IN ('planned', 'marked'));

-- add_event
-- Writes an event of the run.
INSERT INTO sluice.event (run_id, step_no, chunk_no, generation, event, n, detail)
SELECT :run_id, :step_no, :chunk_no, generation, :event, :n, :detail FROM sluice.run WHERE run_id = :run_id;

-- hold_for_finish
-- Lets no worker start another transaction: one that shares the run's row after the other would keep its end waiting.
UPDATE sluice.control SET desired = 'finish', changed_at = clock_timestamp() WHERE run_id = :run_id AND desired = 'run';

-- set_desired
-- Says what is wanted of the run; the next transaction of a worker obeys.
UPDATE sluice.control SET desired = :desired, reason = :reason, changed_at = clock_timestamp() WHERE run_id = :run_id;

-- close_run
-- Gives the run its final state.
UPDATE sluice.run
SET state = CAST(:state AS sluice.run_state), finished_at = clock_timestamp(), error_code = :error_code, error = :error
WHERE run_id = :run_id;

-- set_report
-- Keeps where the report of the run lies.
UPDATE sluice.run SET report = :report WHERE run_id = :run_id;
