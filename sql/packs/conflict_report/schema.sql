-- The visits system's own tables, as far as conflict_report reads or writes them.
-- Every statement can be run again on a database that has them.

-- providers
-- home-care agencies; all local dates of a provider's visits and leaves are dates in its time zone
CREATE TABLE IF NOT EXISTS public.providers (
    "ProviderID" integer PRIMARY KEY,
    "ProviderName" text NOT NULL,
    "TimeZone" text NOT NULL -- IANA name, e.g. America/New_York
);

-- patients
-- persons cared for; without coordinates no travel time can be computed
CREATE TABLE IF NOT EXISTS public.patients (
    "PatientID" bigint PRIMARY KEY,
    "ProviderID" integer NOT NULL,
    "Latitude" double precision CHECK ("Latitude" BETWEEN -90 AND 90),
    "Longitude" double precision CHECK ("Longitude" BETWEEN -180 AND 180)
);

-- caregivers
-- a person has one row at each agency that employs them; the SSN makes the rows one person
CREATE TABLE IF NOT EXISTS public.caregivers (
    "CaregiverID" bigint PRIMARY KEY,
    "ProviderID" integer NOT NULL,
    "SSN" text COLLATE "C"
);

-- visits
-- planned and delivered visits; the actual times are the clock-in and clock-out
CREATE TABLE IF NOT EXISTS public.visits (
    "VisitID" bigint PRIMARY KEY,
    "ProviderID" integer NOT NULL,
    "CaregiverID" bigint NOT NULL,
    "PatientID" bigint NOT NULL,
    "SchStartTime" timestamptz, -- NULL: an unscheduled visit
    "SchEndTime" timestamptz,
    "VisitStartTime" timestamptz, -- NULL: not yet begun, or the clock-in is missing
    "VisitEndTime" timestamptz,
    "IsMissed" boolean NOT NULL DEFAULT false -- cancelled or not delivered: nobody was there
);

-- inservices
-- training sessions: the caregiver sits in a classroom
CREATE TABLE IF NOT EXISTS public.inservices (
    "InServiceID" bigint PRIMARY KEY,
    "CaregiverID" bigint NOT NULL,
    "StartTime" timestamptz NOT NULL,
    "EndTime" timestamptz NOT NULL
);

-- leaves
-- paid time off: whole days, both inclusive, in the time zone of the agency that granted it
CREATE TABLE IF NOT EXISTS public.leaves (
    "LeaveID" bigint PRIMARY KEY,
    "CaregiverID" bigint NOT NULL,
    "StartDate" date NOT NULL,
    "EndDate" date NOT NULL
);

