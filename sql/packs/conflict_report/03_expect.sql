-- no_flag_left
-- no row is claimed after the run
-- severity: error
SELECT "ID" FROM public.conflictvisitmaps WHERE "UpdateFlag" = 1
;

-- work_table_is_of_this_run
-- what step copy_to_temp of this run wrote is still there; the recovery from a crash empties the table
-- severity: error
SELECT 'public.conflictvisitmaps_temp' AS "table"
WHERE NOT EXISTS (SELECT FROM public.conflictvisitmaps_temp WHERE "Kind" = 'copied' AND "BusyID" = :run_id)
;

-- work_table_skips_a_day
-- each busy time is in the work table once for each day that it touches
-- severity: error
SELECT "Kind", "BusyID"
FROM public.conflictvisitmaps_temp
WHERE "Kind" <> 'copied'
GROUP BY "Kind", "BusyID"
HAVING min("BusyDay") <> min("FirstDay")
    OR max("BusyDay") <> ((max("BusyEnd") - interval '1 microsecond') AT TIME ZONE 'Etc/GMT+8')::date
    OR min("BusyDay") <> (min("BusyStart") AT TIME ZONE 'Etc/GMT+8')::date
    OR count(*) <> max("BusyDay") - min("BusyDay") + 1
;

-- stored_values_disagree
-- what this run stored is what a second formulation finds: ranges, and one group of meetings for each row.
-- Rows that the application changed since the run began are left out: they are due in the next run.
-- severity: error
SELECT own."ID"
FROM (
    SELECT map.*, sch, actual, coalesce(actual, sch) AS present,
        CASE WHEN "VisitDate" IS NOT NULL AND "SSN" SIMILAR TO '[0-9]{3}-[0-9]{2}-[0-9]{4}'
            THEN range_merge(coalesce(sch, actual), coalesce(actual, sch)) END AS span
    FROM public.conflictvisitmaps AS map
    CROSS JOIN LATERAL (
        SELECT
            CASE WHEN "SchEndTime" > "SchStartTime" THEN tstzrange("SchStartTime", "SchEndTime") END AS sch,
            CASE WHEN "VisitEndTime" > "VisitStartTime" THEN tstzrange("VisitStartTime", "VisitEndTime") END AS actual
        OFFSET 0
    ) AS times
    WHERE "UpdatedDate" = :run_ts AND "ModifiedDate" < :run_ts
    OFFSET 0
) AS own
-- A probe of the work table's key per row: a join would be planned for the one row that statistics from before
-- the run expect to carry its stamp.
CROSS JOIN LATERAL (
    SELECT
        min(place) AS place,
        (array_agg("BusyID" ORDER BY place, same_provider, longest DESC NULLS LAST, "BusyID")
            FILTER (WHERE "Kind" = 'visit'))[1] AS con_visit,
        count(*) FILTER (WHERE "Kind" = 'visit') AS conflicts,
        count(*) FILTER (WHERE "Kind" = 'visit' AND NOT same_provider) AS other_provider_conflicts,
        min("BusyID") FILTER (WHERE "Kind" = 'in_service') AS in_service,
        floor(extract(epoch FROM sum(longest) FILTER (WHERE "Kind" = 'in_service')) / 60) AS in_service_minutes,
        min("BusyID") FILTER (WHERE "Kind" = 'leave') AS leave,

        min("ProviderID") FILTER (WHERE is_con) AS provider,
        min("CaregiverID") FILTER (WHERE is_con) AS caregiver,
        min("PatientID") FILTER (WHERE is_con) AS patient,
        min("SchStartTime") FILTER (WHERE is_con) AS sch_start,
        min("SchEndTime") FILTER (WHERE is_con) AS sch_end,
        min("VisitStartTime") FILTER (WHERE is_con) AS visit_start,
        min("VisitEndTime") FILTER (WHERE is_con) AS visit_end,
        bool_or(same_provider) FILTER (WHERE is_con) AS same_provider,
        bool_or(same_sch) FILTER (WHERE is_con) AS same_sch,
        bool_or(over_sch) FILTER (WHERE is_con) AS over_sch,
        bool_or(same_actual) FILTER (WHERE is_con) AS same_actual,
        bool_or(over_actual) FILTER (WHERE is_con) AS over_actual,
        bool_or(same_cross) FILTER (WHERE is_con) AS same_cross,
        bool_or(over_cross) FILTER (WHERE is_con) AS over_cross,
        bool_or(place = 7) FILTER (WHERE is_con) AS too_far,
        floor(extract(epoch FROM min(both_sch) FILTER (WHERE is_con)) / 60) AS sch_minutes,
        floor(extract(epoch FROM min(both_actual) FILTER (WHERE is_con)) / 60) AS actual_minutes,
        floor(extract(epoch FROM min(longest) FILTER (WHERE is_con)) / 60) AS longest_minutes,
        floor(extract(epoch FROM min(gap) FILTER (WHERE is_con AND longest IS NULL)) / 60) AS gap_minutes,
        min(miles) FILTER (WHERE is_con) AS miles
    FROM (
        SELECT meeting.*, "Kind" = 'visit' AND "BusyID" = own."ConVisitID" AS is_con, place
        FROM (
            -- A busy time is there once for each day that it touches.
            SELECT DISTINCT ON (busy."Kind", busy."BusyID") busy.*,
                own."ProviderID" = busy."ProviderID" AS same_provider,
                own.sch = times.sch AS same_sch, own.sch && times.sch AS over_sch,
                own.actual = times.actual AS same_actual, own.actual && times.actual AS over_actual,
                coalesce(own.sch = times.actual, false) OR coalesce(own.actual = times.sch, false) AS same_cross,
                coalesce(own.sch && times.actual, false) OR coalesce(own.actual && times.sch, false) AS over_cross,
                upper(own.sch * times.sch) - lower(own.sch * times.sch) AS both_sch,
                upper(own.actual * times.actual) - lower(own.actual * times.actual) AS both_actual,
                greatest(upper(own.sch * times.sch) - lower(own.sch * times.sch),
                    upper(own.actual * times.actual) - lower(own.actual * times.actual),
                    upper(own.sch * times.actual) - lower(own.sch * times.actual),
                    upper(own.actual * times.sch) - lower(own.actual * times.sch)) AS longest,
                greatest(lower(coalesce(times.actual, times.sch)) - upper(own.present),
                    lower(own.present) - upper(coalesce(times.actual, times.sch))) AS gap,
                -- The chord between two points of the sphere gives the angle.
                round(100 * 2 * 3958.8 * asin(CASE WHEN chord > 2 THEN 1 ELSE chord / 2 END)) / 100 AS miles
            FROM public.conflictvisitmaps_temp AS busy
            -- The times of an absence stand in for both pairs.
            CROSS JOIN LATERAL (
                SELECT
                    CASE WHEN "Kind" <> 'visit' THEN tstzrange("BusyStart", "BusyEnd")
                        WHEN "SchStartTime" IS NOT NULL THEN tstzrange("SchStartTime", "SchEndTime") END AS sch,
                    CASE WHEN "Kind" <> 'visit' THEN tstzrange("BusyStart", "BusyEnd")
                        WHEN "VisitStartTime" IS NOT NULL THEN tstzrange("VisitStartTime", "VisitEndTime") END AS actual
                OFFSET 0
            ) AS times
            CROSS JOIN LATERAL (
                SELECT sqrt(
                    (cosd(own."Latitude") * cosd(own."Longitude")
                        - cosd(busy."Latitude") * cosd(busy."Longitude")) ^ 2
                    + (cosd(own."Latitude") * sind(own."Longitude")
                        - cosd(busy."Latitude") * sind(busy."Longitude")) ^ 2
                    + (sind(own."Latitude") - sind(busy."Latitude")) ^ 2) AS chord
            ) AS between_them
            WHERE busy."SSN" = own."SSN"
                AND busy."BusyDay" BETWEEN lower(own.span)::date - 2 AND upper(own.span)::date + 2
                AND busy."BusyStart" < upper(own.span) + interval '1 day'
                AND busy."BusyEnd" > lower(own.span) - interval '1 day'
                AND (busy."Kind", busy."BusyID") <> ('visit', own."VisitID")
                AND tstzrange("BusyStart", "BusyEnd") && tstzrange(
                    lower(own.span) - make_interval(mins => :travel_window_minutes::integer),
                    upper(own.span) + make_interval(mins => :travel_window_minutes::integer))
            ORDER BY busy."Kind", busy."BusyID"
        ) AS meeting
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN longest IS NOT NULL AND "Kind" = 'in_service' THEN 8
                WHEN longest IS NOT NULL AND "Kind" = 'leave' THEN 9
                WHEN same_actual THEN 1 WHEN over_actual THEN 2
                WHEN same_cross THEN 3 WHEN over_cross THEN 4
                WHEN same_sch THEN 5 WHEN over_sch THEN 6
                WHEN gap < make_interval(mins => :travel_window_minutes::integer)
                    AND gap < make_interval(mins => ceil(miles * 60 / :travel_mph::float8)::integer) THEN 7
            END AS place
        ) AS judged
        WHERE place IS NOT NULL
    ) AS conflict
) AS expected
WHERE (
        own."ConflictStatus", own."ConflictType", own."ConflictCount", own."OtherProviderConflictCount"
    ) IS DISTINCT FROM (
        CASE WHEN own.span IS NULL THEN 'undetermined' WHEN place IS NULL THEN 'clear' ELSE 'conflict' END,
        (ARRAY['same_visit_time', 'visit_times_overlap', 'schedule_is_visit_time', 'schedule_over_visit_time',
            'same_schedule', 'schedules_overlap', 'travel_time', 'in_service', 'leave'])[place],
        conflicts, other_provider_conflicts)
    OR (
        own."ConVisitID", own."ConProviderID", own."ConCaregiverID", own."ConPatientID",
        own."ConSchStartTime", own."ConSchEndTime", own."ConVisitStartTime", own."ConVisitEndTime"
    ) IS DISTINCT FROM (con_visit, provider, caregiver, patient, sch_start, sch_end, visit_start, visit_end)
    OR (
        own."SameProviderFlag", own."SameSchTimeFlag", own."SchOverAnotherSchTimeFlag", own."SameVisitTimeFlag",
        own."VisitTimeOverAnotherVisitTimeFlag", own."SchAndVisitTimeSameFlag", own."SchTimeOverVisitTimeFlag"
    ) IS DISTINCT FROM (
        coalesce(same_provider, false), coalesce(same_sch, false), coalesce(over_sch AND NOT same_sch, false),
        coalesce(same_actual, false), coalesce(over_actual AND NOT same_actual, false),
        coalesce(same_cross, false), coalesce(over_cross AND NOT same_cross, false))
    OR (
        own."SchOverlapMinutes", own."VisitOverlapMinutes", own."OverlapMinutes", own."MinuteDiff"
    ) IS DISTINCT FROM (sch_minutes, actual_minutes, longest_minutes, gap_minutes)
    OR (
        own."Distance", own."TravelMinutes", own."DistanceFlag"
    ) IS DISTINCT FROM (miles, ceil(miles * 60 / :travel_mph::float8), coalesce(too_far, false))
    OR (
        own."InServiceFlag", own."InServiceID", own."InServiceOverlapMinutes", own."PTOFlag", own."LeaveID"
    ) IS DISTINCT FROM (in_service IS NOT NULL, in_service, in_service_minutes, leave IS NOT NULL, leave)
