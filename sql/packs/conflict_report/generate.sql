-- empty_tables
-- forgets earlier data of any size
TRUNCATE public.leaves, public.inservices, public.conflictvisitmaps, public.conflictvisitmaps_temp,
    public.visits, public.caregivers, public.patients, public.providers
;

-- providers
-- 48 agencies in eight time zones, one of them without daylight saving
INSERT INTO public.providers
SELECT n, 'Agency ' || n, (ARRAY[
    'America/New_York', 'America/Chicago', 'America/Los_Angeles', 'America/Denver',
    'America/Phoenix', 'America/Puerto_Rico', 'Pacific/Honolulu', 'America/Indiana/Indianapolis'])[1 + n % 8]
FROM generate_series(1, 48) AS n
;

-- patients
-- around the city of their agency, one in 128 without coordinates; PatientID and ProviderID agree modulo 48
INSERT INTO public.patients
SELECT
    n, provider,
    CASE WHEN h & 127 <> 0 THEN round(city_latitude + ((h >> 8) & 1023) / 2560.0 - 0.2, 5) END,
    CASE WHEN h & 127 <> 0 THEN round(city_longitude + ((h >> 24) & 1023) / 2560.0 - 0.2, 5) END
FROM generate_series(1, greatest(:rows / 25, 96)) AS n
CROSS JOIN LATERAL (SELECT 1 + n % 48 AS provider, hashint8extended(n, :seed * 100 + 1) AS h) AS of_patient
CROSS JOIN LATERAL (
    SELECT
        (ARRAY[40.71, 41.88, 34.05, 39.74, 33.45, 18.47, 21.31, 39.77])[1 + provider % 8],
        (ARRAY[-74.01, -87.63, -118.24, -104.99, -112.07, -66.11, -157.86, -86.16])[1 + provider % 8]
) AS city (city_latitude, city_longitude)
;

-- caregivers
-- a person n is employed as caregiver 2n and 2n + 1, nine times in ten in one time zone; one in 100 without SSN.
-- Person 0, the busiest, has the canary's SSN where there is one.
INSERT INTO public.caregivers
SELECT
    2 * n + job,
    1 + (CASE WHEN job = 0 THEN h & 65535 ELSE (h & 65535) + CASE WHEN (h >> 16) % 10 = 0 THEN 9 ELSE 8 END END) % 48,
    CASE
        WHEN n = 0 AND :canary::text IS NOT NULL THEN :canary::text
        WHEN n % 100 = 13 THEN NULL
        WHEN n % 1000 = 17 THEN 'unknown'
        ELSE 900 + n % 100 || '-' || lpad((n / 100 % 50)::text, 2, '0') || '-' || lpad((n / 5000)::text, 4, '0')
    END
FROM generate_series(0, greatest(:rows / 80, 20)) AS n
CROSS JOIN generate_series(0, 1) AS job
CROSS JOIN LATERAL (SELECT hashint8extended(n, :seed * 100 + 2) & 9007199254740991 AS h) AS of_person
;

-- visits
-- five visits for four conflict rows. Visit n follows the plan of visit n - 1 in one case of 24: the same person
-- and times, often at the other agency, and in a third of these cases with the same clocking.
-- The person is drawn with a weight that falls with its number.
-- It is the morning of 6 November 2025: what comes later is planned and not clocked.
INSERT INTO public.visits
SELECT
    n, caregiver."ProviderID", caregiver."CaregiverID",
    1 + (caregiver."ProviderID" - 1 + 47) % 48 + 48 * ((h >> 3) % (greatest(:rows / 25, 96) / 48)),
    CASE WHEN NOT unscheduled THEN planned.began END, CASE WHEN NOT unscheduled THEN planned.ended END,
    CASE WHEN unscheduled OR clocked_in AND not_ahead THEN actual.began END,
    CASE WHEN unscheduled OR clocked_in AND clocked_out AND not_ahead THEN actual.ended END,
    h % 61 = 0
FROM generate_series(1, :rows::bigint + :rows::bigint / 4) AS n
CROSS JOIN LATERAL (
    SELECT hashint8extended(n, :seed * 100 + 3) & 9007199254740991 AS h
) AS of_visit
CROSS JOIN LATERAL (
    SELECT
        hashint8extended(n - (h % 24 = 7)::integer, :seed * 100 + 5) & 9007199254740991 AS who,
        hashint8extended(n - (h % 24 = 7)::integer, :seed * 100 + 6) & 9007199254740991 AS moment,
        hashint8extended(n - (h % 72 = 7)::integer, :seed * 100 + 4) & 9007199254740991 AS jitter,
        h % 200 = 0 AS unscheduled,
        h % 10 <> 0 AS clocked_in,
        h % 47 <> 0 AS clocked_out
) AS of_plan
JOIN public.caregivers AS caregiver ON caregiver."CaregiverID"
    = 2 * floor(greatest(:rows / 80, 20) * ((who & 1048575) / 1048576.0::float8) ^ 1.5)::bigint + (h >> 20) % 2