-- conflictvisitmaps
-- one row per visit that may conflict; the application writes the first block, conflict_report the others.
-- Each run rewrites every row once or twice. No written column is indexed, so with free space in the page
-- (fillfactor) the new versions stay there and touch no index (HOT); vacuum follows soon and is not held back.
CREATE TABLE IF NOT EXISTS public.conflictvisitmaps (
    "ID" bigint PRIMARY KEY,
    "VisitID" bigint NOT NULL,
    "VisitDate" date, -- local date of the agency at the scheduled start
    "SSN" text COLLATE "C",
    "ProviderID" integer NOT NULL,
    "CaregiverID" bigint NOT NULL,
    "PatientID" bigint NOT NULL,
    "Latitude" double precision,
    "Longitude" double precision,
    "SchStartTime" timestamptz,
    "SchEndTime" timestamptz,
    "VisitStartTime" timestamptz,
    "VisitEndTime" timestamptz,
    "ModifiedDate" timestamptz NOT NULL DEFAULT clock_timestamp(), -- when one of the columns above last changed

    "UpdateFlag" smallint, -- 1: claimed by the active run and not yet computed
    "UpdatedDate" timestamptz, -- stamp: the run_ts of the run that computed the columns below

    "ConflictStatus" text,
    "ConflictType" text,
    "ConflictCount" integer,
    "OtherProviderConflictCount" integer,

    "ConVisitID" bigint,
    "ConProviderID" integer,
    "ConCaregiverID" bigint,
    "ConPatientID" bigint,
    "ConSchStartTime" timestamptz,
    "ConSchEndTime" timestamptz,
    "ConVisitStartTime" timestamptz,
    "ConVisitEndTime" timestamptz,
    "SameProviderFlag" boolean,

    "SameSchTimeFlag" boolean,
    "SchOverAnotherSchTimeFlag" boolean,
    "SameVisitTimeFlag" boolean,
    "VisitTimeOverAnotherVisitTimeFlag" boolean,
    "SchAndVisitTimeSameFlag" boolean,
    "SchTimeOverVisitTimeFlag" boolean,
    "SchOverlapMinutes" integer,
    "VisitOverlapMinutes" integer,
    "OverlapMinutes" integer,

    "Distance" double precision,
    "MinuteDiff" integer,
    "TravelMinutes" integer,
    "DistanceFlag" boolean,

    "InServiceFlag" boolean,
    "InServiceID" bigint,
    "InServiceOverlapMinutes" integer,
    "PTOFlag" boolean,
    "LeaveID" bigint
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_limit = 2000
);

-- conflictvisitmaps_visitdate_ssn
-- the key that chunks are cut by; a chunk is one range of it
CREATE INDEX IF NOT EXISTS conflictvisitmaps_visitdate_ssn
    ON public.conflictvisitmaps ("VisitDate", "SSN");

-- conflictvisitmaps_without_key
-- rows without a complete key, which no range of the key reaches, without a scan of the table
CREATE INDEX IF NOT EXISTS conflictvisitmaps_without_key
    ON public.conflictvisitmaps ("ID") WHERE "VisitDate" IS NULL OR "SSN" IS NULL;

-- note_modification
-- remembers when the application last changed what a conflict is computed from
CREATE OR REPLACE FUNCTION public.note_modification() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW."ModifiedDate" := clock_timestamp();
    RETURN NEW;
END
$$;

-- conflictvisitmaps_modified
-- fires only for statements that set one of these columns, so never for the engine's
CREATE OR REPLACE TRIGGER conflictvisitmaps_modified
    BEFORE UPDATE OF "VisitID", "VisitDate", "SSN", "ProviderID", "CaregiverID", "PatientID", "Latitude", "Longitude",
        "SchStartTime", "SchEndTime", "VisitStartTime", "VisitEndTime"
    ON public.conflictvisitmaps
    FOR EACH ROW EXECUTE FUNCTION public.note_modification();

-- conflictvisitmaps_temp
-- work table of conflict_report: when each SSN is busy, one row per busy time and day that it touches.
-- Unlogged, for every run fills it anew; after a crash of the server it is empty.
CREATE UNLOGGED TABLE IF NOT EXISTS public.conflictvisitmaps_temp (
    "SSN" text COLLATE "C" NOT NULL,
    "Kind" text COLLATE "C" NOT NULL, -- visit, in_service or leave; copied: the signature of the run
    "BusyDay" date NOT NULL,
    "BusyID" bigint NOT NULL, -- VisitID, InServiceID or LeaveID; run_id
    "FirstDay" date NOT NULL,
    "BusyStart" timestamptz NOT NULL,
    "BusyEnd" timestamptz NOT NULL,
    "ProviderID" integer, -- NULL, as what follows, for an absence
    "CaregiverID" bigint,
    "PatientID" bigint,
    "Latitude" double precision,
    "Longitude" double precision,
    "SchStartTime" timestamptz,
    "SchEndTime" timestamptz,
    "VisitStartTime" timestamptz,
    "VisitEndTime" timestamptz,
    PRIMARY KEY ("SSN", "BusyDay", "Kind", "BusyID")
);
