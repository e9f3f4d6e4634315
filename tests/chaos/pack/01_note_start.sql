-- note_start
-- One row a run: a second one would show that the step was done twice.
INSERT INTO chaos.started (run_id) VALUES (:run_id);
