-- The first design's own bookkeeping, as little as it can do with, and the harness's view of it.
CREATE SCHEMA naive;

CREATE TABLE naive.run (
    run_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_key     text NOT NULL UNIQUE,
    state       text NOT NULL DEFAULT 'running',
    opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);

CREATE TABLE naive.chunk (
    run_id      bigint NOT NULL,
    chunk_no    bigint NOT NULL,
    lo          bigint NOT NULL,
    hi          bigint NOT NULL,
    reported_at timestamptz,
    PRIMARY KEY (run_id, chunk_no)
);

-- Its chunks are those of the start: what was inserted later it need not have seen.
CREATE VIEW chaos.runs AS
SELECT run.run_id, run.run_key, run.state, 'run' AS desired, 0 AS wave, run.opened_at, run.finished_at,
       NULL::text AS error, run.finished_at AS planned_out_at, run.opened_at AS last_done_at
FROM naive.run;
