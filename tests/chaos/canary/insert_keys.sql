-- insert_keys
-- A second one of the same number is refused.
INSERT INTO canary.unique_copy SELECT "SSN" FROM canary.visits WHERE "SSN" IS NOT NULL;
