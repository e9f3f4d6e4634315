-- update_conflicts
-- for each row of chunk the worst conflict with another visit of the same person, and the absences it collides with.
-- One probe of the work table's key per row, whatever the number of rows: a plain join of the two is planned as a
-- merge of all visits of a person with each other, and takes twice as long.
WITH own AS MATERIALIZED (
    SELECT
        times.*,
        (search_start AT TIME ZONE 'Etc/GMT+8')::date AS first_day,
        (search_end AT TIME ZONE 'Etc/GMT+8')::date AS last_day
    FROM (
        SELECT
            chunk.row_id, chunk."VisitID" AS visit_id, chunk."ProviderID" AS provider_id,
            chunk."Latitude" AS latitude, chunk."Longitude" AS longitude,
            planned.began AS sch_start, planned.ended AS sch_end,
            actual.began AS visit_start, actual.ended AS visit_end,
            -- Where the caregiver really was: the clocked times, or the plan as long as there are none.
            coalesce(actual.began, planned.began) AS present_start,
            coalesce(actual.ended, planned.ended) AS present_end,
            -- least and greatest pass over NULL.
            least(planned.began, actual.began) - travel_window AS search_start,
            greatest(planned.ended, actual.ended) + travel_window AS search_end,
            -- NULL, which no busy time has, where no conflict can be established. A work table without even a
            -- signature proves nothing: PostgreSQL empties it in the recovery from a crash.
            CASE
                WHEN chunk."VisitDate" IS NOT NULL
                    AND chunk."SSN" ~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$'
                    AND coalesce(actual.began, planned.began) IS NOT NULL
                    AND EXISTS (SELECT FROM public.conflictvisitmaps_temp)
                THEN chunk."SSN"
            END AS ssn
        FROM chunk
        CROSS JOIN make_interval(mins => :travel_window_minutes::integer) AS travel_window
        -- A pair of times counts only whole and in order.
        LEFT JOIN LATERAL (
            SELECT chunk."SchStartTime", chunk."SchEndTime" WHERE chunk."SchStartTime" < chunk."SchEndTime"
        ) AS planned (began, ended) ON true
        LEFT JOIN LATERAL (
            SELECT chunk."VisitStartTime", chunk."VisitEndTime" WHERE chunk."VisitStartTime" < chunk."VisitEndTime"
        ) AS actual (began, ended) ON true
    ) AS times
)
SELECT
    own.row_id,
    CASE WHEN own.ssn IS NULL THEN 'undetermined' WHEN worst.kind IS NULL THEN 'clear' ELSE 'conflict' END
        AS "ConflictStatus",
    (ARRAY['leave', 'in_service', 'travel_time', 'schedules_overlap', 'same_schedule', 'schedule_over_visit_time',
        'schedule_is_visit_time', 'visit_times_overlap', 'same_visit_time'])[worst.severity] AS "ConflictType",
    coalesce(worst.conflicts, 0)::integer AS "ConflictCount",
    coalesce(worst.other_provider_conflicts, 0)::integer AS "OtherProviderConflictCount",

    CASE WHEN worst.kind = 'visit' THEN worst.busy_id END AS "ConVisitID",
    worst.provider_id AS "ConProviderID",
    worst.caregiver_id AS "ConCaregiverID",
    worst.patient_id AS "ConPatientID",
    worst.sch_start AS "ConSchStartTime",
    worst.sch_end AS "ConSchEndTime",
    worst.visit_start AS "ConVisitStartTime",
    worst.visit_end AS "ConVisitEndTime",
    coalesce(worst.same_provider, false) AS "SameProviderFlag",

    coalesce(worst.same_sch, false) AS "SameSchTimeFlag",
    worst.sch_overlap IS NOT NULL AND NOT worst.same_sch AS "SchOverAnotherSchTimeFlag",
    coalesce(worst.same_visit, false) AS "SameVisitTimeFlag",
    worst.visit_overlap IS NOT NULL AND NOT worst.same_visit AS "VisitTimeOverAnotherVisitTimeFlag",
    coalesce(worst.same_cross, false) AS "SchAndVisitTimeSameFlag",
    worst.cross_overlap IS NOT NULL AND NOT worst.same_cross AS "SchTimeOverVisitTimeFlag",
    floor(date_part('epoch', worst.sch_overlap) / 60)::integer AS "SchOverlapMinutes",
    floor(date_part('epoch', worst.visit_overlap) / 60)::integer AS "VisitOverlapMinutes",
    floor(date_part('epoch', worst.overlap) / 60)::integer AS "OverlapMinutes",

    worst.miles AS "Distance",
    CASE WHEN worst.overlap IS NULL THEN floor(date_part('epoch', worst.gap) / 60)::integer END AS "MinuteDiff",
    worst.travel_minutes AS "TravelMinutes",
    coalesce(worst.severity = 3, false) AS "DistanceFlag",

    worst.in_service_id IS NOT NULL AS "InServiceFlag",
    worst.in_service_id AS "InServiceID",
    floor(date_part('epoch', worst.in_service_overlap) / 60)::integer AS "InServiceOverlapMinutes",
    worst.leave_id IS NOT NULL AS "PTOFlag",
    worst.leave_id AS "LeaveID"
