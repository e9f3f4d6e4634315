-- doubled
-- no row that this run stamped holds another value than its definition
SELECT "ID" FROM chaos.visits WHERE "UpdatedDate" = :run_ts AND "Doubled" IS DISTINCT FROM "Minutes" * 2
;