;

-- conflict_with_itself_or_a_stranger
-- the conflicting visit is another visit, and of the same person
-- severity: error
SELECT map."ID"
FROM public.conflictvisitmaps AS map
WHERE map."UpdatedDate" = :run_ts AND map."ModifiedDate" < :run_ts AND map."ConVisitID" IS NOT NULL
    AND (map."ConVisitID" = map."VisitID" OR NOT EXISTS (
        SELECT FROM public.conflictvisitmaps_temp AS work
        WHERE work."SSN" = map."SSN" AND work."Kind" = 'visit' AND work."BusyID" = map."ConVisitID"))
;

-- minutes_out_of_range
-- no overlap is negative or longer than both visits, no gap or distance negative
-- severity: error
SELECT "ID"
FROM public.conflictvisitmaps
WHERE "UpdatedDate" = :run_ts AND "ModifiedDate" < :run_ts
    AND (least("SchOverlapMinutes", "VisitOverlapMinutes", "OverlapMinutes", "InServiceOverlapMinutes") < 0
        OR least("MinuteDiff", "TravelMinutes") < 0 OR "Distance" < 0
        OR make_interval(mins => "OverlapMinutes")
            > greatest("SchEndTime" - "SchStartTime", "VisitEndTime" - "VisitStartTime"))
