-- The table under test, and what the harness itself writes down.
CREATE SCHEMA chaos;

CREATE TABLE chaos.visits (
    "ID"          bigint PRIMARY KEY,
    "VisitDate"   date,
    "SSN"         text,
    "Minutes"     integer NOT NULL,
    "Doubled"     integer,
    "Touched"     integer NOT NULL DEFAULT 0,   -- changes by the application
    "applied"     integer NOT NULL DEFAULT 0,   -- applications by any run
    "Runs"        bigint[] NOT NULL DEFAULT '{}',  -- the runs that applied the row, in their order
    "UpdateFlag"  smallint,
    "UpdatedDate" timestamptz
);
CREATE INDEX ON chaos.visits ("VisitDate", "SSN");

CREATE TABLE chaos.started (run_id bigint NOT NULL);

-- What the application and the hands on the database did, each entry in the transaction of its deed. `at` lies before
-- the commit; `seen_at` after it, NULL where nobody came to write it.
CREATE TABLE chaos.journal (
    entry    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deed     text NOT NULL,
    visit    bigint,
    runs     bigint[],
    flagged  boolean NOT NULL DEFAULT false,
    n        bigint NOT NULL DEFAULT 1,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at  timestamptz
);
