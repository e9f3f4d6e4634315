-- What the harness reads of Sluice's runs. Every row that was there at last_done_at the last plan must have seen;
-- none that died after planned_out_at may be missing from it.
CREATE VIEW chaos.runs AS
SELECT run.run_id, run.run_key, run.state::text AS state, control.desired, step.wave, run.opened_at, run.finished_at,
       run.error, step.finished_at AS planned_out_at,
       (SELECT max(event.at) FROM sluice.event
        WHERE event.run_id = run.run_id AND event.step_no = step.step_no AND event.event = 'done') AS last_done_at
FROM sluice.run
JOIN sluice.control USING (run_id)
JOIN sluice.step ON step.run_id = run.run_id AND step.kind = 'update';
