-- record_finding
-- Runs a check inside the database: counts the rows it returns and keeps the first 20 of them, which never leave it.
WITH offending AS MATERIALIZED (
{check}
)
INSERT INTO sluice.finding (run_id, step_no, name, description, severity, row_count, keys)
SELECT :run_id, :step_no, :check_name, :check_description, :check_severity, (SELECT count(*) FROM offending),
       (SELECT jsonb_agg(to_jsonb(sample)) FROM (SELECT * FROM offending LIMIT 20) AS sample)
ON CONFLICT (run_id, step_no, name) DO UPDATE
SET description = excluded.description, severity = excluded.severity, row_count = excluded.row_count,
    keys = excluded.keys, checked_at = clock_timestamp()
RETURNING row_count;

-- read_findings
-- What the checks of a run found, without the rows.
SELECT step.name AS step, finding.name, finding.description, finding.severity, finding.row_count
FROM sluice.finding JOIN sluice.step USING (run_id, step_no)
WHERE finding.run_id = :run_id
ORDER BY finding.step_no, finding.name;

-- longest_lock_wait
-- Seconds that the session waiting longest for a lock has waited.
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float AS seconds
FROM pg_locks WHERE NOT granted;

-- longest_replica_lag
-- Seconds that the slowest replica lies behind; 0 without one.
SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float AS seconds FROM pg_stat_replication;
