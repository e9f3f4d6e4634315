-- empty_work_table
-- forgets the previous run; readers of it wait until this step commits
TRUNCATE public.conflictvisitmaps_temp
;

-- copy_busy_times
-- when each person is busy from :since on, one row per day touched, in the order of the key.
-- A day ends where the clock of UTC-8 shows midnight (the sign of Etc/GMT+8 is POSIX's): the hour at which
-- the fewest visits of the country run, so that few busy times touch two days. Two days before :since are
-- taken along for visits that reach over midnight and for agencies east of that clock.
INSERT INTO public.conflictvisitmaps_temp
SELECT
    busy."SSN", busy."Kind", day.day::date, busy."BusyID", day.first_day,
    busy."BusyStart", busy."BusyEnd", busy."ProviderID", busy."CaregiverID", busy."PatientID",
    busy."Latitude", busy."Longitude",
    busy."SchStartTime", busy."SchEndTime", busy."VisitStartTime", busy."VisitEndTime"
FROM (
    SELECT
        caregiver."SSN", 'visit' AS "Kind", visit."VisitID" AS "BusyID",
        -- least and greatest pass over NULL: a visit with one pair of times is busy for that pair.
        least(planned.began, actual.began) AS "BusyStart", greatest(planned.ended, actual.ended) AS "BusyEnd",
        visit."ProviderID", visit."CaregiverID", visit."PatientID", patient."Latitude", patient."Longitude",
        planned.began AS "SchStartTime", planned.ended AS "SchEndTime",
        actual.began AS "VisitStartTime", actual.ended AS "VisitEndTime"
    FROM public.visits AS visit
    JOIN public.caregivers AS caregiver USING ("CaregiverID")
    LEFT JOIN public.patients AS patient USING ("PatientID")
    -- A pair of times counts only whole and in order.
    LEFT JOIN LATERAL (
        SELECT visit."SchStartTime", visit."SchEndTime" WHERE visit."SchStartTime" < visit."SchEndTime"
    ) AS planned (began, ended) ON true
    LEFT JOIN LATERAL (
        SELECT visit."VisitStartTime", visit."VisitEndTime" WHERE visit."VisitStartTime" < visit."VisitEndTime"
    ) AS actual (began, ended) ON true
    WHERE NOT visit."IsMissed"
    UNION ALL
    SELECT
        caregiver."SSN", 'in_service', session."InServiceID", session."StartTime", session."EndTime",
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM public.inservices AS session
    JOIN public.caregivers AS caregiver USING ("CaregiverID")
    UNION ALL
    SELECT
        caregiver."SSN", 'leave', leave."LeaveID",
        -- Midnight to midnight of the agency: 23 or 25 hours where the clock changes.
        leave."StartDate"::timestamp AT TIME ZONE provider."TimeZone",
        (leave."EndDate" + 1)::timestamp AT TIME ZONE provider."TimeZone",
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM public.leaves AS leave
    JOIN public.caregivers AS caregiver USING ("CaregiverID")
    JOIN public.providers AS provider USING ("ProviderID")
) AS busy
CROSS JOIN LATERAL (
    SELECT
        (busy."BusyStart" AT TIME ZONE 'Etc/GMT+8')::date,
        -- The end itself is not busy.
        ((busy."BusyEnd" - interval '1 microsecond') AT TIME ZONE 'Etc/GMT+8')::date
) AS reach (first_day, last_day)
CROSS JOIN LATERAL (
    SELECT reach.first_day + n, reach.first_day FROM generate_series(0, reach.last_day - reach.first_day) AS n
) AS day (day, first_day)
WHERE busy."SSN" ~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$'
    AND busy."BusyStart" < busy."BusyEnd"
    AND busy."BusyEnd" > (:since::date - 2)::timestamp AT TIME ZONE 'UTC'
ORDER BY busy."SSN", day.day, busy."Kind", busy."BusyID"
;

-- sign_work_table
-- a row of no person: tells a table without visits from one that the recovery from a crash emptied, and whose it is
INSERT INTO public.conflictvisitmaps_temp
    ("SSN", "Kind", "BusyDay", "BusyID", "FirstDay", "BusyStart", "BusyEnd")
VALUES ('', 'copied', '-infinity', :run_id, '-infinity', '-infinity', '-infinity')
;

-- describe_work_table
-- the step that follows is planned from these statistics
ANALYZE public.conflictvisitmaps_temp
;
