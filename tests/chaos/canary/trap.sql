-- trap
-- The day of the month chooses how the application's trigger fails; a row alone, as in the rehearsal, passes.
SELECT chunk.row_id,
       CASE WHEN count(*) OVER () > 1
            THEN (ARRAY['P0001', '45000', '55000', '40001', '57P01', '08006', '57014', '42501', '0A000', '58000',
                        'dynamic', 'cast', 'assert'])[1 + extract(day FROM chunk."VisitDate")::integer % 13]
       END AS "Trap"
FROM chunk