;

-- status_without_reason
-- the status, the counts and the flags of a row tell the same story
-- severity: error
SELECT "ID"
FROM public.conflictvisitmaps
WHERE "UpdatedDate" = :run_ts
    AND (("ConflictStatus" = 'conflict') IS DISTINCT FROM ("ConflictCount" > 0 OR "InServiceFlag" OR "PTOFlag")
        OR ("ConflictType" IS NOT NULL) IS DISTINCT FROM ("ConflictStatus" = 'conflict')
        OR ("ConVisitID" IS NOT NULL) IS DISTINCT FROM ("ConflictCount" > 0)
        OR ("ConflictCount" > 0) IS DISTINCT FROM (
            "SameSchTimeFlag" OR "SchOverAnotherSchTimeFlag" OR "SameVisitTimeFlag"
            OR "VisitTimeOverAnotherVisitTimeFlag" OR "SchAndVisitTimeSameFlag" OR "SchTimeOverVisitTimeFlag"
            OR "DistanceFlag")
        OR "OtherProviderConflictCount" > "ConflictCount")
;

-- source_changed_since_copy
-- visits that are not, or no more, as the work table has them: changed while the run went on, or copied wrongly
-- severity: warning
SELECT coalesce(live."VisitID", work."BusyID") AS "VisitID"
FROM (
    SELECT visit.*, "SSN",
        CASE WHEN "SchStartTime" < "SchEndTime" THEN tstzrange("SchStartTime", "SchEndTime") END AS sch,
        CASE WHEN "VisitStartTime" < "VisitEndTime" THEN tstzrange("VisitStartTime", "VisitEndTime") END AS actual
    FROM public.visits AS visit
    JOIN public.caregivers USING ("CaregiverID")
    WHERE NOT "IsMissed" AND "SSN" SIMILAR TO '[0-9]{3}-[0-9]{2}-[0-9]{4}'
        AND ("SchStartTime" < "SchEndTime" OR "VisitStartTime" < "VisitEndTime")
        AND greatest(CASE WHEN "SchStartTime" < "SchEndTime" THEN "SchEndTime" END,
            CASE WHEN "VisitStartTime" < "VisitEndTime" THEN "VisitEndTime" END)
            > (:since::date - 2)::timestamp AT TIME ZONE 'UTC'
) AS live
FULL JOIN (
    SELECT * FROM public.conflictvisitmaps_temp WHERE "Kind" = 'visit' AND "BusyDay" = "FirstDay"
) AS work ON work."BusyID" = live."VisitID"
WHERE (live."SSN", live."ProviderID", live."CaregiverID", live."PatientID",
        lower(live.sch), upper(live.sch), lower(live.actual), upper(live.actual))
    IS DISTINCT FROM (work."SSN", work."ProviderID", work."CaregiverID", work."PatientID",
        work."SchStartTime", work."SchEndTime", work."VisitStartTime", work."VisitEndTime")
;

-- wrong_visit_date
-- VisitDate is the agency's local date of the scheduled start, as the application has to enter it
-- severity: warning
SELECT map."ID"
FROM public.conflictvisitmaps AS map
JOIN public.providers AS provider USING ("ProviderID")
WHERE map."UpdatedDate" = :run_ts AND map."VisitDate" <> (map."SchStartTime" AT TIME ZONE provider."TimeZone")::date
;