JOIN public.providers AS provider USING ("ProviderID")
CROSS JOIN LATERAL (
    -- Weeks around the days on which the clocks of 2025 change: 45 days from 1 February and 19 from 24 October.
    SELECT
        date '2025-02-01' + CASE WHEN day < 45 THEN day ELSE day + 220 END AS date,
        -- A quarter of an hour in the day; one visit in twelve at night, where clocks change and dates end.
        make_interval(mins => 15 * CASE WHEN (moment >> 12) % 12 = 0 THEN 88 + (moment >> 20) % 28
            ELSE 26 + (moment >> 20) % 50 END::integer) AS clock,
        (ARRAY[60, 60, 90, 120, 120, 180, 240, 240, 480, 720, 60, 1440])[1 + (moment >> 30) % 12
            - CASE WHEN (moment >> 36) % 8 <> 0 AND (moment >> 30) % 12 >= 8 THEN 4 ELSE 0 END] AS minutes
    FROM (SELECT (moment % 64)::integer AS day) AS of_moment
) AS plan
CROSS JOIN LATERAL (
    SELECT start, start + make_interval(mins => plan.minutes), plan.date < '2025-11-06'
    FROM (SELECT (plan.date + plan.clock) AT TIME ZONE provider."TimeZone" AS start) AS local_start
) AS planned (began, ended, not_ahead)
CROSS JOIN LATERAL (
    -- One visit in eight is clocked exactly as planned, the others within a quarter of an hour.
    SELECT
        planned.began + make_interval(secs => CASE WHEN jitter % 8 <> 0 THEN (jitter >> 4) % 1800 - 900 ELSE 0 END),
        planned.ended + make_interval(secs => CASE WHEN jitter % 8 <> 0 THEN (jitter >> 20) % 1800 - 900 ELSE 0 END)
) AS actual (began, ended)
;

-- inservices
-- a training of two hours for every fourth person and fortnight
INSERT INTO public.inservices
SELECT
    row_number() OVER (ORDER BY caregiver."CaregiverID", session), caregiver."CaregiverID", start,
    start + interval '2 hours'
FROM public.caregivers AS caregiver
JOIN public.providers AS provider USING ("ProviderID")
CROSS JOIN generate_series(0, 3) AS session
CROSS JOIN LATERAL (
    SELECT (date '2025-02-01' + (14 * session + (caregiver."CaregiverID" % 11)::integer)
        + make_interval(hours => 9 + (caregiver."CaregiverID" % 7)::integer)) AT TIME ZONE provider."TimeZone"
) AS moment (start)
WHERE caregiver."CaregiverID" % 8 = 3
;

-- leaves
-- one to seven days for every third person; some contain the day on which the clock changes
INSERT INTO public.leaves
SELECT
    row_number() OVER (ORDER BY "CaregiverID"), "CaregiverID", first_day, first_day + ("CaregiverID" % 7)::integer
FROM public.caregivers
CROSS JOIN LATERAL (
    SELECT date '2025-02-01' + ((hashint8extended("CaregiverID", :seed * 100 + 7) & 4095) % 45)::integer
) AS period (first_day)
WHERE "CaregiverID" % 6 = 2
;

-- conflictvisitmaps
-- four visits of five, as the application enters them
INSERT INTO public.conflictvisitmaps
    ("ID", "VisitID", "VisitDate", "SSN", "ProviderID", "CaregiverID", "PatientID", "Latitude", "Longitude",
    "SchStartTime", "SchEndTime", "VisitStartTime", "VisitEndTime", "ModifiedDate")
SELECT
    visit."VisitID" - visit."VisitID" / 5, visit."VisitID",
    (visit."SchStartTime" AT TIME ZONE provider."TimeZone")::date,
    caregiver."SSN", visit."ProviderID", visit."CaregiverID", visit."PatientID",
    patient."Latitude", patient."Longitude",
    visit."SchStartTime", visit."SchEndTime", visit."VisitStartTime", visit."VisitEndTime",
    timestamptz '2025-01-01 00:00+00'
FROM public.visits AS visit
JOIN public.caregivers AS caregiver USING ("CaregiverID")
JOIN public.providers AS provider ON provider."ProviderID" = visit."ProviderID"
JOIN public.patients AS patient USING ("PatientID")
WHERE visit."VisitID" % 5 <> 4
ORDER BY visit."VisitID"
LIMIT :rows
;

-- statistics
-- so that the first plan is a good one
ANALYZE public.providers, public.patients, public.caregivers, public.visits, public.inservices, public.leaves,
    public.conflictvisitmaps
;
