-- The ledger: what is planned, claimed and done, written in the same transaction as the data it speaks of.

CREATE TYPE sluice.run_state AS ENUM (
    'running',               -- opened (validate_config), or opened again after a failure
    'succeeded',             -- running -> succeeded (finish_run)
    'succeeded_with_drift',  -- running -> succeeded_with_drift: rows that came late were left undone and counted
    'failed',                -- running -> failed: a chunk in quarantine, a failed check, a broken invariant, an error
    'cancelled'              -- running -> cancelled: an operator asked for it
);

CREATE TYPE sluice.chunk_state AS ENUM (
    'planned',      -- cut, or back from marked because the post-check found rows (apply)
    'marked',       -- planned -> marked (mark): its rows carry the flag
    'done',         -- marked -> done (apply); planned -> done where nothing is marked first
    'split',        -- planned, marked -> split: its children, cut in the same transaction, take over
    'quarantined',  -- planned, marked -> quarantined: failed too often; quarantined -> planned by an operator's retry
    'skipped'       -- planned, marked, quarantined -> skipped by an operator, with a reason
);

-- An address of a row in a partitioned target: ctid alone repeats in every partition.
CREATE TYPE sluice.row_address AS (relation oid, address tid);

CREATE TABLE sluice.run (
    run_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job         text NOT NULL,
    run_key     text NOT NULL,
    run_ts      timestamptz NOT NULL DEFAULT clock_timestamp(),
    generation  integer NOT NULL DEFAULT 1,
    params      jsonb NOT NULL,
    job_sha256  text NOT NULL,
    state       sluice.run_state NOT NULL DEFAULT 'running',
    opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    error_code  text,
    error       text,
    report      text,
    UNIQUE (job, run_key)
);

-- Apart from sluice.run, because workers hold a share lock on their run's row: an operator's word must not wait for them.
CREATE TABLE sluice.control (
    run_id     bigint PRIMARY KEY REFERENCES sluice.run ON DELETE CASCADE,
    desired    text NOT NULL DEFAULT 'run' CHECK (desired IN ('run', 'pause', 'cancel', 'finish')),
    reason     text,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE sluice.active_target (
    target text PRIMARY KEY,
    run_id bigint NOT NULL REFERENCES sluice.run ON DELETE CASCADE
);

CREATE TABLE sluice.step (
    run_id       bigint NOT NULL REFERENCES sluice.run ON DELETE CASCADE,
    step_no      integer NOT NULL,
    name         text NOT NULL,
    kind         text NOT NULL,
    target       text,
    flag         text,
    wave         integer NOT NULL DEFAULT -1,
    phase        text NOT NULL DEFAULT 'work' CHECK (phase IN ('mark', 'work')),
    rounds       integer NOT NULL DEFAULT 0,
    planned_rows bigint NOT NULL DEFAULT 0,
    late_rows    bigint NOT NULL DEFAULT 0,
    drift_rows   bigint NOT NULL DEFAULT 0,
    held         text,
    held_since   timestamptz,
    started_at   timestamptz,
    finished_at  timestamptz,
    PRIMARY KEY (run_id, step_no),
    UNIQUE (run_id, name)
);

CREATE TABLE sluice.chunk (
    run_id       bigint NOT NULL,
    step_no      integer NOT NULL,
    chunk_no     integer NOT NULL,
    generation   integer NOT NULL,
    wave         integer NOT NULL DEFAULT 0,
    parent_no    integer,
    state        sluice.chunk_state NOT NULL DEFAULT 'planned',
    lo           jsonb,
    hi           jsonb,
    is_null      boolean NOT NULL DEFAULT false,
    groups       bigint NOT NULL DEFAULT 0,
    est_rows     bigint NOT NULL DEFAULT 0,
    rounds       integer NOT NULL DEFAULT 0,
    timeouts     integer NOT NULL DEFAULT 0,
    failures     integer NOT NULL DEFAULT 0,
    transients   integer NOT NULL DEFAULT 0,
    fatal        boolean NOT NULL DEFAULT false,
    rows_marked  bigint NOT NULL DEFAULT 0,
    rows_updated bigint NOT NULL DEFAULT 0,
    started_at   timestamptz,
    done_at      timestamptz,
    last_code    text,
    last_error   text,
    PRIMARY KEY (run_id, step_no, chunk_no),
    FOREIGN KEY (run_id, step_no) REFERENCES sluice.step ON DELETE CASCADE
) WITH (fillfactor = 70);

CREATE INDEX chunk_open ON sluice.chunk (run_id, step_no, chunk_no) WHERE state IN ('planned', 'marked');

CREATE TABLE sluice.attempt (
    attempt_id    uuid PRIMARY KEY,
    run_id        bigint NOT NULL,
    step_no       integer NOT NULL,
    chunk_no      integer NOT NULL,
    request_id    text,
    pid           integer NOT NULL,
    backend_start timestamptz NOT NULL,
    lease_until   timestamptz NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    cancelled_at  timestamptz,
    ended_at      timestamptz,
    outcome       text CHECK (outcome IN ('done', 'marked', 'settled', 'stopped', 'held', 'transient', 'timeout', 'failed', 'fatal', 'lost')),
    code          text,
    error         text,
    FOREIGN KEY (run_id, step_no, chunk_no) REFERENCES sluice.chunk ON DELETE CASCADE
);

CREATE INDEX attempt_of_chunk ON sluice.attempt (run_id, step_no, chunk_no);
CREATE INDEX attempt_open ON sluice.attempt (run_id, step_no, chunk_no) WHERE ended_at IS NULL;

CREATE TABLE sluice.event (
    event_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_id     bigint NOT NULL REFERENCES sluice.run ON DELETE CASCADE,
    step_no    integer,
    chunk_no   integer,
    generation integer NOT NULL,
    attempt_id uuid,
    event      text NOT NULL,
    n          bigint NOT NULL DEFAULT 0,
    detail     text
);

CREATE INDEX event_of_run ON sluice.event (run_id, event_id);

CREATE TABLE sluice.finding (
    run_id      bigint NOT NULL,
    step_no     integer NOT NULL,
    name        text NOT NULL,
    description text NOT NULL,
    severity    text NOT NULL CHECK (severity IN ('error', 'warning')),
    row_count   bigint NOT NULL,
    keys        jsonb,
    checked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, step_no, name),
    FOREIGN KEY (run_id, step_no) REFERENCES sluice.step ON DELETE CASCADE
);

CREATE FUNCTION sluice.check_chunk_transition() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.generation < OLD.generation THEN
        RAISE EXCEPTION 'sluice: the generation of chunk % of run % may not fall', OLD.chunk_no, OLD.run_id;
    END IF;
    IF NEW.state = OLD.state OR (NEW.state::text = 'planned' AND NEW.generation > OLD.generation) THEN
        RETURN NEW;
    END IF;
    IF (OLD.state::text, NEW.state::text) IN (
        ('planned', 'marked'), ('planned', 'done'), ('marked', 'done'), ('marked', 'planned'),
        ('planned', 'split'), ('marked', 'split'), ('planned', 'quarantined'), ('marked', 'quarantined'),
        ('planned', 'skipped'), ('marked', 'skipped'), ('quarantined', 'skipped'), ('quarantined', 'planned'),
        ('quarantined', 'split')) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'sluice: chunk % of run % may not go from % to %', OLD.chunk_no, OLD.run_id, OLD.state, NEW.state;
END $$;

CREATE TRIGGER chunk_transition BEFORE UPDATE OF state, generation ON sluice.chunk
    FOR EACH ROW EXECUTE FUNCTION sluice.check_chunk_transition();
