-- The key of the job's run that is not at its end, and how many runs it has.
SELECT (SELECT run_key FROM sluice.run WHERE job = %(job)s AND state IN ('running', 'failed') ORDER BY run_id DESC LIMIT 1),
       (SELECT count(*) FROM sluice.run WHERE job = %(job)s)
