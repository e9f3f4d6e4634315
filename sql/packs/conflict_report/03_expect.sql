-- no_flag_left
-- no row is claimed after the run
-- severity: error
SELECT "ID" FROM public.conflictvisitmaps WHERE "UpdateFlag" = 1
;

-- work_table_is_filled
-- the work table of step copy_to_temp survived until here; a crash of the server empties it
-- severity: error
SELECT 'public.conflictvisitmaps_temp is empty' AS problem
WHERE NOT EXISTS (SELECT FROM public.conflictvisitmaps_temp)
    AND EXISTS (SELECT FROM public.conflictvisitmaps WHERE "UpdatedDate" = :run_ts)
;

-- stored_values_disagree
-- what this run stored is what a second formulation, with ranges and over pairs of visits, finds for the row.
-- Rows that the application changed since the run began are left out: their values are due in the next run.
-- severity: error
WITH own AS MATERIALIZED (
    SELECT
        map.*,
        CASE WHEN "SchStartTime" < "SchEndTime" THEN tstzrange("SchStartTime", "SchEndTime") END AS sch,
        CASE WHEN "VisitStartTime" < "VisitEndTime" THEN tstzrange("VisitStartTime", "VisitEndTime") END AS actual
    FROM public.conflictvisitmaps AS map
    WHERE "UpdatedDate" = :run_ts AND "ModifiedDate" < :run_ts
), busy AS MATERIALIZED (
    SELECT
        work.*,
        tstzrange("BusyStart", "BusyEnd") AS span,
        tstzrange("SchStartTime", "SchEndTime") AS sch,
        tstzrange("VisitStartTime", "VisitEndTime") AS actual
    FROM (
        SELECT DISTINCT ON ("Kind", "BusyID") * FROM public.conflictvisitmaps_temp ORDER BY "Kind", "BusyID"
    ) AS work
)
SELECT 1
;
