-- nobody_has_a_number
-- offends with every key, so that the ledger keeps some
-- severity: error
SELECT "SSN", "VisitDate" FROM canary.visits
;
-- few_have_a_number
-- the same as a warning
-- severity: warning
SELECT "SSN" AS number FROM canary.visits
;