FROM own
LEFT JOIN LATERAL (
    SELECT
        rated.*,
        count(*) FILTER (WHERE kind = 'visit') OVER () AS conflicts,
        count(*) FILTER (WHERE kind = 'visit' AND NOT same_provider) OVER () AS other_provider_conflicts,
        min(busy_id) FILTER (WHERE kind = 'in_service') OVER () AS in_service_id,
        sum(absence_overlap) FILTER (WHERE kind = 'in_service') OVER () AS in_service_overlap,
        min(busy_id) FILTER (WHERE kind = 'leave') OVER () AS leave_id
    FROM (
        SELECT
            pair.*,
            CASE
                WHEN same_visit THEN 9
                WHEN visit_overlap IS NOT NULL THEN 8
                WHEN same_cross THEN 7
                WHEN cross_overlap IS NOT NULL THEN 6
                WHEN same_sch THEN 5
                WHEN sch_overlap IS NOT NULL THEN 4
                WHEN gap < make_interval(mins => travel_minutes)
                    AND gap < make_interval(mins => :travel_window_minutes::integer) THEN 3
                WHEN kind = 'in_service' AND absence_overlap IS NOT NULL THEN 2
                WHEN kind = 'leave' AND absence_overlap IS NOT NULL THEN 1
            END AS severity
        FROM (
            SELECT
                met.*,
                greatest(sch_overlap, visit_overlap, cross_overlap) AS overlap,
                distance.miles,
                ceil(distance.miles * 60 / :travel_mph::double precision)::integer AS travel_minutes
            FROM (
                SELECT
                    busy."Kind" AS kind, busy."BusyID" AS busy_id,
                    busy."ProviderID" AS provider_id, busy."CaregiverID" AS caregiver_id,
                    busy."PatientID" AS patient_id,
                    busy."SchStartTime" AS sch_start, busy."SchEndTime" AS sch_end,
                    busy."VisitStartTime" AS visit_start, busy."VisitEndTime" AS visit_end,
                    busy."ProviderID" = own.provider_id AS same_provider,
                    busy."SchStartTime" = own.sch_start AND busy."SchEndTime" = own.sch_end AS same_sch,
                    busy."VisitStartTime" = own.visit_start AND busy."VisitEndTime" = own.visit_end AS same_visit,
                    coalesce(busy."SchStartTime" = own.visit_start AND busy."SchEndTime" = own.visit_end, false)
                        OR coalesce(busy."VisitStartTime" = own.sch_start AND busy."VisitEndTime" = own.sch_end, false)
                        AS same_cross,
                    CASE WHEN busy."SchStartTime" < own.sch_end AND own.sch_start < busy."SchEndTime"
                        THEN least(busy."SchEndTime", own.sch_end)
                            - greatest(busy."SchStartTime", own.sch_start) END AS sch_overlap,
                    CASE WHEN busy."VisitStartTime" < own.visit_end AND own.visit_start < busy."VisitEndTime"
                        THEN least(busy."VisitEndTime", own.visit_end)
                            - greatest(busy."VisitStartTime", own.visit_start) END AS visit_overlap,
                    greatest(
                        CASE WHEN busy."SchStartTime" < own.visit_end AND own.visit_start < busy."SchEndTime"
                            THEN least(busy."SchEndTime", own.visit_end)
                                - greatest(busy."SchStartTime", own.visit_start) END,
                        CASE WHEN busy."VisitStartTime" < own.sch_end AND own.sch_start < busy."VisitEndTime"
                            THEN least(busy."VisitEndTime", own.sch_end)
                                - greatest(busy."VisitStartTime", own.sch_start) END) AS cross_overlap,
                    CASE WHEN busy."Kind" <> 'visit' THEN greatest(
                        CASE WHEN busy."BusyStart" < own.sch_end AND own.sch_start < busy."BusyEnd"
                            THEN least(busy."BusyEnd", own.sch_end)
                                - greatest(busy."BusyStart", own.sch_start) END,
                        CASE WHEN busy."BusyStart" < own.visit_end AND own.visit_start < busy."BusyEnd"
                            THEN least(busy."BusyEnd", own.visit_end)
                                - greatest(busy."BusyStart", own.visit_start) END) END AS absence_overlap,
                    greatest(
                        coalesce(busy."VisitStartTime", busy."SchStartTime") - own.present_end,
                        own.present_start - coalesce(busy."VisitEndTime", busy."SchEndTime")) AS gap,
                    sind((busy."Latitude" - own.latitude) / 2) ^ 2
                        + cosd(own.latitude) * cosd(busy."Latitude")
                            * sind((busy."Longitude" - own.longitude) / 2) ^ 2 AS haversine
                FROM public.conflictvisitmaps_temp AS busy
                WHERE busy."SSN" = own.ssn
                    AND busy."BusyDay" BETWEEN own.first_day AND own.last_day
                    -- Once for each busy time: on the first day that both touch.
                    AND busy."BusyDay" = greatest(busy."FirstDay", own.first_day)
                    AND busy."BusyStart" < own.search_end AND own.search_start < busy."BusyEnd"
                    AND (busy."Kind" <> 'visit' OR busy."BusyID" <> own.visit_id)
                -- Keeps the planner from repeating these expressions at each of their uses.
                OFFSET 0
            ) AS met
            CROSS JOIN LATERAL (
                -- On a sphere of the Earth's mean radius, to hundredths of a mile; NULL without coordinates.
                SELECT round(100 * 2 * 3958.8 * asin(CASE WHEN haversine > 1 THEN 1 ELSE sqrt(haversine) END)) / 100
            ) AS distance (miles)
        ) AS pair
    ) AS rated
    WHERE severity IS NOT NULL
    ORDER BY severity DESC, same_provider, overlap DESC NULLS LAST, busy_id
    LIMIT 1
) AS worst ON true
